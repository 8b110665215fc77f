"""What a look at a definition finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something in a definition that keeps its image from being made again.

    Parameters
    ----------
    line
        Number of the line, from 1.
    level
        ``error``, or ``warning`` where it may well be right.
    code
        What a comment ``# valska: allow CODE reason`` names.
    message
        What is wrong, in one line.
    hint
        What to do about it.
    """

    line: int
    level: Level
    code: str
    message: str
    hint: str | None = None
