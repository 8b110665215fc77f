"""The directories of chains that BayesEoR and MultiNest write, and the numbers in their files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from valska.external_tools.bayeseor.driver import FINISHED
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.utils import load_json

STATS = "data-stats.dat"
SAMPLES = "data-post_equal_weights.dat"
K_VALUES = "k-vals.txt"
MODES = "k-vals-nsamples.txt"

_RESUME = "data-resume.dat"
_NEEDED = (STATS, SAMPLES, K_VALUES)
_VERSION = re.compile(r".*-v(\d+)")
_MODE = re.compile(r"\s*([TF])\s+[TF]\s+\d+\s+\d+\s*")
"""MultiNest's line on a mode: whether it is done, whether it was dropped, and two counts."""


class ChainsError(ValskaError):
    """A file of chains is missing or damaged."""


def find_chains(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the directory of chains of a hypothesis that is finished, and what to say of others.

    It is the one that the job named when BayesEoR ended. Without such a note it is the newest that
    is finished: BayesEoR makes ``…-v2`` where ``…-v1`` holds chains already. MultiNest writes
    evidences and samples, preliminary ones, long before it has finished: only its resume file
    tells.

    Parameters
    ----------
    directory
        The hypothesis's output directory.

    Raises
    ------
    ChainsError
        If none is finished and has all that a report needs.
    """
    found = sorted((path for path in directory.glob("MN-*") if path.is_dir()), key=_age)
    if not found:
        raise ChainsError("there are no chains")
    candidates = _named(directory, found) or found
    for path in reversed(candidates):
        if not _fault(path):
            return path, _told(path, found)
    newest = candidates[-1]
    raise ChainsError(f"{newest.name}: {_fault(newest)}")


def were_resumed(directory: Path) -> bool:
    """Return whether the job noted that it went on from chains of an earlier attempt.

    Parameters
    ----------
    directory
        The hypothesis's output directory.

    Raises
    ------
    ChainsError
        If its note is damaged.
    """
    return bool(_note(directory).get("resumed"))


def read_rows(path: Path) -> list[list[float]]:
    """Read a table of numbers, each row of the same length.

    Raises
    ------
    ChainsError
        If it cannot be read, is empty, or a number or a row is damaged.
    """
    rows = [row for line in read_text(path).splitlines() if (row := _row(line.split(), path))]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ChainsError(f"{path.name} is {'damaged' if rows else 'empty'}")
    return rows


def _row(words: list[str], path: Path) -> list[float]:
    try:
        row = list(map(float, words))
    except ValueError:
        row = [math.nan]
    return row if all(map(math.isfinite, row)) else [number(word, path) for word in words]


def read_column(path: Path) -> list[float]:
    """Read a file with a number on each line; see `read_rows`."""
    return [row[0] for row in read_rows(path)]


def number(word: str, path: Path) -> float:
    """Return a number.

    One whose exponent needs three digits comes without its ``E`` from Fortran; it is taken for
    damage: only what was never computed is that large or small.

    Raises
    ------
    ChainsError
        If it is none, or not finite.
    """
    try:
        value = float(word)
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
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ChainsError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ChainsError(f"{path.name} is damaged: it is no text") from error


def _age(path: Path) -> tuple[int, str]:
    match = _VERSION.fullmatch(path.name)
    return int(match[1]) if match else 0, path.name


def _named(directory: Path, found: list[Path]) -> list[Path]:
    """Return the directory of chains that the job noted; none without its note."""
    note = _note(directory)
    named = [path for path in found if path.name == note.get("chains")]
    if note and not named:
        raise ChainsError(f"there is no {str(note.get('chains'))[:80]}, which {FINISHED} names")
    return named


def _note(directory: Path) -> dict[str, Any]:
    """Return what the job noted when BayesEoR ended; nothing without its note."""
    path = directory / FINISHED
    try:
        return load_json(path) if path.is_file() else {}
    except ValskaError as error:
        raise ChainsError(f"{FINISHED} is damaged") from error


def _fault(path: Path) -> str:
    """Return why a directory of chains is of no use; nothing if it is."""
    files = (path / name for name in _NEEDED)
    missing = [file.name for file in files if not file.is_file() or not file.stat().st_size]
    if missing:
        return f"there is no {', '.join(missing)}"
    return "" if _finished(path / _RESUME) else "MultiNest has not finished"


def _finished(resume: Path) -> bool:
    """Return whether every mode is done; without the file nothing speaks against it."""
    if not resume.is_file():
        return True
    modes = [
        match[1] for line in read_text(resume).splitlines() if (match := _MODE.fullmatch(line))
    ]
    return bool(modes) and set(modes) == {"T"}


def _told(used: Path, found: list[Path]) -> tuple[str, ...]:
    """Say which directory is used, where there are several."""
    if len(found) == 1:
        return ()
    later = found[found.index(used) + 1 :]
    why = f" ({later[-1].name}: {_fault(later[-1]) or 'not of this job'})" if later else ""
    return (f"{used.name} is used of {len(found)} directories of chains{why}",)
