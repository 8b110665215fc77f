"""The intent of a run or a sweep in an archive, read in one pass without unpacking the rest."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.document import parse_document
from valska.external_tools.core.archive.reading import read_archive
from valska.external_tools.core.archive.tar import Header, Kind
from valska.external_tools.core.comparison.intent import Side
from valska.external_tools.core.comparison.sweeps import SweepSide, read_side
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.layout import Sweep, is_sweep

_UNIT = r"(?:(?:points|shared)/[^/]+/)?"
_WANTED = re.compile(
    rf"{places.BUNDLE}/(?:sweep_manifest\.json|common\.json|{_UNIT}(?:manifest\.json|config/.+)"
    rf"|containers/[^/]+\.image\.json)|{places.DOCUMENT}"
)
_MOST_BYTES = 1 << 30
"""Of all that is read of an archive, with `_ENTRY_BYTES` more for each file and directory."""

_ENTRY_BYTES = 1 << 13


@contextmanager
def packed_side(
    archive: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Side | SweepSide]:
    """Give what an archive was to do; of an archive of one point that point.

    Manifests and configurations are written into a directory that is there as long as this
    lasts. Whether they are as they were packed is not looked at.

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
        If it cannot be read to its end, or is no archive.
    """
    with tempfile.TemporaryDirectory(prefix="valska-") as folder:
        root = Path(folder)
        taker = _Taker(folder, archive.name)
        try:
            read = read_archive(archive, fast=True, sink=taker, progress=progress)
        finally:
            taker.end()
        document = read.contents.documents.get(places.DOCUMENT)
        if read.findings or document is None:
            told = "; ".join(map(str, read.findings[:1])) or "it does not say what it holds"
            raise VerificationError(
                f"{archive} is not as it was packed: {told}", "`valska verify` says more."
            )
        yield _side(root / places.BUNDLE, parse_document(document).units)


def _side(path: Path, units: tuple[str, ...] | None) -> Side | SweepSide:
    if is_sweep(path):
        sweep = Sweep(path)
        points = [one for one in units or () if one.startswith(f"{sweep.points.name}/")]
        if len(points) != 1:
            return read_side(sweep)
        unit = sweep.unit(points[0])
    else:
        unit = Bundle(path)
    return Side(unit, read_manifest(unit))


class _Taker:
    """Writes those files of an archive that say what was to be done."""

    def __init__(self, root: str, archive: str) -> None:
        self._root, self._archive = root, archive
        self._made = {""}
        self._descriptor = -1
        self._size = 0

    def begin(self, name: str, header: Header) -> None:
        """Open a file that is wanted."""
        if header.kind is not Kind.FILE or not _WANTED.fullmatch(name):
            return
        self._make(name.rpartition("/")[0])
        self._count(name, header.size)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(f"{self._root}/{name}", flags, 0o600)

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
        while self._descriptor >= 0 and view:
            view = view[os.write(self._descriptor, view) :]

    def end(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
