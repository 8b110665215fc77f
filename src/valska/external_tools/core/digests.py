"""Digests of many files at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from valska.external_tools.core.utils import sha256_file

MANY = 1_000
"""From so many files on processes digest them: threads would wait for each other's small steps.

Only where no other thread runs: a process is not safely forked beside one.
"""

_FEW = 4
_SMALL_BYTES = 1 << 24
"""Fewer and smaller files are not worth threads: very many runs have a few small outputs each."""
_MOST_PROCESSES = 8
_DIES_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""


def digest_files(paths: Sequence[str]) -> Iterator[str | OSError]:
    """Yield the SHA-256 of each file as 64 hexadecimal digits, or why it cannot be read, in order.

    Parameters
    ----------
    paths
        The files.
    """
    workers = min(len(os.sched_getaffinity(0)), len(paths))
    if workers < 2 or (len(paths) < _FEW and _are_small(paths)):
        yield from map(digest_file, paths)
        return
    done = 0
    if len(paths) >= MANY and threading.active_count() == 1:
        for digest in _by_processes(paths, min(workers, _MOST_PROCESSES)):
            done += 1
            yield digest
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as threads:
        yield from threads.map(digest_file, paths[done:])


def _are_small(paths: Iterable[str]) -> bool:
    with suppress(OSError):
        return sum(os.stat(path).st_size for path in paths) <= _SMALL_BYTES  # noqa: PTH116
    return True


def _by_processes(paths: Sequence[str], count: int) -> Iterator[str | OSError]:
    """Yield digests for as long as processes can be had: not where there are no semaphores."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    chunk = min(len(paths) // (4 * count), MANY) or 1
    try:
        pool = ProcessPoolExecutor(
            count, mp_context=get_context("fork"), initializer=_begin, initargs=(os.getpid(),)
        )
    except (OSError, ImportError):
        return
    with pool:
        try:
            yield from pool.map(digest_file, paths, chunksize=chunk)
        except BrokenProcessPool:
            return


def _begin(parent: int) -> None:
    """Have this process end when it is told to, and when its parent has ended."""
    import ctypes

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def digest_file(path: str) -> str | OSError:
    """Return the SHA-256 of a file as 64 hexadecimal digits, or why it cannot be read."""
    try:
        return sha256_file(Path(path))
    except OSError as error:
        return error
