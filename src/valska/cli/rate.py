"""How far a command is that reads or writes many bytes."""

from __future__ import annotations

import sys
import time

import click

from valska.cli.progress import duration
from valska.cli.state import state

_EVERY_S = 0.2
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Rate:
    """Shows bytes done, rate and time left on a terminal, in one line of stderr.

    Parameters
    ----------
    what
        What is done, as the line's first word.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._live = sys.stderr.isatty() and state().verbosity >= 0
        self._begin = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Tell the bytes that are done, and all."""
        now = time.monotonic()
        if self._live and now - self._last >= _EVERY_S:
            self._last = now
            text = rate_text(self._what, done, total, now - self._begin)
            click.echo(f"\r\x1b[K{text}", err=True, nl=False, color=True)

    def end(self) -> None:
        """Take the line away."""
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False, color=True)


def rate_text(what: str, done: int, total: int, seconds: float) -> str:
    """Return a line such as ``Packing 1.2 GB of 4.0 GB, 310.0 MB/s, 0:00:09 left``."""
    rate = done / seconds if seconds > 0 else 0.0
    left = duration(round((total - done) / rate)) if rate else "-"
    speed = bytes_text(round(rate))
    return f"{what} {bytes_text(done)} of {bytes_text(total)}, {speed}/s, {left} left"


def bytes_text(size: int) -> str:
    """Return a number of bytes for a person."""
    amount, unit = float(size), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{size} B"
