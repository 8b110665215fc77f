"""How far a long transfer is: a line on stderr, with its rate."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

import click

from valska.cli.output import note, plain
from valska.cli.rate import bytes_text, rate_text
from valska.cli.state import state

WORTH_TELLING = 10_000_000
"""Bytes; smaller things are told of on a terminal only."""

_EVERY_S = 0.2


class Transfer:
    """Tells of one thing after another; on a terminal as it goes, else once it is through."""

    def __init__(self) -> None:
        self._what, self._size, self._done = "", 0, 0
        self._since = self._drawn = 0.0
        self._live = sys.stderr.isatty() and state().verbosity >= 0

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish(whole=kind is None)

    def start(self, what: str, size: int | None) -> None:
        """Begin something of so many bytes, if that is known."""
        self._finish(whole=True)
        self._what, self._size, self._done = plain(what), size or 0, 0
        self._since = time.monotonic()

    def advance(self, count: int) -> None:
        """Count bytes more."""
        self._done += count
        now = time.monotonic()
        if self._live and now - self._drawn > _EVERY_S:
            self._drawn = now
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{self._line()[:width]}", err=True, nl=False, color=True)

    def _finish(self, *, whole: bool) -> None:
        if self._live and self._what:
            click.echo("\r\x1b[K", err=True, nl=False, color=True)
        if whole and self._what and self._done >= WORTH_TELLING:
            note(self._line())
        self._what = ""

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._since, 1e-3)
        if self._size > self._done:
            return rate_text(self._what, self._done, self._size, seconds)
        rate = bytes_text(round(self._done / seconds))
        return f"{self._what}: {bytes_text(self._done)}, {rate}/s"
