"""Digests of many files at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from valska.external_tools.core.utils import sha256_file

MANY = 1_000
"""From so many files on processes digest them: threads would wait for each other's small steps.

Only where no other thread runs: a process is not safely forked beside one.
"""

_MOST_PROCESSES = 8


def digest_files(paths: Sequence[str]) -> Iterator[str | OSError]:
    """Yield the SHA-256 of each file as 64 hexadecimal digits, or why it cannot be read, in order.

    Parameters
    ----------
    paths
        The files.
    """
    processors = os.cpu_count() or 1
    if len(paths) < 2 or processors == 1:
        yield from map(_digest, paths)
    elif len(paths) < MANY or threading.active_count() > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(processors, len(paths))) as threads:
            yield from threads.map(_digest, paths)
    else:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        count = min(processors, _MOST_PROCESSES)
        chunk = min(len(paths) // (4 * count), MANY)
        with ProcessPoolExecutor(count, mp_context=get_context("fork")) as processes:
            yield from processes.map(_digest, paths, chunksize=chunk)


def _digest(path: str) -> str | OSError:
    try:
        return sha256_file(Path(path))
    except OSError as error:
        return error
