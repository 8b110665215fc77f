"""A line on the terminal that changes in place."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from valska.cli.output import plain
from valska.cli.state import state

_COLUMNS = 80
"""Where the terminal does not say."""


class LiveLine:
    """The last line on the terminal behind stderr; draws nothing where there is none, or quiet.

    Attributes
    ----------
    shows
        Whether there is such a terminal.
    """

    def __init__(self) -> None:
        dumb = os.environ.get("TERM") == "dumb"
        self.shows = sys.stderr.isatty() and not dumb and state().verbosity >= 0
        self._drawn = False

    def draw(self, text: str) -> None:
        """Show a text in place of the one before, as much of it as fits."""
        self._write(plain(text)[: _columns() - 1])
        self._drawn = True

    def clear(self) -> None:
        """Take the text away, so that others can write."""
        if self._drawn:
            self._write("")
        self._drawn = False

    def _write(self, text: str) -> None:
        if self.shows:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False, color=True)


def _columns() -> int:
    """Return how wide the terminal behind stderr is; stdout may be none, or another one."""
    with suppress(KeyError, ValueError):
        if (told := int(os.environ["COLUMNS"])) > 0:
            return told
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    return _COLUMNS
