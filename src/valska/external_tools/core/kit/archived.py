"""An archive as what a kit is made for: as much of it as says what it needs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from valska.external_tools.core.archive.document import ArchiveDocument
from valska.external_tools.core.archive.judging import judge_contents
from valska.external_tools.core.archive.places import BUNDLE, is_document
from valska.external_tools.core.archive.reading import read_archive
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import VerificationError

if TYPE_CHECKING:
    from valska.external_tools.core.archive.tar import Header
    from valska.external_tools.core.kit.targets import Target

LARGEST = 64 << 20
"""Bytes of a file that says what a bundle is; larger ones are images."""

_KEPT = (f"{BUNDLE}/SHA256SUMS", f"{BUNDLE}/site.env")


def take_out(archive: Path, directory: Path) -> tuple[Path, ArchiveDocument]:
    """Check an archive, and write what says what its bundle or sweep is into a directory.

    Parameters
    ----------
    archive
        The file.
    directory
        Where to; it is empty.

    Returns
    -------
    Path, ArchiveDocument
        Where the bundle or sweep is then, without inputs, outputs and image; and what the archive
        says of itself.

    Raises
    ------
    VerificationError
        If it is not as it was packed, or would write where it must not.
    ArchiveError
        If it cannot be read.
    """
    sink = _Some(directory)
    try:
        read = read_archive(archive, sink=sink)
    finally:
        sink.end()
    judged = judge_contents(read.contents, more=read.findings)
    if judged.findings or judged.document is None:
        raise VerificationError(
            f"{archive} is not as it was packed", f"`valska verify {archive.name}` says more."
        )
    return directory / BUNDLE, judged.document


def without_packed(target: Target, document: ArchiveDocument, name: str) -> Target:
    """Return what an archive's bundle needs besides what the archive has.

    Parameters
    ----------
    target
        The bundle or sweep.
    document
        What the archive says of itself.
    name
        Of the archive.
    """
    packed = {place for place, path in document.references.items() if path}
    image = document.image
    return replace(
        target,
        kind="archive",
        name=name,
        image=None if image is not None and image.path else target.image,
        inputs=tuple(pair for pair in target.inputs if pair[0].path not in packed),
        borrowed=tuple(entry for entry in target.borrowed if entry.path not in packed),
        left_out=tuple(entry.path for entry in document.left_out),
    )


class _Some:
    """Writes the small files of a bundle that say what it is; names have been checked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None

    def begin(self, name: str, header: Header) -> None:
        """Open a file, if it is one of those."""
        if header.kind is not Kind.FILE or header.size > LARGEST or not _is_wanted(name):
            return
        place = self._directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(place, flags, 0o600), "wb")

    def data(self, view: memoryview) -> None:
        """Write some bytes of it."""
        if self._file is not None:
            self._file.write(view)

    def end(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _is_wanted(name: str) -> bool:
    in_containers = name.startswith(f"{BUNDLE}/containers/") and not name.endswith(".sif")
    in_bundle = name.startswith(f"{BUNDLE}/") and "/records/" not in name
    return name in _KEPT or in_containers or (in_bundle and is_document(name))
