"""``valska clean``: clear away what is not needed any more."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from valska.cli.options import execute_option, json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.places import RUN
from valska.cli.quantities import bytes_text, count_text
from valska.cli.results_view import root_or_default
from valska.external_tools.core.clean import (
    Category,
    Item,
    Kept,
    Survey,
    find_loans,
    find_scratch,
    survey,
)
from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.results import Filter, Result, asked_together, read_results
from valska.external_tools.core.run_directory import is_bundle, open_bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.submission.preparation import scheduler_here
from valska.external_tools.core.sweep.layout import is_sweep, sweep_of
from valska.external_tools.core.trash import clear, clear_items, delete, new_trash, to_trash

_HELP = {
    Category.LOGS: "What the jobs printed.",
    Category.SCRATCH: "What an interrupted command left; a day old or more.",
    Category.MATRICES: "Directories that stages of completed runs read from one another.",
    Category.ATTEMPTS: "Outputs of earlier attempts (outputs.1, …); their records stay.",
    Category.RUNS: "Whole runs and sweeps; each one after its id was typed.",
}


def _flags(function: Any) -> Any:
    for category in reversed(Category):
        function = click.option(f"--{category}", is_flag=True, help=_HELP[category])(function)
    return function


@click.command("clean")
@click.argument("path", type=RUN, required=False)
@_flags
@click.option("--run-id", metavar="PATTERN", help="Only runs and sweeps with such an id.")
@execute_option
@click.option("--delete", "deletes", is_flag=True, help="Delete for good, past the trash.")
@click.option(
    "--yes-remove",
    multiple=True,
    metavar="ID",
    help="Remove this run or sweep as a whole without asking; an id or a path. Repeatable.",
)
@json_option
def command(
    path: Path | None,
    run_id: str | None,
    execute: bool,
    deletes: bool,
    yes_remove: tuple[str, ...],
    as_json: bool,
    **flags: bool,
) -> None:
    """Clear away what is not needed any more below PATH: a root, a bundle or a sweep.

    Without PATH: below the configured results_root. Nothing is done without --execute. What is
    cleared away goes to the folder .trash of the root. What belongs to a job that waits or runs
    stays, and so does what other runs or unfinished points need.
    """
    categories = [category for category in Category if flags[category]]
    _refuse_half_orders(categories, execute, yes_remove)
    target = _target(path, run_id)
    wanted = categories or [one for one in Category if one is not Category.RUNS]
    found = target.survey(wanted)
    if not execute:
        _show(target, found, None, as_json)
        return
    remove = _confirmed(target, found, yes_remove) if Category.RUNS in wanted else []
    trash = None if deletes else new_trash(target.root)
    done = target.clear(wanted, trash, remove)
    _show(target, done, trash, as_json, execute=True)
    _require_removed(done, remove)


def _refuse_half_orders(
    categories: Sequence[Category], execute: bool, yes_remove: Sequence[str]
) -> None:
    if execute and not categories:
        flags = ", ".join(f"--{category}" for category in Category)
        raise UsageError("nothing is named that is to go", f"Name it: {flags}.")
    if yes_remove and Category.RUNS not in categories:
        raise UsageError("--yes-remove is for whole runs", "Add --runs.")
    if Category.RUNS in categories and execute and not yes_remove and not sys.stdin.isatty():
        raise UsageError(
            "whole runs are only removed after their ids were typed",
            "Call it at a terminal, or name each with --yes-remove ID.",
        )


@dataclass(frozen=True, slots=True)
class _Target:
    """What is to be cleared: some results of a root."""

    root: Path
    everything: Sequence[Result]
    results: Sequence[Result]
    scheduler: Scheduler
    whole: bool

    def survey(self, categories: Sequence[Category]) -> Survey:
        """Find what can be cleared away."""
        found = survey(
            self.root, self.results, self.scheduler, categories, find_loans(self.everything)
        )
        return Survey((*self._scratch(categories), *found.items), found.kept)

    def clear(
        self, categories: Sequence[Category], trash: Path | None, remove: Sequence[Result]
    ) -> Survey:
        """Clear it away."""
        how = delete if trash is None else to_trash(trash)
        scratch = clear_items(self.root, self._scratch(categories), how)
        done = clear(
            self.root,
            self.results,
            self.scheduler,
            categories,
            find_loans(self.everything),
            how,
            [one.place for one in remove],
        )
        return Survey((*scratch.items, *done.items), (*scratch.kept, *done.kept))

    def _scratch(self, categories: Sequence[Category]) -> list[Item]:
        if Category.SCRATCH not in categories:
            return []
        places = [self.root] if self.whole else [one.path for one in self.results]
        return [item for place in places for item in find_scratch(place)]


def _target(path: Path | None, run_id: str | None) -> _Target:
    if path is not None and sweep_of(path):
        raise UsageError(f"{path} is a point of a sweep", "Name the sweep.")
    if path is None or not (is_sweep(path) or is_bundle(path)):
        root, settings = root_or_default(path)
        top, chosen = root.absolute(), None
    else:
        if not is_sweep(path):
            open_bundle(path)
        settings = root_or_default(path)[1]
        chosen = path.absolute()
        top = _root_of(chosen, settings)
    everything = read_results(top)
    wanted = Filter(run_id=run_id)
    results = [one for one in everything if chosen in (None, one.path) and wanted(one)]
    scheduler = asked_together(results, scheduler_here(settings))
    return _Target(top, everything, results, scheduler, chosen is None)


def _root_of(path: Path, settings: Settings) -> Path:
    root = settings.results_root
    return root.absolute() if root and path.is_relative_to(root.absolute()) else path.parent


def _confirmed(target: _Target, found: Survey, yes_remove: Sequence[str]) -> list[Result]:
    """Return the runs that may go: those named, or those whose ids are typed now."""
    if yes_remove:
        return [_named(target.results, name) for name in dict.fromkeys(yes_remove)]
    sizes = {item.place: item.size for item in found.items if item.category is Category.RUNS}
    return [one for one in target.results if one.place in sizes and _asks(one, sizes[one.place])]


def _named(results: Iterable[Result], name: str) -> Result:
    fitting = [one for one in results if name in (one.run_id, one.place)]
    if not fitting:
        raise UsageError(f"there is no run or sweep {name!r} here", "`valska list` names them.")
    if len(fitting) > 1:
        places = ", ".join(one.place for one in fitting)
        raise UsageError(f"several have the id {name!r}: {places}", "Name the path of one.")
    return fitting[0]


def _asks(one: Result, size: int) -> bool:
    what = f"{plain(one.place)} ({bytes_text(size)})"
    question = f"Type {one.run_id} to remove {what}; Enter keeps it"
    typed = click.prompt(question, default="", show_default=False, err=True)
    return bool(typed) and typed == one.run_id


def _require_removed(done: Survey, remove: Sequence[Result]) -> None:
    gone = {item.place for item in done.items if item.category is Category.RUNS}
    left = [one.place for one in remove if one.place not in gone]
    if left:
        raise PrerequisiteError(f"not removed: {', '.join(left)}", "The notes above say why.")


def _show(
    target: _Target, found: Survey, trash: Path | None, as_json: bool, execute: bool = False
) -> None:
    if as_json:
        result_json(_as_json(target, found, trash, execute))
        return
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in found.items:
        groups.setdefault((item.category.value, _where(item)), []).append(item)
    rows = [
        (what, plain(place), str(sum(one.files for one in items)), bytes_text(_size(items)))
        for (what, place), items in groups.items()
    ]
    if rows:
        result(table(rows, ("what", "path", "files", "size")))
    for text in _reasons(found.kept):
        note(text)
    total = f"{bytes_text(found.size)} ({_files(found.items)})"
    if not execute:
        note(f"{total}. Nothing was done; --execute does it." if rows else "Nothing can go.")
    elif trash is None:
        note(f"Deleted {total}.")
    else:
        note(f"Moved {total} to {plain(trash)}." if rows else "Nothing was moved.")


def _where(item: Item) -> str:
    return item.place or item.path.name


def _reasons(kept: Iterable[Kept]) -> list[str]:
    places: dict[str, list[str]] = {}
    for one in kept:
        places.setdefault(one.why, []).append(one.place)
    return [
        f"Kept {plain(', '.join(of[:3]))}{f' and {len(of) - 3} more' if len(of) > 3 else ''}: "
        f"{plain(why)}"
        for why, of in places.items()
    ]


def _as_json(target: _Target, found: Survey, trash: Path | None, execute: bool) -> dict[str, Any]:
    return {
        "root": target.root,
        "executed": execute,
        "trash": trash,
        "size": found.size,
        "items": [
            {
                "category": item.category.value,
                "place": item.place or None,
                "path": item.path,
                "size": item.size,
                "files": item.files,
            }
            for item in found.items
        ],
        "kept": [{"place": one.place, "why": one.why} for one in found.kept],
    }


def _size(items: Iterable[Item]) -> int:
    return sum(item.size for item in items)


def _files(items: Iterable[Item]) -> str:
    return count_text(sum(item.files for item in items), "file")
