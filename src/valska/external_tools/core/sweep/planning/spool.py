"""Rendered configurations of many points, kept out of memory until they are written."""

from __future__ import annotations

import hashlib
import os
from typing import IO

LIMIT_BYTES = 16 << 20
"""What is kept in memory; the rest goes into a file without a name."""


class Spool:
    """Keeps bytes, equal ones once, and gives them back by place and length."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._recent = bytearray()
        self._start = 0
        self._file: IO[bytes] | None = None
        self._known: dict[str, int] = {}

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, data: bytes) -> tuple[str, int, int]:
        """Keep bytes; return their SHA-256, size and place."""
        digest = hashlib.sha256(data).hexdigest()
        size = len(data)
        place = self._known.get(digest)
        if place is None:
            place = self._start + len(self._recent)
            self._known[digest] = place
            self._recent += data
            if len(self._recent) > self._limit:
                self._flush()
        return digest, size, place

    def read(self, place: int, size: int) -> bytes:
        """Return what was kept."""
        if place >= self._start:
            begin = place - self._start
            return bytes(self._recent[begin : begin + size])
        assert self._file is not None  # noqa: S101 - only a file moves the start
        return os.pread(self._file.fileno(), size, place)

    def _flush(self) -> None:
        if self._file is None:
            import tempfile

            self._file = tempfile.TemporaryFile(prefix="valska-", buffering=0)  # noqa: SIM115
        left = memoryview(self._recent)
        while left:
            left = left[self._file.write(left) :]
        left.release()
        self._start += len(self._recent)
        self._recent = bytearray()
