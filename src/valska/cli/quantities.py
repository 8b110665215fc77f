"""Numbers as a person reads them."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def bytes_text(size: int) -> str:
    """Return a number of bytes, such as ``1.2 GB``."""
    amount, unit = float(size), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{size} B"


def duration_text(seconds: int | None) -> str:
    """Return a number of seconds as ``h:mm:ss``; a dash, if it is not known."""
    if seconds is None:
        return "-"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def count_text(number: int, noun: str) -> str:
    """Return how many of something there are, such as ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
