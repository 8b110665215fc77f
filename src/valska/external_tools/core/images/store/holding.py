"""One works, the others wait: the locks of a store."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.lock import LockedError, directory_lock, read_owner
from valska.external_tools.core.utils import sha256_bytes

POLL_S = 0.1
PATIENCE_S = 1.0
"""Who waits for longer is told for whom."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

log = logging.getLogger(__name__)


@contextmanager
def hold(
    locks: Path, key: str, what: str, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold a lock for the length of a block; wait while another process holds it.

    A lock whose holder was killed on this host is taken over.

    Parameters
    ----------
    locks
        Directory of the locks; made if it is not there.
    key
        What is worked on: who has the same waits.
    what
        What is done, for the message to those who wait (``building pyuvsim``).
    sleep
        Waits for so many seconds.

    Raises
    ------
    PrerequisiteError
        If the store cannot be written.
    """
    _make(locks)
    path = locks / _name(key)
    with ExitStack() as held:
        waited, told = 0.0, False
        while True:
            try:
                held.enter_context(directory_lock(path))
                break
            except LockedError:
                told = told or (waited >= PATIENCE_S and _tell(path, what))
            except ValskaError as error:
                raise unwritable(locks.parent, error.__cause__) from error
            sleep(POLL_S)
            waited += POLL_S
        yield


def _make(locks: Path) -> None:
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(locks.parent, error) from error


def unwritable(root: Path, error: BaseException | None) -> PrerequisiteError:
    """Return the error that a store cannot be written."""
    why = error.strerror if isinstance(error, OSError) else error
    return PrerequisiteError(
        f"the image store {root} cannot be written: {why}",
        "Choose another with $VALSKA_IMAGES, or images in the configuration.",
    )


def _name(key: str) -> str:
    return key if _PLAIN.fullmatch(key) else sha256_bytes(key.encode())


def _tell(path: Path, what: str) -> bool:
    """Say for whom this process waits, once that is known."""
    owner = read_owner(path)
    if owner is None:
        return False
    log.warning(
        "%s: process %d on %s is at it already; waiting for it (if it has died there, remove %s)",
        what,
        owner.pid,
        owner.host,
        path,
    )
    return True
