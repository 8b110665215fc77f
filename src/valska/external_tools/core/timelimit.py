"""Times and signals as Slurm writes them in directives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from valska.external_tools.core.errors import UsageError

DEFAULT_GRACE_S = 60
"""Seconds between TERM and KILL where a stage's directives say nothing."""

_SIGNAL_GRACE = re.compile(r"(?:[A-Z]+:)?[A-Z0-9]+@(\d+)")


def parse_time(text: str) -> int | None:
    """Return Slurm's time formats in seconds.

    ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
    ``days-hours:minutes`` and ``days-hours:minutes:seconds``. None stands for no limit
    (``UNLIMITED``, ``INFINITE``, ``-1``, 0, or no time at all).

    Raises
    ------
    UsageError
        If it is none of these.
    """
    text = text.strip()
    if text.upper() in ("", "UNLIMITED", "INFINITE", "-1", "INVALID", "NOT_SET", "PARTITION_LIMIT"):
        return None
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if len(parts) > 3 or not _numeric([*parts, *([days] if dash else [])]):
        raise UsageError(
            f"{text!r} is not a time as Slurm reads it",
            "Write minutes, minutes:seconds, hours:minutes:seconds or days-hours:minutes:seconds.",
        )
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = numbers + [0] * (3 - len(numbers))
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds or None
    if len(numbers) == 3:
        return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2] or None
    return numbers[0] * 60 + (numbers[1] if len(numbers) == 2 else 0) or None


def grace_of(directives: Mapping[str, str], default: int = DEFAULT_GRACE_S) -> int:
    """Return how many seconds before its time limit a job is told (``--signal=B:TERM@60``)."""
    match = _SIGNAL_GRACE.fullmatch(directives.get("signal", ""))
    return int(match[1]) if match else default


def _numeric(parts: Sequence[str]) -> bool:
    return all(part.isascii() and part.isdecimal() for part in parts)
