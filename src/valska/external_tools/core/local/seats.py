"""Seats that the supervisors of one directory share, so that together they do not run too much."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Seats:
    """Locks on the bytes of an empty file; those of a killed process are free at once.

    Where the file system has no locks, every supervisor has all seats to itself.

    Parameters
    ----------
    path
        The file.
    count
        How many seats there are.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._free = dict.fromkeys(range(count))
        self._descriptor = -1

    def take(self, count: int) -> tuple[int, ...]:
        """Take seats, that many or none."""
        taken: list[int] = []
        for seat in list(self._free):
            if len(taken) == count:
                break
            if self._lock(seat):
                taken.append(seat)
                del self._free[seat]
        if len(taken) < count:
            self.give(tuple(taken))
            return ()
        return tuple(taken)

    def give(self, seats: tuple[int, ...]) -> None:
        """Give seats back."""
        for seat in seats:
            if self._descriptor >= 0:
                with suppress(OSError):
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, seat)
            self._free[seat] = None

    def close(self) -> None:
        """Give all seats back; the last one to leave removes the file."""
        if self._descriptor < 0:
            return
        with suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_current():
                self._path.unlink()
        self._leave()

    def _lock(self, seat: int) -> bool:
        """Lock a seat; True also where there are no locks."""
        while self._open():
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, seat)
            except OSError as error:
                return error.errno not in (errno.EACCES, errno.EAGAIN)
            if self._is_current():
                return True
            self._leave()
        return True

    def _open(self) -> bool:
        if self._descriptor < 0:
            with suppress(OSError):
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        return self._descriptor >= 0

    def _is_current(self) -> bool:
        """Return whether nobody has removed the file since it was opened."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _leave(self) -> None:
        """Close the file: whoever removed it saw no seat taken."""
        os.close(self._descriptor)
        self._descriptor = -1
