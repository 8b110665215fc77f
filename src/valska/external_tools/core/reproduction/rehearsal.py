"""What a reproduction would do, and what it would lack; nothing is made, fetched or built."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.reading import MOST_DOCUMENT_BYTES
from valska.external_tools.core.archive.unpacking import unpack_some
from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.reproduction.images import ELSEWHERE, find_image, places_elsewhere
from valska.external_tools.core.reproduction.reference import Located, LocatedSweep, locate
from valska.external_tools.core.reproduction.replay import request_again
from valska.external_tools.core.reproduction.running import Wish, environment_of
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.site_settings import site_of

_TELLS = re.compile(
    rf"{places.DOCUMENT}|{places.UNIT}/(?:[^/]+|(?:config|records)/.+)"
    rf"|{places.BUNDLE}/containers/[^/]+\.(?:json|def|lock|txt)"
)
"""Matches the files of an archive that say what it holds, by their paths in it."""


@contextmanager
def without_unpacking(
    archive: Path, unpacked: Path, progress: Callable[[int, int], None]
) -> Iterator[Located | LocatedSweep]:
    """Give what is in an archive, which is read and checked to its end.

    Parameters
    ----------
    archive
        The archive.
    unpacked
        Where it would be unpacked. What an earlier call has unpacked there is given.
    progress
        Told the bytes of the archive that were read, and all.

    Raises
    ------
    ValskaError
        If it would not be unpacked.
    """
    if unpacked.is_dir():
        yield locate(archive, unpacked)
        return
    with tempfile.TemporaryDirectory(prefix="valska-") as folder:
        top = unpack_some(archive, Path(folder), _tells, progress=progress)
        try:
            yield replace(locate(top, unpacked), whole=False)
        except ValskaError as error:
            # Where parts of it lie for as long as this lasts is of use to nobody.
            error.message = error.message.replace(str(top / places.BUNDLE), str(archive))
            raise


def _tells(name: str, size: int) -> bool:
    return size <= MOST_DOCUMENT_BYTES and bool(_TELLS.fullmatch(name))


def rehearse(wish: Wish, *, whole: bool) -> tuple[Path | None, str]:
    """Check what making it anew needs, and return where its image is, and that in words.

    Parameters
    ----------
    wish
        What is asked for.
    whole
        See `Located`.

    Raises
    ------
    PrerequisiteError
        If there is no image or environment.
    UsageError
        If a stage cannot have so many ranks.
    """
    manifest = wish.parent.manifest
    runner = RunnerKind(manifest.runner)
    site = site_of(wish.settings, runner)
    environment = environment_of(site, manifest)
    request_again(wish.parent, wish.place.path, site, None, environment, wish.ranks or {})
    if runner is not RunnerKind.CONTAINER:
        return None, ""
    if wish.image is None and wish.parent.image is not None and not whole:
        return None, "packed in the archive"
    return _find_image(wish)


def _find_image(wish: Wish) -> tuple[Path | None, str]:
    elsewhere = [] if wish.image is not None else places_elsewhere(wish.parent)
    # Without any of these the sources only say why they lead to nothing.
    sources = () if elsewhere else ELSEWHERE
    try:
        found = find_image(wish.parent, wish.settings, wish.image, sources)
    except PrerequisiteError:
        if not elsewhere:
            raise
        return None, f"not on this machine: to be {', or '.join(elsewhere)}"
    return found.image.path, f"{found.image.path} ({found.how})"
