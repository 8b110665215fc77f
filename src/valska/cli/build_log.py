"""The log of a build, as it is shown while it is written."""

from __future__ import annotations

from collections.abc import Callable

import click

from valska.cli.output import plain
from valska.cli.state import state

_PASSING = ("Build complete: ", "To see mksquashfs output")


def log_follower() -> Callable[[str], None] | None:
    """Return what shows a line of a log, as much as is asked for; None if nothing is."""
    return {0: _follow, 1: _follow_all}.get(min(state().verbosity, 1))


def _follow(line: str) -> None:
    """Show a line, but for Apptainer's word on files that are moved on."""
    text = line.removeprefix("INFO:").strip() if line.startswith("INFO:") else line
    if text and not text.startswith(_PASSING):
        _follow_all(text)


def _follow_all(line: str) -> None:
    """Show a line; called from a thread, where click has no context."""
    click.echo(plain(line), err=True)
