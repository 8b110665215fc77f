"""What ``%files`` copies in, with modes that do not tell of the umask of whoever made the files."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.definition import Definition

_ON_HOST = re.compile(r"(?m)^\s*%(setup|pre)\b")
_PATTERN = frozenset("*?[")
_UP = ".."


def stage_files(definition: Definition, arguments: Mapping[str, str], directory: Path) -> Path:
    """Copy what a definition copies in from beside it, and return where it is to be built.

    What is named by an absolute path is copied from there. Where a section runs on the host, in the
    definition's own directory, nothing is staged.

    Parameters
    ----------
    definition
        The definition.
    arguments
        Build arguments given.
    directory
        The directory to make.

    Raises
    ------
    ValskaError
        If a file cannot be copied.
    """
    home = definition.path.absolute().parent
    sources = [Path(source) for source, _ in definition.pairs(arguments)]
    ups = [_ups(source) for source in sources]
    winding = any(_UP in source.parts[up:] for source, up in zip(sources, ups, strict=True))
    if _ON_HOST.search(definition.text) or winding:
        return home
    here = directory.joinpath(*(["up"] * max(ups, default=0)))
    try:
        here.mkdir(parents=True)
        for source in sources:
            for origin in () if source.is_absolute() else _matches(home, source):
                target = os.path.normpath(here / os.path.relpath(origin, home))
                _copy(origin, Path(target), directory.parent)
    except (OSError, shutil.Error) as error:
        raise ValskaError(f"a file for %files cannot be copied: {error}") from error
    return here


def _ups(source: Path) -> int:
    """Return with how many ``..`` a path begins."""
    return next((i for i, part in enumerate(source.parts) if part != _UP), len(source.parts))


def _matches(home: Path, source: Path) -> Iterator[Path]:
    if _PATTERN & set(os.fspath(source)) and not (home / source).exists():
        yield from sorted(home.glob(os.fspath(source)))
    else:
        yield home / source


def _copy(origin: Path, target: Path, workspace: Path) -> None:
    """Copy a file or a tree, links as what they lead to: so does Apptainer (``cp -fLr``).

    The workspace is left out, which can lie below what is copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not origin.is_dir():
        _copy_file(os.fspath(origin), os.fspath(target))
        return

    def own(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder, name) == workspace]

    shutil.copytree(origin, target, ignore=own, copy_function=_copy_file, dirs_exist_ok=True)
    for path in (target, *target.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def _copy_file(origin: str, target: str) -> None:
    shutil.copyfile(origin, target)
    executable = Path(origin).stat().st_mode & stat.S_IXUSR
    Path(target).chmod(0o755 if executable else 0o644)
