"""A definition file cut into header and sections, each line with its number.

Our own reader, beside the one that spython has; both are of the type `Reader`. spython's is too
weak for a report on a file: it knows no line numbers, ends a section at a line that only begins
like a name, takes a second stage for more of the first, has no word for a header that Apptainer
refuses, and loses empty lines. This one cuts where Apptainer 1.4 cuts: at every line whose first
word begins with ``%``, in a here-document too, and at every ``Bootstrap:`` at the start of a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}", re.ASCII)
"""``{{ name }}``, as Apptainer finds it."""

_NAME = re.compile(r"[ \t\r\f\v]*%")
_BOOTSTRAP = re.compile(r"(?i)bootstrap:")


class Line(NamedTuple):
    """A line of a definition, and its number from 1."""

    number: int
    text: str

    @property
    def is_comment(self) -> bool:
        """Whether there is nothing in it but a comment, or nothing at all."""
        return not self.text.strip() or self.text.lstrip().startswith("#")


class Entry(NamedTuple):
    """A line of the header: key in lower case, value without its comment."""

    line: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Section:
    """A section.

    Parameters
    ----------
    name
        In lower case, without ``%``; with it where blanks stand before it, which is no name.
    rest
        What follows the name: the application, or where files come from.
    lines
        Below it.
    line
        Number of the line with the name; 0 where the reader does not know it.
    """

    name: str
    rest: str
    lines: tuple[Line, ...]
    line: int = 0

    def said(self) -> tuple[Line, ...]:
        """Return the lines that are no comment."""
        return tuple(line for line in self.lines if not line.is_comment)


Reader = Callable[[str], tuple[Section, ...]]


def split_lines(text: str) -> tuple[Line, ...]:
    """Return the lines of a text; only a newline ends one, as for Apptainer."""
    return tuple(Line(i, line.removesuffix("\r")) for i, line in enumerate(text.split("\n"), 1))


def read_sections(text: str) -> tuple[Section, ...]:
    """Return the sections of a definition, in their order."""
    found: list[tuple[Line, list[Line]]] = []
    for line in split_lines(text):
        if _NAME.match(line.text) or _BOOTSTRAP.match(line.text):
            found.append((line, []))
        elif found:
            found[-1][1].append(line)
    return tuple(_section(line, lines) for line, lines in found if _NAME.match(line.text))


def read_header(text: str) -> tuple[Entry, ...]:
    """Return the header of a definition's first stage; a backslash continues a value."""
    found: list[Entry] = []
    for line in _header_lines(text):
        if line.is_comment:
            continue
        if found and found[-1].value.endswith("\\"):
            last = found.pop()
            more = line.text.partition("#")[0].strip()
            found.append(last._replace(value=last.value.removesuffix("\\") + more))
        else:
            found.append(_entry(line))
    return tuple(found)


def read_stages(text: str) -> tuple[int, ...]:
    """Return the numbers of the lines at which a stage begins."""
    return tuple(line.number for line in split_lines(text) if _BOOTSTRAP.match(line.text))


def _header_lines(text: str) -> Iterator[Line]:
    for line in split_lines(text):
        if _NAME.match(line.text):
            return
        yield line


def _entry(line: Line) -> Entry:
    key, colon, value = line.text.partition("#")[0].partition(":")
    return Entry(line.number, key.strip().lower(), value.strip() if colon else "")


def _section(line: Line, lines: list[Line]) -> Section:
    indented = not line.text.startswith("%")
    name, _, rest = line.text.lstrip().partition(" ")
    name = name if indented else name.lstrip("%")
    return Section(name.lower(), rest.strip(), tuple(lines), line.number)
