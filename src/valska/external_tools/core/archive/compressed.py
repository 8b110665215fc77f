"""The compressed bytes of an archive's file: digested as they are read, compared at the end."""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from typing import IO

from valska.external_tools.core.archive.container import (
    FRAME_HEAD,
    TRAILER_BYTES,
    Frame,
    is_trailer,
    may_be_archive,
    trailer,
)

READ_BYTES = 1 << 18

_SMALL = 1 << 22


class CompressedFile:
    """Reads what is before the trailer of an archive's file.

    Parameters
    ----------
    file
        The file, which can be sought in.
    fast
        Do not digest it.

    Attributes
    ----------
    size
        Bytes of the file.
    place
        Bytes that were read.
    is_small
        Whether the file is too small to be worth threads.
    """

    def __init__(self, file: IO[bytes], *, fast: bool) -> None:
        self._head = file.read(len(FRAME_HEAD))
        self.size = file.seek(0, 2)
        file.seek(max(0, self.size - TRAILER_BYTES))
        self._tail = file.read(TRAILER_BYTES)
        self._has_trailer = is_trailer(self._tail)
        file.seek(0)
        self._file = file
        self._left = self.size - TRAILER_BYTES if self._has_trailer else self.size
        self._crc = 0
        self._frame = Frame()
        self.place = 0
        self.is_small = self.size < _SMALL
        self._digest: _Digest | None = None
        if self.may_be_archive and not fast:
            self._digest = _Digest() if self.is_small else _ThreadedDigest()

    @property
    def may_be_archive(self) -> bool:
        """Whether it begins or ends like an archive."""
        return may_be_archive(self._head, whole=self._has_trailer)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; none at the end."""
        data = self._file.read(min(READ_BYTES if size < 0 else size, self._left))
        self._crc = zlib.crc32(data, self._crc)
        self._frame.take(data)
        self._left -= len(data)
        self.place += len(data)
        if self._digest is not None:
            self._digest.take(data)
        return data

    def finish(self) -> str | None:
        """Read what is left, and return the SHA-256 of the whole file; None if it is read fast."""
        while self.read():
            pass
        if self._digest is None:
            return None
        if self._has_trailer:
            self._digest.take(self._tail)
        return self._digest.end()

    def stop(self) -> None:
        """Leave the rest unread: what was read is of no use."""
        if self._digest is not None:
            self._digest.end()

    def fault(self) -> str | None:
        """Return what the trailer shows to be wrong, once all has been read."""
        if not self._has_trailer:
            return "what ends an archive is missing: it was cut short, or packed by something else"
        if self._tail != trailer(self.size - TRAILER_BYTES, self._crc):
            return "its bytes are not those that were written"
        if not self._frame.is_whole:
            return "it is not one frame with a checksum: other programs read something else in it"
        return None


class _Digest:
    """Digests where it stands."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def end(self) -> str:
        """Return the digest of all."""
        return self._hash.hexdigest()


class _ThreadedDigest(_Digest):
    """Digests in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: queue.Queue[bytes] = queue.Queue(8)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        if data:
            self._queue.put(data)

    def _run(self) -> None:
        while data := self._queue.get():
            self._hash.update(data)

    def end(self) -> str:
        """Return the digest of all."""
        self._queue.put(b"")
        self._thread.join()
        return super().end()
