"""Which directories a reproduction or a comparison may write into: none with another's files."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from valska.external_tools.core.comparison.document import FILE_NAME
from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.lock import LockedError, directory_lock, read_owner
from valska.external_tools.core.reproduction.reference import (
    Located,
    LocatedSweep,
    archive_end,
)
from valska.external_tools.core.run_directory import (
    RunDirectoryError,
    TakenError,
    ensure_run_dir,
    is_bundle,
    refuse_inside,
)
from valska.external_tools.core.sweep.layout import is_sweep
from valska.external_tools.core.utils import load_json

_LOCK = ".reproduce.lock"
"""Directory that keeps two calls apart."""
_LEFT_BEHIND = (_LOCK, ".tmp", ".partial")
"""How hidden files end that a call has while it runs, and leaves behind when it is killed."""
_MADE = ("bundle", "sweep")
_SHOWN = 3
_HINT = "Choose a new or an empty directory with -o DIR."


def require_place(folder: Path) -> None:
    """Refuse a directory that is a bundle or a sweep, or lies in one.

    Raises
    ------
    TakenError
        If it is, or does.
    """
    real = Path(os.path.realpath(folder))
    refuse_inside(real)
    if is_bundle(real) or is_sweep(real):
        raise TakenError(f"{real} is a bundle or a sweep itself", _HINT)


def require_place_of_archive(folder: Path, unpacked: Path, archive: Path) -> None:
    """Refuse a directory with other files than those of the reproduction of an archive.

    Parameters
    ----------
    folder
        Where the reproduction goes.
    unpacked
        Where in it the archive is unpacked.
    archive
        The archive.

    Raises
    ------
    TakenError
        If it holds something, and not what was unpacked of an archive.
    """
    require_place(folder)
    names = _names(folder)
    if not names:
        return
    note = unpacked.with_name(f"{unpacked.name}.json")
    noted = _read(note)
    # What was unpacked of another archive is refused where it would be taken.
    is_ours = unpacked.is_dir() or names == [note.name]
    if noted.get("end") != archive_end(archive) and not (is_ours and "end" in noted):
        raise _taken(folder, names)


def require_place_of(folder: Path, located: Located | LocatedSweep) -> None:
    """Refuse a directory with other files than those of the reproduction of a bundle or a sweep.

    What is made there is looked at where it would be taken.

    Raises
    ------
    TakenError
        If it holds something, and neither a bundle or a sweep that was made nor a comparison with
        the same reference.
    """
    require_place(folder)
    names = _names(folder)
    made = is_bundle(folder / "bundle") or is_sweep(folder / "sweep")
    if names and not made and not _compares(folder, _identity(located)):
        raise _taken(folder, names)


def require_place_of_comparison(folder: Path, bundle_id: str) -> None:
    """Refuse a directory with other files than those of a comparison with a reference.

    Parameters
    ----------
    folder
        Where the comparison goes.
    bundle_id
        Of the reference.

    Raises
    ------
    TakenError
        If it holds something, and no comparison with that reference.
    """
    require_place(folder)
    names = _names(folder)
    if names and not _compares(folder, {"bundle_id": bundle_id}):
        raise _taken(folder, names)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Make the directory of a reproduction, and keep other calls out of it; an empty one goes.

    What a killed call has not finished making goes, too.

    Parameters
    ----------
    folder
        The directory, which has been found to be free, or that of this reproduction.

    Raises
    ------
    LockedError
        If another call is at work there.
    RunDirectoryError
        If the directory cannot be made.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    ensure_run_dir(folder, exist_ok=True)
    try:
        with _alone(folder):
            _remove_unfinished(folder)
            yield
    finally:
        with suppress(OSError):
            for one in made:
                one.rmdir()


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed call was making; who has the lock knows that no other one is."""
    for name in _MADE:
        for left in folder.glob(f".{name}.{'[0-9a-f]' * 12}.partial"):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def unpacked_only_if_usable(unpacked: Path, fresh: bool) -> Iterator[None]:
    """Remove what this call has unpacked if it cannot be used.

    Parameters
    ----------
    unpacked
        Where an archive was unpacked.
    fresh
        Whether this call has unpacked it.
    """
    try:
        yield
    except PrerequisiteError:
        if fresh:
            shutil.rmtree(unpacked, ignore_errors=True)
            unpacked.with_name(f"{unpacked.name}.json").unlink(missing_ok=True)
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = folder / _LOCK
    try:
        with directory_lock(lock):
            yield
    except LockedError as error:
        owner = read_owner(lock)
        if owner is None:
            raise
        raise LockedError(
            f"process {owner.pid} on {owner.host} is reproducing in {folder}",
            f"{_following(folder)}Once it is done, the same command goes on from there."
            + _elsewhere(lock, owner.host),
        ) from error


def _elsewhere(lock: Path, host: str) -> str:
    """Return what to do about a call that may have died where that cannot be seen from here."""
    here = host == os.uname().nodename
    return "" if here else f" If it has died on {host}, remove the directory {lock}."


def _following(folder: Path) -> str:
    made = [one for one in map(folder.joinpath, _MADE) if is_bundle(one) or is_sweep(one)]
    return f"`valska status {shlex.quote(str(made[0]))}` says how far it is. " if made else ""


def _identity(located: Located | LocatedSweep) -> Mapping[str, str]:
    if isinstance(located, LocatedSweep):
        return {"seal": located.manifest.common_seal}
    return {"bundle_id": located.manifest.bundle_id}


def _compares(folder: Path, identity: Mapping[str, str]) -> bool:
    """Return whether a comparison that this program wrote is there, with the same reference."""
    found = _read(folder / FILE_NAME)
    reference = found.get("reference")
    if "valska_version" not in found or not isinstance(reference, dict):
        return False
    return all(reference.get(name) == value for name, value in identity.items())


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_json(path)
    except ValskaError:
        return {}


def _names(folder: Path) -> list[str]:
    """Return what is in a directory, but for what killed calls have left behind."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {folder}: {error.strerror}", _HINT) from error
    return [one for one in names if not (one.startswith(".") and one.endswith(_LEFT_BEHIND))]


def _taken(folder: Path, names: list[str]) -> TakenError:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return TakenError(f"{folder} holds other files: {', '.join(names[:_SHOWN])}{more}", _HINT)
