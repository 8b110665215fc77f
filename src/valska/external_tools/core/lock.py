"""A lock that is a directory: one submit at a time, on any file system."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from valska.external_tools.core.errors import SubmissionError, ValskaError
from valska.external_tools.core.identity import ProcessIdentity, identify, read_identity
from valska.external_tools.core.utils import utc_now_iso

OWNER = "owner.json"
ABANDONED_AFTER_S = 5.0
"""A lock without its owner's name is one whose owner was killed while taking it."""

log = logging.getLogger(__name__)


class LockedError(SubmissionError):
    """Another process holds the lock."""


@contextmanager
def directory_lock(
    path: Path,
    *,
    me: ProcessIdentity | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[None]:
    """Hold a lock for the length of a block.

    A lock whose owner, on this host, has ended is taken over.

    Parameters
    ----------
    path
        The directory to make.
    me
        Whom to name as the owner; this process by default.
    clock
        Seconds since the epoch.

    Raises
    ------
    LockedError
        If a process holds it that lives, or lives on another host.
    ValskaError
        If the directory cannot be made.
    """
    owner = me or identify()
    if not _take(path, owner):
        with _guard(path.parent):
            _remove_stale(path, owner, clock())
        if not _take(path, owner):
            raise _held(path, read_owner(path))
    try:
        yield
    finally:
        _release(path)


def read_owner(path: Path) -> ProcessIdentity | None:
    """Return who holds a lock; None if that is not written in it."""
    try:
        return read_identity(json.loads((path / OWNER).read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _take(path: Path, owner: ProcessIdentity) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise ValskaError(
            f"cannot make the lock {path}: {error.strerror}",
            "Check the permissions of the bundle and the disk's free space.",
        ) from error
    try:
        text = json.dumps({**owner.as_json(), "since_utc": utc_now_iso()})
        (path / OWNER).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        _release(path)
        raise ValskaError(
            f"cannot write into the lock {path}: {error.strerror}",
            "Check the disk's free space and permissions.",
        ) from error
    return True


def _release(path: Path) -> None:
    with suppress(OSError):
        (path / OWNER).unlink(missing_ok=True)
        path.rmdir()


def _remove_stale(path: Path, me: ProcessIdentity, now: float) -> None:
    owner = read_owner(path)
    if owner is None:
        try:
            if now - path.stat().st_mtime < ABANDONED_AFTER_S:
                return
        except FileNotFoundError:
            return
    elif owner.alive(me.host) is not False:
        return
    who = "a killed process" if owner is None else f"process {owner.pid}, which has ended"
    log.warning("taking over the lock %s of %s", path, who)
    shutil.rmtree(path, ignore_errors=True)


def _held(path: Path, owner: ProcessIdentity | None) -> LockedError:
    if owner is None:
        return LockedError(
            f"another valska is working on {path.parent} just now", "Try again in a few seconds."
        )
    return LockedError(
        f"process {owner.pid} on {owner.host} is submitting or changing {path.parent}",
        f"Wait until it is done. If it has died on {owner.host}, remove the directory {path}.",
    )


@contextmanager
def _guard(directory: Path) -> Iterator[None]:
    """Let one process at a time judge a lock; they are all on this host."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
