"""How far a transfer is, for whoever shows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import IO, Any

Progress = Callable[[int, int], object]
"""Told how many bytes are through, and of how many; fewer than before where they go again."""


def advancing(advance: Callable[[int], object]) -> Progress:
    """Return what tells each time how many bytes more are through, which may be less than none."""
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        advance(done - told)
        told = done

    return progress


def part_of(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Return what a part of a transfer is to tell.

    Parameters
    ----------
    progress
        Told of the whole; None if nobody is.
    before, total
        Bytes of the parts before it, and of all.
    """
    if progress is None:
        return None
    return lambda done, size: progress(before + done, total)


class Watched:
    """A file to be sent, that tells how much of it has been read.

    Parameters
    ----------
    file
        The file; it has all else that this one has.
    size
        Its bytes.
    progress
        Told of what has been read.
    """

    def __init__(self, file: IO[bytes], size: int, progress: Progress) -> None:
        self._file, self._size, self._progress = file, size, progress
        self._done = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere, as for a registry that wants the file at another place."""
        self._done = self._file.seek(offset, whence)
        return self._done

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes."""
        data = self._file.read(size)
        self._done += len(data)
        self._progress(self._done, self._size)
        return data
