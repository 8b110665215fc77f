"""Reading an archive in one pass: what is in it, and what is wrong with it as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from valska.external_tools.core.archive.compressed import READ_BYTES, CompressedFile
from valska.external_tools.core.archive.contents import Contents, Entry
from valska.external_tools.core.archive.entries import EntryError, Limits, Names
from valska.external_tools.core.archive.errors import ArchiveError, HostileError, NoArchiveError
from valska.external_tools.core.archive.lanes import TINY, Batch, Digester, Lane, Pool
from valska.external_tools.core.archive.places import is_document
from valska.external_tools.core.archive.tar import (
    BLOCK,
    Header,
    Kind,
    Parser,
    TarError,
    flag,
    padding,
    pax_records,
    size_of,
)
from valska.external_tools.core.seal import Finding, FindingKind

if TYPE_CHECKING:
    import zstandard

MOST_DOCUMENT_BYTES = 1 << 27
MOST_DOCUMENTS_BYTES = 1 << 29

_BUFFERS = 6
_WINDOW_BYTES = 1 << 23
"""Four times what is written with."""
_MOST_HEADER_BYTES = 1 << 16
_ZERO = bytes(BLOCK)


class Sink(Protocol):
    """Takes what is read from an archive, entry by entry."""

    def begin(self, name: str, header: Header) -> None:
        """Take the beginning of an entry; what is in it follows."""
        ...

    def data(self, view: memoryview) -> None:
        """Take some bytes of the entry."""
        ...

    def end(self) -> None:
        """Take the end of the entry."""
        ...


class Nowhere:
    """Takes everything, and does nothing; given as a sink, it has the first fault raised."""

    def begin(self, name: str, header: Header) -> None:
        """Take the beginning of an entry."""

    def data(self, view: memoryview) -> None:
        """Take some bytes of the entry."""

    def end(self) -> None:
        """Take the end of the entry."""


@dataclass(slots=True)
class Read:
    """What was read.

    Parameters
    ----------
    contents
        What is in the archive.
    top
        The one directory in it.
    findings
        What is wrong with the archive as a file, and with names in it.
    size, sha256
        Of the file; the digest is None if it was read fast.
    """

    contents: Contents = field(default_factory=Contents)
    top: str = ""
    findings: list[Finding] = field(default_factory=list)
    size: int = 0
    sha256: str | None = None


class _BrokenError(Exception):
    """The archive cannot be read any further."""


def read_archive(
    path: Path,
    *,
    fast: bool = False,
    limits: Limits | None = None,
    sink: Sink | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Read:
    """Read an archive from its beginning to its end.

    Parameters
    ----------
    path
        The file.
    fast
        Do not digest anything.
    limits
        How much it may hold.
    sink
        Gets every entry. With one, whatever is wrong is raised instead of noted.
    progress
        Told the bytes of the file that were read, and all.

    Raises
    ------
    ArchiveError
        If there is no such file, or it cannot be read from the disk.
    NoArchiveError
        If it neither begins nor ends like an archive.
    HostileError
        With a sink: for the first name, type or amount that is not allowed.
    """
    try:
        with path.open("rb", buffering=0) as file:
            source = CompressedFile(file, fast=fast)
            if not source.may_be_archive:
                raise NoArchiveError(
                    f"{path} is not an archive", "Name a file that `valska archive` made."
                )
            reader = _Reader(path.name, source, fast, limits or Limits(), sink, progress)
            return reader.read()
    except OSError as error:
        if error.filename not in (None, str(path), path):
            raise
        raise ArchiveError(
            f"cannot read {path}: {error.strerror}", "Check the path and its permissions."
        ) from error


class _Reader:
    """Reads one archive."""

    def __init__(
        self,
        name: str,
        source: CompressedFile,
        fast: bool,
        limits: Limits,
        sink: Sink | None,
        progress: Callable[[int, int], None],
    ) -> None:
        self._name, self._source, self._fast = name, source, fast
        self._progress = progress
        self._strict = sink is not None
        self._sink: Sink = sink or Nowhere()
        self._digester = Digester()
        self._pool = Pool(2 if source.is_small else _BUFFERS)
        self._lane: Lane | None = None
        if not source.is_small:
            self._lane = Lane(self._digester.take, self._pool.give)
        self._found = Read(size=source.size)
        self._names = Names(limits)
        self._parser = Parser()
        self._batch = self._pool.take()
        self._place = 0
        self._documents = 0
        self._has_global = False

    def read(self) -> Read:
        """Read all of it."""
        if self._lane is not None:
            self._lane.start()
        try:
            self._stream = _decompressor().stream_reader(
                cast("IO[bytes]", self._source),
                read_size=READ_BYTES,
                read_across_frames=True,
                closefd=False,
            )
            self._walk()
            self._progress(self._source.size, self._source.size)
        except _BrokenError as error:
            self._note(FindingKind.UNREADABLE, self._name, str(error))
        except BaseException:
            self._close()
            self._source.stop()
            raise
        self._close()
        self._found.sha256 = self._source.finish()
        if self._lane is not None and self._lane.error is not None:
            raise self._lane.error
        if (fault := self._source.fault()) is not None:
            self._note(FindingKind.ALTERED, self._name, fault)
        self._collect()
        return self._found

    def _close(self) -> None:
        self._push()
        if self._lane is not None:
            self._lane.put(None)
            self._lane.join()

    def _collect(self) -> None:
        found = self._found
        found.top = self._names.top
        for name, digest in self._digester.digests.items():
            found.contents.entries[name].sha256 = digest
        found.contents.documents = self._digester.documents

    def _note(self, kind: FindingKind, path: str, detail: str) -> None:
        self._found.findings.append(Finding(kind, path, detail))

    # --- Bytes ---

    def _more(self) -> bool:
        """Get the next buffer of content; return whether there is any."""
        self._push()
        batch = self._batch = self._pool.take()
        self._place = 0
        try:
            while batch.used < len(batch.view):
                count = self._stream.readinto(batch.view[batch.used :])
                if not count:
                    break
                batch.used += count
        except _zstd_error() as error:
            raise _BrokenError(f"its compressed bytes are damaged ({error})") from error
        self._names.add_bytes(batch.used, self._source.place)
        self._progress(self._source.place, self._source.size)
        return batch.used > 0

    def _push(self) -> None:
        """Have what was read digested."""
        batch = self._batch
        if self._lane is not None:
            self._lane.put(batch)
        else:
            self._digester.take(batch)
            self._pool.give(batch)
        self._batch = _NOTHING

    def _take(self, size: int) -> bytes:
        """Return exactly so many bytes.

        Raises
        ------
        _BrokenError
            If there are fewer.
        """
        end = self._place + size
        if end <= self._batch.used:
            data = bytes(self._batch.view[self._place : end])
            self._place = end
            return data
        parts = [bytes(view) for view in self._pieces(size)]
        return b"".join(parts)

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            if self._place == self._batch.used and not self._more():
                raise _BrokenError("it ends too early")
            end = min(self._place + size, self._batch.used)
            view = self._batch.view[self._place : end]
            self._place = end
            size -= len(view)
            yield view

    # --- Entries ---

    def _walk(self) -> None:
        try:
            while (header := self._header()) is not None:
                self._entry(header)
            self._expect_nothing()
        except TarError as error:
            raise _BrokenError(str(error)) from error

    def _header(self) -> Header | None:
        """Return the next header, or None at the end."""
        extended: dict[str, bytes] = {}
        left = _MOST_HEADER_BYTES
        while True:
            block = self._take(BLOCK)
            if block == _ZERO:
                if extended or self._take(BLOCK) != _ZERO:
                    raise _BrokenError("an entry is missing")
                return None
            kind = flag(block)
            if kind not in (b"x", b"g", b"L", b"K"):
                return self._parser.parse(block, extended)
            self._parser.parse(block, {})
            self._names.count("")
            size = size_of(block)
            left -= size
            if size <= 0 or left < 0:
                raise _BrokenError("an extended header is too long")
            data = self._take(size + padding(size))[:size]
            if kind == b"x":
                extended |= pax_records(data)
            elif kind == b"g":
                self._refuse_global()
            else:
                extended["path" if kind == b"L" else "linkpath"] = data.rstrip(b"\0")

    def _refuse_global(self) -> None:
        if not self._has_global:
            self._has_global = True
            self._refuse(self._name, "it has a header that changes entries after it")

    def _refuse(self, path: str, why: str) -> None:
        if self._strict:
            raise HostileError(
                f"{self._name} is refused: {why}", "Nothing was unpacked. Do not trust it."
            )
        self._note(FindingKind.UNEXPECTED, path, why)

    def _entry(self, header: Header) -> None:
        try:
            name = self._names.check(header)
        except EntryError as error:
            self._refuse(header.name, str(error))
            name = ""
        if header.size and header.kind not in (Kind.FILE, Kind.OTHER):
            raise _BrokenError(f"a {header.kind} with content")
        if name:
            self._found.contents.entries[name] = Entry(header.kind, header.size, None, header.link)
            self._sink.begin(name, header)
            if header.kind is Kind.FILE:
                self._content(name, header.size)
            self._sink.end()
        else:
            for _ in self._pieces(header.size):
                pass
        if any(self._take(padding(header.size))):
            raise _BrokenError("there is something between two entries")

    def _content(self, name: str, size: int) -> None:
        wanted = self._keep(name, size)
        if self._fast and not wanted:
            for view in self._pieces(size):
                self._sink.data(view)
            return
        if size <= TINY and self._place + size <= self._batch.used:
            view = self._batch.view[self._place : self._place + size]
            self._place += size
            self._digester.add(name, view)
            self._sink.data(view)
            return
        left = size
        for view in self._pieces(size):
            left -= len(view)
            self._batch.pieces.append((name, self._place - len(view), self._place, not left))
            self._sink.data(view)

    def _keep(self, name: str, size: int) -> bool:
        if not is_document(name):
            return False
        self._documents += size
        if size > MOST_DOCUMENT_BYTES or self._documents > MOST_DOCUMENTS_BYTES:
            self._note(FindingKind.UNREADABLE, name, "it is too large")
            return False
        self._digester.keep(name)
        return True

    def _expect_nothing(self) -> None:
        while self._place < self._batch.used or self._more():
            if any(self._batch.view[self._place : self._batch.used]):
                raise _BrokenError("there is something after its end")
            self._place = self._batch.used


_NOTHING = Batch(0)


def _decompressor() -> zstandard.ZstdDecompressor:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError
