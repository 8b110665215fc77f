"""Findings about a definition before it is built: all at once, with line numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.tool import read_file

__all__ = ["Finding", "lint"]

_FROM = re.compile(r"(?i)\s*from\s*:\s*(\S+)")


def lint(path: Path, arguments: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Return what keeps the image of a definition from being made again, sorted by line.

    Parameters
    ----------
    path
        The definition.
    arguments
        Build arguments as they will be given.

    Raises
    ------
    UsageError
        If there is no such file, or it cannot be read.
    """
    found = []
    for number, line in enumerate(read_file(path).decode(errors="replace").splitlines(), 1):
        match = _FROM.match(line)
        if match and "@sha256:" not in match[1]:
            message = f"the base {match[1]} is named by a tag, which can move"
            found.append(
                Finding(number, "error", "base-tag", message, f"Pin it: valska lock {path}")
            )
    return tuple(sorted(found))
