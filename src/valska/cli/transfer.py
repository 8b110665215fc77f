"""How far work on many bytes is: a line on stderr, with its rate and the time left.

It is drawn here because it is one line: click's bar knows neither bytes nor rates, and rich, which
draws better, takes 0.07 s to import, in which 100 MB are read.
"""

from __future__ import annotations

import time
from types import TracebackType

from valska.cli.live_line import LiveLine
from valska.cli.output import note, plain
from valska.cli.quantities import bytes_text, duration_text

WORTH_TELLING = 10_000_000
"""Bytes; how fast fewer went is not told when they are through."""

_EVERY_S = 0.2


class Transfer:
    """Tells of one thing after another; on a terminal as it goes, else once it is through.

    Parameters
    ----------
    what
        What is done, as the line's first words; see also `start`.
    """

    def __init__(self, what: str = "") -> None:
        self._line = LiveLine()
        self._what = what
        self._size: int | None = None
        self._done = 0
        self._since = self._drawn = time.monotonic()

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(whole=kind is None)

    def start(self, what: str, size: int | None) -> None:
        """Begin something of so many bytes, if that is known; what was before is through."""
        self._end(whole=True)
        self._what, self._size, self._done = what, size, 0
        self._since = self._drawn = time.monotonic()

    def advance(self, count: int) -> None:
        """Count bytes more."""
        self.reach(self._done + count, self._size)

    def reach(self, done: int, size: int | None) -> None:
        """Take the bytes that are done, and all of them, if that is known."""
        self._done, self._size = done, size
        now = time.monotonic()
        if self._line.shows and now - self._drawn >= _EVERY_S:
            self._drawn = now
            self._line.draw(self._text())

    def _end(self, *, whole: bool) -> None:
        self._line.clear()
        if whole and self._done >= WORTH_TELLING:
            note(plain(f"{self._what}: {bytes_text(self._done)}, {self._speed()}"))
        self._done = 0

    def _text(self) -> str:
        done = bytes_text(self._done)
        if self._size is None or self._size < self._done:
            return f"{self._what}: {done}, {self._speed()}"
        rate = self._rate()
        left = duration_text(round((self._size - self._done) / rate)) if rate else "-"
        return f"{self._what}: {done} of {bytes_text(self._size)}, {self._speed()}, {left} left"

    def _speed(self) -> str:
        return f"{bytes_text(round(self._rate()))}/s"

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._since, 1e-3)
