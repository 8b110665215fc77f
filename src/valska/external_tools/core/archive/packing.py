"""Packing: one pass that reads, digests and compresses at the same time.

Three lanes work on the same buffers, one after the other: the caller reads, a thread digests,
another one compresses and writes. Digests and compression leave Python's lock to the others.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, cast

from valska.external_tools.core.archive.container import trailer
from valska.external_tools.core.archive.errors import ArchiveError, ChangedError
from valska.external_tools.core.archive.lanes import (
    BUFFER_BYTES,
    TINY,
    Batch,
    Digester,
    Lane,
    Marker,
    Pool,
)
from valska.external_tools.core.archive.members import Member, directory
from valska.external_tools.core.archive.places import is_document
from valska.external_tools.core.archive.tar import BLOCK, END, Headers, Kind, padding

if TYPE_CHECKING:
    import zstandard

LEVEL = 3
MOST_THREADS = 4
"""Each thread of the compressor holds some 16 MiB."""

_BUFFERS = 6
_SMALL = BUFFER_BYTES // 4
_ZEROS = bytes(BLOCK)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Packer:
    """Writes members into a compressed tar file and digests them on the way.

    Parameters
    ----------
    file
        Where to; it is not closed.
    mtime
        The time of every entry, in seconds since 1970.
    top
        The one directory in the archive.
    threads
        Threads of the compressor; as many as there are processors, if not given. The bytes do
        not depend on it.
    progress
        Told the bytes that have been read so far.

    Attributes
    ----------
    digests
        Name to SHA-256, of every file; complete after `settle`.
    documents
        Name to content, of the files that `is_document` names; complete after `settle`.
    """

    def __init__(
        self,
        file: IO[bytes],
        mtime: int,
        *,
        top: str,
        threads: int | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._digester = Digester()
        self.digests = self._digester.digests
        self.documents = self._digester.documents
        self._top = top
        self._headers = Headers(mtime)
        self._progress = progress
        self._done = 0
        self._output = _Output(file)
        self._compressor = _compressor(threads).stream_writer(
            cast("IO[bytes]", self._output), closefd=False
        )
        self._pool = Pool(_BUFFERS)
        self._batch = self._pool.take()
        self._last = Lane(self._compress, self._pool.give)
        self._first = Lane(self._digester.take, self._last.put)

    def __enter__(self) -> Packer:
        """Start working."""
        self._first.start()
        self._last.start()
        self._head(directory(""))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the threads; if all went well, the file is whole."""
        try:
            if error is None:
                self._fill(END)
                self._send()
        finally:
            for lane in (self._first, self._last):
                lane.put(None)
                lane.join()
        if error is None:
            self._raise()
            self._compressor.flush(_frame_end())
            self._output.end()

    def add(self, member: Member) -> None:
        """Append a member.

        Raises
        ------
        ChangedError
            If its source is not what it was when it was looked at.
        ArchiveError
            If it cannot be read.
        """
        name, size = member.name, member.size
        if 0 < size <= _SMALL and member.source is not None:
            self._add_small(member, member.source)
            return
        self._head(member)
        if member.kind is not Kind.FILE:
            return
        if member.source is None:
            self._add_data(name, member.data or b"")
        else:
            self._add_source(member, member.source)
        if not size:
            self._batch.pieces.append((name, 0, 0, True))
        self._fill(bytes(padding(size)))

    def settle(self) -> None:
        """Wait until everything that was added has been digested."""
        self._send()
        marker = Marker()
        self._first.put(marker)
        marker.done.wait()
        self._raise()

    def _add_small(self, member: Member, source: str) -> None:
        """Append a file that fits into a buffer, in few steps: there may be very many."""
        name, size = member.name, member.size
        head = self._headers.encode(f"{self._top}/{name}", member.kind, size, member.mode)
        if self._batch.used + len(head) + size + BLOCK > BUFFER_BYTES:
            self._send()
        batch = self._batch
        start = batch.used + len(head)
        end = start + size
        stop = end + padding(size)
        batch.view[batch.used : start] = head
        self._load(member, source, batch.view[start:end])
        batch.view[end:stop] = _ZEROS[: stop - end]
        if is_document(name):
            self._digester.keep(name)
        if size <= TINY:
            self._digester.add(name, batch.view[start:end])
        else:
            batch.pieces.append((name, start, end, True))
        batch.used = stop

    def _load(self, member: Member, source: str, room: memoryview) -> None:
        """Read a whole file into a place of its size."""
        try:
            descriptor = os.open(source, _FLAGS)
            try:
                count = os.readv(descriptor, (room,))
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unreadable(source, error) from error
        if (
            status.st_mtime_ns != member.stamp[0]
            or status.st_size != count
            or count != member.size
            or status.st_ino != member.stamp[1]
        ):
            raise _changed(source)

    def _head(self, member: Member) -> None:
        end = "/" if member.kind is Kind.DIRECTORY and member.name else ""
        name = f"{self._top}/{member.name}{end}"
        self._fill(self._headers.encode(name, member.kind, member.size, member.mode, member.link))
        if member.kind is Kind.FILE and is_document(member.name):
            self._digester.keep(member.name)

    def _fill(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = self._room()[: len(view)]
            count = len(room)
            room[:] = view[:count]
            self._batch.used += count
            view = view[count:]

    def _add_data(self, name: str, data: bytes) -> None:
        self._digester.add(name, data)
        self._fill(data)

    def _add_source(self, member: Member, source: str) -> None:
        with _reading(source):
            descriptor = os.open(source, _FLAGS)
        try:
            self._read(member, descriptor, source)
            with _reading(source):
                status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if (status.st_mtime_ns, status.st_ino) != member.stamp or status.st_size != member.size:
            raise _changed(source)

    def _read(self, member: Member, descriptor: int, source: str) -> None:
        left = member.size
        while left:
            room = self._room()[:left]
            with _reading(source):
                count = os.readv(descriptor, (room,))
            if not count:
                raise _changed(source)
            left -= count
            batch = self._batch
            batch.pieces.append((member.name, batch.used, batch.used + count, not left))
            batch.used += count

    def _room(self) -> memoryview:
        """Return where the next bytes go; at least one."""
        if self._batch.used == BUFFER_BYTES:
            self._send()
        return self._batch.view[self._batch.used :]

    def _send(self) -> None:
        self._first.put(self._batch)
        self._done += self._batch.used
        self._batch = self._pool.take()
        self._raise()
        self._progress(self._done)

    def _raise(self) -> None:
        for lane in (self._first, self._last):
            if lane.error is not None:
                raise lane.error

    def _compress(self, batch: Batch) -> None:
        if batch.used:
            self._compressor.write(batch.view[: batch.used])


class _Output:
    """Counts what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._crc = 0
        self._size = 0

    def write(self, data: bytes) -> int:
        """Write compressed bytes."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._file.write(data)
        return len(data)

    def end(self) -> None:
        """Write what comes after the compressed bytes."""
        self._file.write(trailer(self._size, self._crc))


def _compressor(threads: int | None) -> zstandard.ZstdCompressor:
    import zstandard

    wanted = threads or min(os.cpu_count() or 1, MOST_THREADS)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, threads=wanted, write_checksum=1, write_content_size=0, write_dict_id=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _frame_end() -> int:
    import zstandard

    return zstandard.FLUSH_FRAME


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Say of a fault that it is the source's; those of what is written pass elsewhere."""
    try:
        yield
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: OSError) -> ArchiveError:
    return ArchiveError(f"cannot read {source}: {error.strerror}", "Check that it is still there.")


def _changed(source: str) -> ChangedError:
    return ChangedError(
        f"{source} changed while it was packed",
        "Wait until whatever writes it has ended (`valska status`), then pack again.",
    )
