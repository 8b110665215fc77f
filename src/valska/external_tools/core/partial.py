"""What is large is made in a hidden directory that names its maker, and put in place when whole.

A maker that is killed leaves its directory behind. The next one beside it removes that, if it can
prove that the maker has ended: the maker is named in it with its host, and holds a lock on that
name for as long as it lives.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from valska.external_tools.core.identity import ProcessIdentity, identify, read_identity
from valska.external_tools.core.utils import fsync_directory, random_hex, utc_now_iso

OWNER = "owner.json"

_NAME = re.compile(r"\..+\.[0-9a-f]{12}\.tmp", re.DOTALL)
_MOST_BYTES = 1 << 12
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger(__name__)


@contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """Give a hidden directory beside a path, to make there what is then renamed to it.

    It is removed at the end of the block, with what is left in it. What processes of this host
    that have ended left beside the path is removed first.

    Parameters
    ----------
    path
        What is to be made. Its directory must exist.

    Raises
    ------
    OSError
        If the directory cannot be made.
    """
    clear_abandoned(path.parent)
    place = path.with_name(f".{path.name}.{random_hex(6)}.tmp")
    place.mkdir(mode=0o700)
    folder = os.open(place, _FOLDER)
    try:
        with _claimed(folder):
            yield place
    finally:
        _empty(folder)
        os.close(folder)
        with suppress(OSError):
            place.rmdir()


@contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file in a `workshop`; put it at `path` when the block ends well, replacing nothing.

    Raises
    ------
    FileExistsError
        If there is something at `path` by then.
    OSError
        If it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with workshop(path) as place:
        made = place / "whole"
        with os.fdopen(os.open(made, flags, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _put(made, path)
    fsync_directory(path.parent)


def _put(made: Path, path: Path) -> None:
    """Give a file its name, unless something else has it: of two at once, one gets it."""
    try:
        path.hardlink_to(made)
    except FileExistsError:
        # A network file system can have made the link, and lost the answer.
        if not path.is_file() or not made.samefile(path):
            raise
    except OSError:
        # No links here. The name is claimed first, and what claimed it is replaced.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        try:
            made.replace(path)
        except BaseException:
            path.unlink()
            raise


def clear_abandoned(directory: Path) -> None:
    """Remove the workshops in a directory whose makers, on this host, have ended.

    One stays if its maker lives, is on another host, or cannot be told; or if it is another
    user's, or the file system has no locks.
    """
    try:
        with os.scandir(directory) as found:
            names = [one.name for one in found if _NAME.fullmatch(one.name)]
    except OSError:
        return
    for name in names:
        place = directory / name
        with suppress(OSError):
            folder = os.open(place, _FOLDER)
            try:
                is_empty = _empty_abandoned(folder, place)
            finally:
                os.close(folder)
            if is_empty:
                place.rmdir()


@contextmanager
def _claimed(folder: int) -> Iterator[None]:
    """Write into a workshop whose it is, and hold the lock on that."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(OWNER, flags, 0o600, dir_fd=folder)
    try:
        # The lock comes first: who reads the name finds it locked.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        text = json.dumps({**identify().as_json(), "since_utc": utc_now_iso()})
        os.write(descriptor, f"{text}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _empty_abandoned(folder: int, place: Path) -> bool:
    """Empty a workshop while holding the lock, if it is certain that who made it has ended."""
    if not _is_own(os.fstat(folder), stat.S_ISDIR):
        return False
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(OWNER, flags, dir_fd=folder)
    try:
        owner = _owner_that_ended(descriptor)
        if owner is not None:
            log.warning("removing %s, which process %d left when it ended", place, owner.pid)
            _empty(folder)
        return owner is not None
    finally:
        os.close(descriptor)


def _owner_that_ended(descriptor: int) -> ProcessIdentity | None:
    try:
        if not _is_own(os.fstat(descriptor), stat.S_ISREG):
            return None
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = read_identity(json.loads(os.read(descriptor, _MOST_BYTES)))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return owner if owner.alive() is False else None


def _is_own(found: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(found.st_mode) and found.st_uid == os.geteuid()


def _empty(folder: int) -> None:
    """Empty a workshop; the name of its maker goes last, so that it can be told until then.

    It is told by a descriptor: its path can be another directory's by now, or a link.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if name != OWNER:
                _remove_one(name, folder)
        if os.listdir(folder) == [OWNER]:
            os.unlink(OWNER, dir_fd=folder)


def _remove_one(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
