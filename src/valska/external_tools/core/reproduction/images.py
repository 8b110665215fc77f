"""Where the image of a bundle is to be had: packed, in the store, where it was, or made again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images import adopt, digest_image, resolve_image
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.reproduction.replay import Parent, image_files, parent_image
from valska.external_tools.core.submission.preparation import site_image
from valska.external_tools.core.utils import load_json, write_json_atomic

_BUILT = ("definition", "lock")

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


def note_image(note: Path, found: Found) -> None:
    """Write down how an image was come by, for later calls, which take what is there."""
    write_json_atomic(note, {"sha256": found.image.sha256, "how": found.how})


def noted_image(note: Path, made: Manifest) -> str | None:
    """Return how the image of what an earlier call has made was come by; None if not noted."""
    try:
        noted = load_json(note)
    except ValskaError:
        return None
    same = made.image is not None and noted.get("sha256") == made.image.get("sha256")
    return str(noted.get("how")) if same else None


def fetch_image(parent: Parent, settings: Settings) -> Found | None:
    """Fetch a bundle's image from a registry that has it, by its digest, into the store.

    Raises
    ------
    ValskaError
        If no registry that is known gives it.
    """
    from valska.external_tools.core.images.registry.options import http_options
    from valska.external_tools.core.images.registry.pulling import import_oras

    store, wanted = ImageStore(settings.images), _wanted(parent)
    refused: list[ValskaError] = []
    for uri in dict.fromkeys((*parent.published, *_sources_of(parent))):
        try:
            http = http_options(ca_bundle=settings.ca_bundle)
            record = import_oras(uri, store, http=http, apptainer=settings.apptainer)
        except ValskaError as error:
            refused.append(error)
            continue
        if record.sha256 == wanted:
            return Found(parent_image(parent, store.sif(wanted)), f"fetched from {uri}", same=True)
    if refused:
        raise refused[-1]
    raise PrerequisiteError("no registry is known to have it")


def rebuild_image(parent: Parent, settings: Settings) -> Found | None:
    """Build an image from the definition and the lock that a bundle holds, into the store.

    Raises
    ------
    ValskaError
        If the bundle has no definition, or it cannot be built here.
    """
    from valska.external_tools.core.images.building.draft import BuildRequest, draft_build
    from valska.external_tools.core.images.building.make import build

    store = ImageStore(settings.images)
    sources = [(name, data) for name, (role, data) in image_files(parent).items() if role in _BUILT]
    definitions = [name for name, _ in sources if name.endswith(".def")]
    if not definitions:
        raise PrerequisiteError("the bundle has no definition to build it from")
    log.warning("the image is built from the definition that the bundle holds; that takes a while")
    with store.workspace() as work:
        for name, data in sources:
            (work / name).write_bytes(data)
        request = BuildRequest(
            definition=work / definitions[0],
            store=store,
            build_arguments=dict((parent.manifest.image or {}).get("build_arguments") or {}),
            apptainer=settings.apptainer,
            ca_bundle=settings.ca_bundle,
            binds=settings.build_binds,
        )
        record = build(draft_build(request)).record
    if record.sha256 == _wanted(parent):
        how = "built again from the bundle's definition, to the last bit the same"
        return Found(parent_image(parent, store.sif(record.sha256)), how, same=True)
    how = f"built again from the bundle's definition: {record.sha256[:12]}, another digest"
    return Found(resolve_image(f"sha256:{record.sha256}", store), how, same=False)


ELSEWHERE: tuple[Source, ...] = (fetch_image, rebuild_image)
"""Ways to an image that is not on this machine."""


def places_elsewhere(parent: Parent) -> list[str]:
    """Return the ways to an image that is not on this machine, in words; nothing is asked."""
    uris = dict.fromkeys((*parent.published, *_sources_of(parent)))
    built = [name for name, (role, _) in image_files(parent).items() if role in _BUILT]
    definitions = [name for name in built if name.endswith(".def")]
    return [
        *(f"fetched from {uri}" for uri in uris),
        *(f"built from {name}, which the bundle holds" for name in definitions[:1]),
    ]


def _sources_of(parent: Parent) -> Iterator[str]:
    """Yield where a registry had the image, by the record that the bundle holds."""
    for role, data in image_files(parent).values():
        if role == "image-record":
            uri = str((json.loads(data).get("source") or {}).get("uri", ""))
            if uri.startswith("oras://"):
                yield uri


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
