"""A definition with its base by digest: the line that names it and two labels, nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from valska.external_tools.core.images.sections import (
    Section,
    read_header,
    read_sections,
)

_FROM = re.compile(r"(?i)^(\s*from\s*:\s*)([^\s#]+)")
_INDENT = "    "


def rewrite(text: str, source: str, labels: Mapping[str, str]) -> str:
    """Return a definition with another ``From:``, and with labels.

    Parameters
    ----------
    text
        The definition.
    source
        What ``From:`` is to say.
    labels
        Labels to set; those that are not there are added after the others.
    """
    lines = text.split("\n")
    for entry in read_header(text):
        if entry.key == "from":
            lines[entry.line - 1] = _FROM.sub(
                lambda match: match[1] + source, lines[entry.line - 1], count=1
            )
    sections = [section for section in read_sections(text) if section.name == "labels"]
    missing = {
        name: value for name, value in labels.items() if not _set(lines, sections, name, value)
    }
    return "\n".join(_added(lines, sections, missing))


def _set(lines: list[str], sections: list[Section], name: str, value: str) -> bool:
    """Set a label where it is; return whether it is there."""
    found = False
    for section in sections:
        for line in section.said():
            if line.text.strip().partition(" ")[0] == name:
                indent = line.text[: len(line.text) - len(line.text.lstrip())]
                ending = "\r" if lines[line.number - 1].endswith("\r") else ""
                lines[line.number - 1] = f"{indent}{name} {value}{ending}"
                found = True
    return found


def _added(lines: list[str], sections: list[Section], labels: Mapping[str, str]) -> list[str]:
    if not labels:
        return lines
    if not sections:
        body = lines[:-1] if lines[-1] == "" else lines
        return [*body, "", "%labels", *_written(labels, _INDENT), ""]
    said = sections[-1].said()
    after = said[-1].number if said else sections[-1].line
    last = said[-1].text if said else _INDENT
    indent = last[: len(last) - len(last.lstrip())]
    return [*lines[:after], *_written(labels, indent), *lines[after:]]


def _written(labels: Mapping[str, str], indent: str) -> list[str]:
    return [f"{indent}{name} {value}" for name, value in labels.items()]
