"""Clearing away: to a trash folder below the root, or for good."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from valska.external_tools.core.clean import Category, Item, Kept, Loan, Survey, is_real, survey
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.lock import directory_lock
from valska.external_tools.core.results import Result
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.utils import random_hex, utc_now_compact

TRASH = ".trash"
"""Folder below a root of results that holds what was cleared away."""

Clear = Callable[[Path, Item], None]
"""Clears away one thing below a root; raises OSError."""


def clear(
    root: Path,
    results: Iterable[Result],
    scheduler: Scheduler,
    categories: Collection[Category],
    loans: Sequence[Loan],
    how: Clear,
    remove: Collection[str] = (),
) -> Survey:
    """Clear away what a survey finds, run by run, each under its lock.

    Parameters
    ----------
    root, results, scheduler, categories, loans
        See `survey`.
    how
        `to_trash` or `delete`.
    remove
        Places of the runs and sweeps that may be removed as a whole.

    Returns
    -------
    Survey
        What was cleared away, and what stayed.
    """
    items: list[Item] = []
    kept: list[Kept] = []
    for result in results:
        wanted = set(categories) - ({Category.RUNS} if result.place not in remove else set())
        if not wanted:
            continue
        try:
            with directory_lock(Bundle(result.path).submit_lock):
                found = survey(root, [result], scheduler, wanted, loans)
                done = clear_items(root, _without_parts(found.items), how)
        except ValskaError as error:
            kept.append(Kept(result.place, error.message))
            continue
        items += done.items
        kept += [*found.kept, *done.kept]
    return Survey(tuple(items), tuple(kept))


def clear_items(root: Path, items: Iterable[Item], how: Clear) -> Survey:
    """Clear away single things; one that cannot be is told, and the others go on."""
    done: list[Item] = []
    kept: list[Kept] = []
    for item in items:
        place = os.path.relpath(item.path, root)
        if not is_real(root, item.path):
            kept.append(Kept(place, "a symbolic link leads there"))
            continue
        try:
            how(root, item)
        except OSError as error:
            kept.append(Kept(place, f"it cannot be cleared away: {error.strerror}"))
        else:
            done.append(item)
    return Survey(tuple(done), tuple(kept))


def delete(root: Path, item: Item) -> None:
    """Delete for good. A whole run gets another name first: what is left of it is no run."""
    path = item.path
    if item.category is Category.RUNS:
        path = path.rename(path.with_name(f".{path.name}.{random_hex(6)}.partial"))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def to_trash(trash: Path) -> Clear:
    """Return what moves things into a folder, below which they keep their place."""

    def move(root: Path, item: Item) -> None:
        target = trash / item.path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        item.path.rename(target)
        if item.category is Category.RUNS:
            shutil.rmtree(Bundle(target).submit_lock, ignore_errors=True)

    return move


def new_trash(root: Path) -> Path:
    """Return a new trash folder of a root, named after the time (UTC); it is not made yet.

    Raises
    ------
    UsageError
        If the folder of all trash leads elsewhere.
    """
    folder = root / TRASH
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link", "Remove it, or use --delete.")
    stamp = utc_now_compact()
    number = 1
    while (path := folder / (stamp if number == 1 else f"{stamp}-{number}")).exists():
        number += 1
    return path


def _without_parts(items: Sequence[Item]) -> Sequence[Item]:
    """Return the whole alone, where the whole goes."""
    whole = [item for item in items if item.category is Category.RUNS]
    return whole or items
