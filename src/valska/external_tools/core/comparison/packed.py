"""The intent of a run or a sweep in an archive, read in one pass without unpacking the rest."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from valska.external_tools.core.archive import bag, places
from valska.external_tools.core.archive.contents import Contents
from valska.external_tools.core.archive.document import (
    ArchiveDocument,
    ArchiveKind,
    parse_document,
)
from valska.external_tools.core.archive.judging import judge_contents
from valska.external_tools.core.archive.reading import Read, read_archive
from valska.external_tools.core.archive.tar import Header, Kind
from valska.external_tools.core.comparison.intent import Side
from valska.external_tools.core.comparison.sealed import Sealed
from valska.external_tools.core.comparison.sweeps import SweepSide, read_side
from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.document import PointEntry, SharedEntry
from valska.external_tools.core.sweep.layout import Sweep

_UNIT = r"(?:(?:points|shared)/[^/]+/)?"
_WANTED = re.compile(
    rf"{places.BUNDLE}/(?:sweep_manifest\.json|common\.json|{_UNIT}(?:manifest\.json|config/.+)"
    rf"|containers/[^/]+\.image\.json)|{places.DOCUMENT}"
)
_MOST_BYTES = 1 << 30
"""Of all that is read of an archive, with `_ENTRY_BYTES` more for each file and directory."""

_ENTRY_BYTES = 1 << 13
_HINT = "`valska verify` says more."


@contextmanager
def packed_side(
    archive: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[Side | SweepSide, Sealed]]:
    """Give what an archive was to do, of an archive of one point that point; and what is wrong.

    Manifests and configurations are written into a directory that is there as long as this
    lasts. They are digested; of other files the size is compared, and the digest that the bag's
    manifest has of them. What fails while this lasts is told by its path in the archive.

    Parameters
    ----------
    archive
        The file.
    progress
        Told the bytes of the file that were read, and all.

    Raises
    ------
    HostileError
        If the archive would write where it must not, or more than is allowed.
    VerificationError
        If it cannot be read to its end, or contradicts itself in what it holds.
    """
    with tempfile.TemporaryDirectory(prefix="valska-") as folder:
        read, digests = _taken(archive, folder, progress)
        try:
            document = _document(archive, read)
            _add_digests(read.contents, digests)
            found = judge_contents(read.contents).findings
            sealed = Sealed(tuple(f"{one.path} ({one.kind})" for one in found))
            yield _side(archive, Path(folder) / places.BUNDLE, document), sealed
        except (ValskaError, OSError) as error:
            told = error.message if isinstance(error, ValskaError) else str(error)
            if folder not in told:
                raise
            told = told.replace(f"{folder}/", "")
            raise _not_as_packed(archive, told) from error


def _taken(
    archive: Path, folder: str, progress: Callable[[int, int], None]
) -> tuple[Read, dict[str, str]]:
    taker = _Taker(folder, archive.name)
    try:
        read = read_archive(archive, fast=True, sink=taker, progress=progress)
    finally:
        taker.end()
    return read, taker.digests


def _document(archive: Path, read: Read) -> ArchiveDocument:
    data = read.contents.documents.get(places.DOCUMENT)
    if read.findings or data is None:
        raise _not_as_packed(
            archive, "; ".join(map(str, read.findings[:1])) or "it does not say what it holds"
        )
    try:
        return parse_document(data)
    except VerificationError as error:
        raise _not_as_packed(archive, f"{places.DOCUMENT}: {error.message}") from error


def _not_as_packed(archive: Path, why: str) -> VerificationError:
    return VerificationError(f"{archive} is not as it was packed: {why}", _HINT)


def _add_digests(contents: Contents, taken: Mapping[str, str]) -> None:
    """Take for files that were not read what the bag's manifest says of them."""
    try:
        listed = bag.parse_manifest(contents.documents.get(places.MANIFEST, b""))
    except bag.BagError:
        listed = {}
    for name, entry in contents.entries.items():
        if entry.sha256 is None:
            entry.sha256 = taken.get(name) or listed.get(name)


def _side(archive: Path, path: Path, document: ArchiveDocument) -> Side | SweepSide:
    if document.kind is ArchiveKind.BUNDLE:
        unit = Bundle(path)
        return Side(unit, read_manifest(unit))
    side = read_side(Sweep(path))
    if document.units is None:
        return side
    units = [one for one in side.units if one.place in document.units]
    points = [one for one in units if isinstance(one, PointEntry)]
    if len(units) != len(document.units) or not units:
        raise _not_as_packed(
            archive, f"{places.DOCUMENT} names none, or others, of the units of the sweep"
        )
    if len(points or units) == 1:
        unit = side.sweep.unit((points or units)[0].place)
        return Side(unit, read_manifest(unit))
    shared = tuple(one for one in units if isinstance(one, SharedEntry))
    return replace(side, manifest=replace(side.manifest, points=tuple(points), shared=shared))


class _Taker:
    """Writes those files of an archive that say what was to be done."""

    def __init__(self, root: str, archive: str) -> None:
        self._root, self._archive = root, archive
        self._made = {""}
        self._descriptor = -1
        self._size = 0
        self._name, self._digest = "", hashlib.sha256()
        self.digests: dict[str, str] = {}

    def begin(self, name: str, header: Header) -> None:
        """Open a file that is wanted."""
        if header.kind is not Kind.FILE or not _WANTED.fullmatch(name):
            return
        self._make(name.rpartition("/")[0])
        self._count(name, header.size)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(f"{self._root}/{name}", flags, 0o600)
        self._name, self._digest = name, hashlib.sha256()

    def _make(self, name: str) -> None:
        if name not in self._made:
            self._make(name.rpartition("/")[0])
            self._count(name)
            os.mkdir(f"{self._root}/{name}")  # noqa: PTH102 - there are many
            self._made.add(name)

    def _count(self, name: str, size: int = 0) -> None:
        self._size += size + _ENTRY_BYTES
        if self._size > _MOST_BYTES:
            raise VerificationError(
                f"too many or too large manifests and configurations in {self._archive}: {name}",
                "Unpack it with `valska unpack`, and name the bundle in it.",
            )

    def data(self, view: memoryview) -> None:
        """Write some bytes of it."""
        if self._descriptor < 0:
            return
        self._digest.update(view)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def end(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self.digests[self._name] = self._digest.hexdigest()
            self._descriptor = -1
