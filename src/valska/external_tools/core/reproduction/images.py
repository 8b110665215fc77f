"""Where the image of a bundle is to be had: packed, in the store, where it was, or made again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images import adopt, digest_image
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.reproduction.replay import Parent, parent_image
from valska.external_tools.core.submission.preparation import site_image

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and how it was come by.

    Parameters
    ----------
    image
        The image.
    how
        In words, for a person.
    same
        Whether it has the digest of the parent's.
    """

    image: BundledImage
    how: str
    same: bool


Source = Callable[[Parent, Settings], Found | None]
"""A way to come by an image: None, or `ValskaError`, if it leads to none."""


def find_image(
    parent: Parent, settings: Settings, named: Path | None = None, sources: tuple[Source, ...] = ()
) -> Found:
    """Find the image of a bundle, or one made like it.

    Parameters
    ----------
    parent
        The bundle.
    settings
        What holds here for its tool.
    named
        The image that the user names; another than the parent's is taken, and told.
    sources
        Further ways, tried in turn when it is not on this machine.

    Raises
    ------
    PrerequisiteError
        If none is found, with what was tried.
    """
    if named is not None:
        return _named(parent, settings, named)
    for path, how in _here(parent, settings):
        if path.is_file() and digest_image(path) == _wanted(parent):
            return Found(parent_image(parent, path), how, same=True)
    tried = ["it is neither packed, nor in the store, nor where it was"]
    for source in sources:
        try:
            found = source(parent, settings)
        except ValskaError as error:
            tried.append(error.message)
            continue
        if found is not None:
            return found
    raise PrerequisiteError(
        f"no image {_wanted(parent)[:12]}: " + "; ".join(tried),
        "Name it with --image PATH.",
    )


def _wanted(parent: Parent) -> str:
    return str((parent.manifest.image or {}).get("sha256", ""))


def _here(parent: Parent, settings: Settings) -> Iterator[tuple[Path, str]]:
    if parent.image is not None:
        yield parent.image, "packed in the archive"
    embedded = (parent.manifest.image or {}).get("embedded")
    if embedded:
        yield parent.bundle.shared_path / str(embedded), "packed in the bundle"
    yield ImageStore(settings.images).sif(_wanted(parent)), f"in the store {settings.images}"
    noted = site_image(parent.bundle.site_env)
    if noted is not None:
        yield noted, "where the bundle's site.env says"


def _named(parent: Parent, settings: Settings, path: Path) -> Found:
    if digest_image(path.expanduser()) == _wanted(parent):
        return Found(parent_image(parent, path.expanduser().absolute()), "as named", same=True)
    found = adopt(path, ImageStore(settings.images), apptainer=settings.apptainer)
    log.warning("%s is another image than the bundle's %s", path, _wanted(parent)[:12])
    return Found(found, "as named, another than the bundle's", same=False)
