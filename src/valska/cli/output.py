"""What reaches the terminal: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from valska.cli.state import color, state


def set_up_logging(verbosity: int) -> None:
    """Send the library's messages to stderr, as many as the verbosity asks for."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(
        verbosity, logging.DEBUG if verbosity > 0 else logging.ERROR
    )
    logger = logging.getLogger("valska")
    logger.setLevel(level)
    if not logger.handlers:
        logger.addHandler(_Handler())
    logger.propagate = False


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Write a message to stderr."""
        click.echo(f"{record.levelname.capitalize()}: {record.getMessage()}", err=True)


def result(text: str) -> None:
    """Print a result to stdout; a path that is not UTF-8 comes out as the bytes that it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        click.echo(os.fsencode(text))
    else:
        click.echo(text, color=color())


def result_json(data: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a result as JSON to stdout."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=os.fspath))


def note(text: str) -> None:
    """Tell the user something on stderr, unless they asked for quiet."""
    if state().verbosity >= 0:
        shown = text.encode(errors="backslashreplace").decode()
        click.echo(shown, err=True, color=color())


def styled(text: str, **style: Any) -> str:
    """Return text with a colour where stdout is a terminal that wants one."""
    plain = color() is False or not sys.stdout.isatty()
    return text if plain else click.style(text, **style)


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return rows as aligned plain text, the last column as long as it is."""
    lines = [tuple(header), *map(tuple, rows)] if header else [*map(tuple, rows)]
    if not lines:
        return ""
    widths = [max(len(click.unstyle(line[i])) for line in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    padded = [
        cell + " " * (width - len(click.unstyle(cell)))
        for cell, width in zip(line[:-1], widths, strict=True)
    ]
    return "  ".join([*padded, line[-1]]).rstrip()


def plain(text: object) -> str:
    """Return text that cannot drive a terminal: control characters are shown, not sent."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
