"""The directories of chains that BayesEoR and MultiNest write, and the numbers in their files."""

from __future__ import annotations

import math
import re
from pathlib import Path

from valska.external_tools.core.errors import ValskaError

STATS = "data-stats.dat"
SAMPLES = "data-post_equal_weights.dat"
K_VALUES = "k-vals.txt"
MODES = "k-vals-nsamples.txt"

_NEEDED = (STATS, SAMPLES, K_VALUES)
_VERSION = re.compile(r".*-v(\d+)")
_NO_LETTER = re.compile(r"([+-]?\d*\.\d+)([+-]\d{3})")
"""A Fortran number whose exponent has three digits, and no letter before it."""


class ChainsError(ValskaError):
    """A file of chains is missing or damaged."""


def find_chains(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the newest whole directory of chains of a hypothesis, and what to say of others.

    BayesEoR makes ``…-v2`` where ``…-v1`` holds chains already; the highest version is the newest.

    Parameters
    ----------
    directory
        The hypothesis's output directory.

    Raises
    ------
    ChainsError
        If none has all that a report needs.
    """
    found = sorted((path for path in directory.glob("MN-*") if path.is_dir()), key=_age)
    if not found:
        raise ChainsError("there are no chains")
    for path in reversed(found):
        if not _missing(path):
            return path, _told(path, found)
    newest = found[-1]
    raise ChainsError(f"{newest.name} is not complete: no {', '.join(_missing(newest))}")


def read_rows(path: Path) -> list[list[float]]:
    """Read a table of numbers, each row of the same length.

    Raises
    ------
    ChainsError
        If it cannot be read, is empty, or a number or a row is damaged.
    """
    rows = [[number(word, path) for word in line.split()] for line in _text(path).splitlines()]
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ChainsError(f"{path.name} is {'damaged' if rows else 'empty'}")
    return rows


def read_column(path: Path) -> list[float]:
    """Read a file with a number on each line; see `read_rows`."""
    return [row[0] for row in read_rows(path)]


def number(word: str, path: Path) -> float:
    """Return a number as Fortran writes it.

    Raises
    ------
    ChainsError
        If it is none, or not finite.
    """
    try:
        value = float(_NO_LETTER.sub(r"\1e\2", word.replace("D", "E")))
    except ValueError as error:
        raise ChainsError(f"{path.name} is damaged: {word[:30]!r} is no number") from error
    if not math.isfinite(value):
        raise ChainsError(f"{path.name} holds {word}, which is no finite number")
    return value


def read_text(path: Path) -> str:
    """Read a file of chains.

    Raises
    ------
    ChainsError
        If it cannot be read.
    """
    return _text(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ChainsError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ChainsError(f"{path.name} is damaged: it is no text") from error


def _age(path: Path) -> tuple[int, str]:
    match = _VERSION.fullmatch(path.name)
    return int(match[1]) if match else 0, path.name


def _missing(path: Path) -> list[str]:
    files = (path / name for name in _NEEDED)
    return [file.name for file in files if not file.is_file() or not file.stat().st_size]


def _told(used: Path, found: list[Path]) -> tuple[str, ...]:
    """Say which directory is used, where there are several."""
    if len(found) == 1:
        return ()
    later = found[found.index(used) + 1 :]
    why = f", since {', '.join(path.name for path in later)} is not complete" if later else ""
    return (f"{used.name} is used of {len(found)} directories of chains{why}",)
