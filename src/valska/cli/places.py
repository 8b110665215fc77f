"""Paths on the command line: what a verb does not take is told before it is read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import click

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.run_directory import run_inside

_HEAD_BYTES = 512


class Kind(Enum):
    """What lies at a path, by what it begins with; the value is what a message calls it."""

    DIRECTORY = "a directory"
    ARCHIVE = "an archive"
    IMAGE = "a container image"
    TAR = "a tar file"
    FILE = "a file"


def kind_of(path: Path) -> Kind:
    """Return what lies at a path; a plain file, if that cannot be read."""
    if path.is_dir():
        return Kind.DIRECTORY
    if not path.is_file():
        return Kind.FILE
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return Kind.FILE
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return Kind.ARCHIVE
    if head[32:41] == b"SIF_MAGIC":
        return Kind.IMAGE
    return Kind.TAR if head[257:262] == b"ustar" else Kind.FILE


class Place(click.Path):
    """A path whose kind is told apart: others get a hint which verb takes them.

    Parameters
    ----------
    what
        What the verb takes, for messages.
    hints
        The kinds that it does not take, and what to do with each instead; ``{run}`` stands for
        the run in a directory, where it has one.
    """

    def __init__(self, what: str, hints: Mapping[Kind, str]) -> None:
        super().__init__(
            path_type=Path, file_okay=Kind.FILE not in hints, dir_okay=Kind.DIRECTORY not in hints
        )
        self._what, self._hints = what, hints

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path.

        Raises
        ------
        UsageError
            If something else lies there.
        """
        path = Path(value)
        kind = kind_of(path) if path.exists() else None
        if kind is not None and kind in self._hints:
            wanted = f"{'an' if self._what[0] in 'aeiou' else 'a'} {self._what}"
            hint = self._hints[kind].replace("{run}", _run_in(path))
            raise UsageError(f"{path} is {kind.value}, not {wanted}", hint)
        return path


def _run_in(path: Path) -> str:
    inside = run_inside(path)
    return f" {shlex.quote(str(inside))}" if inside else ""


def require_file(path: Path, what: str) -> None:
    """Check that there is something at a path.

    Raises
    ------
    PrerequisiteError
        If there is not.
    """
    if not path.exists():
        raise PrerequisiteError(f"no such {what}: {path}", "Check the path.")


_IMAGES = "`valska image` has the verbs for images."
_TARS = "`valska load` takes what `valska fetch` wrote, `valska image import` exports of images."
_RUNS = "Name a directory that `valska bundle` or `valska sweep` made."

RUN = Place(
    "bundle or sweep",
    {
        Kind.ARCHIVE: "Unpack it with `valska unpack`; its bundle is in data/bundle.",
        Kind.IMAGE: _IMAGES,
        Kind.TAR: _TARS,
        Kind.FILE: _RUNS,
    },
)
"""A directory of a run, of a sweep, or of many; whether it is one, the verb finds out."""

RUN_OR_ARCHIVE = Place("bundle, sweep or archive", {Kind.IMAGE: _IMAGES, Kind.TAR: _TARS})
"""The same, or an archive, which may be damaged; or a receipt."""

_NO_ARCHIVES = {
    Kind.DIRECTORY: "`valska archive{run}` packs a bundle or a sweep into one.",
    Kind.IMAGE: _IMAGES,
    Kind.TAR: _TARS,
}
ARCHIVE = Place("archive", _NO_ARCHIVES)
"""An archive, which may be damaged."""

SIGNABLE = Place("archive or receipt", _NO_ARCHIVES)
"""An archive, or what ``valska verify --receipt`` wrote."""

KIT = Place(
    "kit",
    {
        Kind.DIRECTORY: "`valska fetch` writes a kit; `valska image import` takes directories.",
        Kind.ARCHIVE: "`valska unpack` and `valska reproduce` take it.",
        Kind.IMAGE: "`valska image import` takes it.",
    },
)
"""What ``valska fetch`` wrote, which may be damaged."""
