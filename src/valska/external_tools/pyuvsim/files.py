"""A file that a configuration names: where it may lie, and what it is called in a bundle."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.tool import Input

Keys = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that a configuration names.

    Parameters
    ----------
    name
        Logical name: the dotted key.
    document
        Which document names it: ``obsparam``, ``telescope``, or the name of beam settings.
    keys
        Where in that document.
    candidates
        Where it may lie, the best first.
    label
        Name to derive the staged name from.
    missing
        What to say if it is at none of these places: the problem and a hint.
    """

    name: str
    document: str
    keys: Keys
    candidates: tuple[Path, ...]
    label: str
    missing: tuple[str, str]


def stage(files: Iterable[NamedFile]) -> tuple[Input, ...]:
    """Find files, and give them distinct names that depend on their order and labels alone.

    Raises
    ------
    UsageError
        If one is missing, a directory, or unreadable.
    """
    targets: dict[Path, str] = {}
    inputs = []
    for file in files:
        source = locate(file)
        same = source.resolve()
        if same not in targets:
            targets[same] = distinct(plain_name(file.label), targets.values())
        inputs.append(Input(file.name, source, targets[same]))
    return tuple(inputs)


def locate(file: NamedFile) -> Path:
    """Return where a named file lies, as an absolute path.

    Raises
    ------
    UsageError
        If it is nowhere, a directory, or unreadable.
    """
    for candidate in file.candidates:
        if _exists(candidate):
            return _readable(candidate.absolute(), file.name)
    problem, hint = file.missing
    raise UsageError(f"{file.name}: {problem}", hint)


def path_text(value: Any, name: str) -> str:
    """Return the text of a path in a document.

    Raises
    ------
    UsageError
        If it is no text, or has control characters.
    """
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} is not the path of a file: {value!r}", "Write one path as text.")
    if not value.isprintable():
        raise UsageError(
            f"{name} is not the path of a file: {value!r}", "Remove control characters."
        )
    return value


def missing(value: str) -> tuple[str, str]:
    """Return what to say where a path leads nowhere: the problem and a hint."""
    if "://" in value:
        hint = "A run must not depend on the network: download the file and name the copy."
        return f"{value} is no file", hint
    if value.startswith("~") or "$" in value:
        hint = "pyuvsim expands neither ~ nor variables in paths: write the path in full."
    else:
        hint = (
            "A relative path is looked for in the current directory and beside the obsparam file. "
            "If pyuvsim has the file among its own data, copy it there."
        )
    return f"no such file: {value}", hint


def plain_name(label: str) -> str:
    """Return a file name in lower case with letters, digits and ``. _ -`` only."""
    plain = re.sub(r"[^a-z0-9._-]+", "_", label.lower()).lstrip("._-")
    stem, dot, suffix = plain.rpartition(".")
    if dot and stem:
        return f"{stem[:80]}.{suffix[:16]}"
    return plain[:80] or "input"


def distinct(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken: the name itself, or with a number before its suffix."""
    stem, dot, suffix = name.rpartition(".")
    head, tail = (stem, dot + suffix) if dot else (name, "")
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{head}-{number}{tail}"
    return candidate


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _readable(path: Path, name: str) -> Path:
    if path.is_dir():
        raise UsageError(f"{name}: {path} is a directory, not a file", "Name one file.")
    if not path.is_file():
        raise UsageError(f"{name}: {path} is not a regular file", "Name one file.")
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise UsageError(
            f"{name}: cannot read {path}: {error.strerror}", "Check the file's permissions."
        ) from error
