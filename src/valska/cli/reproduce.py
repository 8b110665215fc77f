"""``valska reproduce``: make a bundle or a sweep again, run it, and compare."""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from valska.cli.image_options import images_option
from valska.cli.options import dry_run_option, json_option, parse_directives, slurm_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.places import RUN_OR_ARCHIVE, require_file
from valska.cli.progress import Progress
from valska.cli.state import state
from valska.cli.tolerances import take_tolerances, tolerance_options
from valska.cli.transfer import Transfer
from valska.cli.verdicts import print_comparison, require_same
from valska.external_tools.core.comparison.document import to_json
from valska.external_tools.core.comparison.verdict import Tolerances
from valska.external_tools.core.config import Settings, resolve
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.reproduction import running
from valska.external_tools.core.reproduction.reference import (
    Located,
    LocatedSweep,
    locate,
    open_parent,
)
from valska.external_tools.core.reproduction.replay import Parent
from valska.external_tools.core.reproduction.taking import (
    at_work,
    require_place_of,
    require_place_of_archive,
    unpacked_only_if_usable,
)
from valska.external_tools.core.submission.preparation import scheduler_of

_SUFFIXES = (".zst", ".tar")
_APPENDED = "-reproduction"


@click.command("reproduce")
@click.argument("path", type=RUN_OR_ARCHIVE)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=f"Directory for what is made and the comparison.  [./NAME{_APPENDED}]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="LABEL",
    help="Reproduce only these points of a sweep; a label may be a pattern. Repeatable.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["slurm", "local"]),
    help="Where to run it.  [slurm where sbatch is, else local]",
)
@click.option(
    "--wait/--no-wait",
    "waits",
    default=True,
    help="Wait for the run and compare; without, the same command later goes on.  [wait]",
)
@tolerance_options
@click.option(
    "--image",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Where the image is; another one than the bundle's is taken, and told.",
)
@images_option
@click.option(
    "--ranks",
    multiple=True,
    metavar="[STAGE=]N",
    help="Run with another number of MPI ranks. Repeatable.",
)
@slurm_option
@dry_run_option
@json_option
def command(
    path: Path,
    output: Path | None,
    only: tuple[str, ...],
    scheduler: str | None,
    waits: bool,
    image: Path | None,
    images: Path | None,
    ranks: tuple[str, ...],
    directives: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make what is at PATH again, run it, and say whether it gives the same answer.

    PATH is a bundle, a sweep, a point of one, or an archive. What is made, comparison.json and
    comparison.md are in DIR. The verdict is printed last: identical (the same bytes), equivalent
    (the same science, within the tolerances), different or incomplete; that of a sweep is the
    worst of its points. The exit code is 0 for the first two, else 5. The same command again goes
    on where it was interrupted.
    """
    tolerances = take_tolerances(options)
    parse_directives(directives)
    require_file(path, "bundle, sweep or archive")
    place = running.Reproduction((output or _place(path)).absolute())
    given = Given(
        tolerances,
        directives,
        _ranks(ranks),
        image,
        images,
        scheduler,
        only,
        waits,
        dry_run,
        as_json,
    )
    if path.is_file():
        require_place_of_archive(place.path, place.reference, path)
        reproduce = _rehearse_archive if dry_run else _reproduce_archive
        reproduce(path, place, given)
        return
    located = locate(path, place.reference)
    require_place_of(place.path, located)
    with nullcontext() if dry_run else at_work(place.path):
        _reproduce(located, place, given)


def _reproduce_archive(path: Path, place: running.Reproduction, given: Given) -> None:
    with at_work(place.path):
        fresh = not place.reference.exists()
        with Transfer("Unpacking") as transfer:
            located = locate(path, place.reference, transfer.reach)
        _reproduce(located, place, replace(given, fresh=fresh))


def _rehearse_archive(path: Path, place: running.Reproduction, given: Given) -> None:
    from valska.external_tools.core.reproduction.rehearsal import without_unpacking

    with ExitStack() as stack:
        with Transfer("Verifying") as transfer:
            opened = without_unpacking(path, place.reference, transfer.reach)
            located = stack.enter_context(opened)
        _reproduce(located, place, replace(given, archive=None if located.whole else path))


def _reproduce(located: Located | LocatedSweep, place: running.Reproduction, given: Given) -> None:
    settings = given.settings(located.manifest.tool)
    if isinstance(located, LocatedSweep):
        from valska.cli import reproduce_sweep

        reproduce_sweep.reproduce(located, place, settings, given)
        return
    if given.only:
        raise UsageError("--only is for sweeps", "A bundle is reproduced as a whole.")
    parent = open_parent(located, settings.images)
    with unpacked_only_if_usable(place.reference, given.fresh):
        running.require_outputs(parent)
    wish = given.wish(parent, place, settings)
    if given.dry_run:
        _rehearse(wish, given)
        return
    made = running.make(wish)
    note(f"The new bundle: {made.bundle.bundle.path}")
    running.run(wish, made)
    if not given.waits:
        _leave(wish, made, given.as_json)
        return
    _conclude(wish, made, given.tolerances, given.as_json)


@dataclass(frozen=True, slots=True)
class Given:
    """What the options say, of bundles as of sweeps."""

    tolerances: Tolerances
    directives: tuple[str, ...]
    ranks: tuple[tuple[str, int], ...]
    image: Path | None
    images: Path | None
    scheduler: str | None
    only: tuple[str, ...]
    waits: bool
    dry_run: bool
    as_json: bool
    fresh: bool = False
    """Whether an archive was unpacked for this."""
    archive: Path | None = None
    """The archive, where it is only read."""

    def settings(self, tool: str) -> Settings:
        """Return what holds here for a tool."""
        flags = {"scheduler": self.scheduler, "images": self.images}
        return resolve(tool, flags=flags, path=state().config)

    def told(self, wish: running.Wish) -> dict[str, Any]:
        """Return what a dry run tells programs of a bundle as of a sweep."""
        return {
            "dry_run": True,
            "archive": self.archive,
            "directory": wish.place.path,
            "scheduler": wish.scheduler.name,
        }

    def wish(self, parent: Parent, place: running.Reproduction, settings: Settings) -> running.Wish:
        """Return what is asked of a reproduction."""
        return running.Wish(
            parent=parent,
            place=place,
            settings=settings,
            scheduler=scheduler_of(settings),
            image=self.image,
            ranks=_ranks_of(parent, self.ranks),
            extra=self.directives,
        )


def _place(path: Path) -> Path:
    name = os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - so that .. has one
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(f"{name}{_APPENDED}")


def _ranks(given: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Return the stages that are named, or nothing for all, each with its number of ranks."""
    found = []
    for text in given:
        stage, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise UsageError(f"--ranks {text!r} is not of the form [STAGE=]N", "Write --ranks 2.")
        found.append((stage, int(number)))
    return tuple(found)


def _ranks_of(parent: Parent, given: tuple[tuple[str, int], ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for stage, number in given:
        names = [stage] if stage else [one.name for one in parent.manifest.stages]
        found |= {parent.manifest.stage(name).name: number for name in names}
    return found


def _rehearse(wish: running.Wish, given: Given) -> None:
    there = running.earlier(wish)
    image, rows = rehearsed(wish, given, there is not None)
    place, manifest = wish.place.bundle.path, wish.parent.manifest
    if given.as_json:
        result_json(
            {
                **given.told(wish),
                "bundle": place,
                "parent": manifest.bundle_id,
                "image": image,
                "stages": [one.name for one in manifest.stages],
            }
        )
        return
    named = given.archive or wish.parent.bundle.path
    print_rehearsal(
        [
            ("bundle", f"{place}{', which is there' if there else ''}"),
            ("parent", f"{named} ({manifest.bundle_id[:12]})"),
            *rows,
        ]
    )


def rehearsed(
    wish: running.Wish, given: Given, is_there: bool
) -> tuple[Path | None, list[tuple[str, str]]]:
    """Check what a reproduction needs, unless it is made; return its image, and what to tell."""
    from valska.external_tools.core.reproduction.rehearsal import rehearse

    image, where = (None, "") if is_there else rehearse(wish, whole=given.archive is None)
    unpack = [("unpack", f"{given.archive} into {wish.place.reference}")] if given.archive else []
    return image, [
        *unpack,
        ("scheduler", wish.scheduler.name),
        *([("image", where)] if where else []),
        *(("stage", f"{one.name}: {shlex.join(one.argv)}") for one in wish.parent.manifest.stages),
    ]


def print_rehearsal(rows: list[tuple[str, str]]) -> None:
    """Print what a dry run found."""
    result(table([(name, plain(text)) for name, text in rows]))
    note("Nothing was made.")


def _leave(wish: running.Wish, made: running.Made, as_json: bool) -> None:
    if as_json:
        bundle = made.bundle
        result_json({"bundle": bundle.bundle.path, "bundle_id": bundle.manifest.bundle_id,
                     "parent": bundle.manifest.parent, "verdict": None})  # fmt: skip
        return
    result(str(made.bundle.bundle.path))
    note("It runs. The same command without --no-wait waits for it and compares.")


def _conclude(
    wish: running.Wish, made: running.Made, tolerances: Tolerances, as_json: bool
) -> None:
    progress = Progress(made.bundle.bundle)
    try:
        status = running.follow(wish, made, progress.tell, progress.sleep)
    except KeyboardInterrupt:
        note("The jobs go on. The same command again waits for them and compares.")
        raise
    found = running.conclude(wish.place, wish.parent, made, status, tolerances)
    if as_json:
        result_json(to_json(found))
    else:
        note(f"Written: {wish.place.document} and {wish.place.page}")
        print_comparison(found)
    require_same(found, wish.place.page)
