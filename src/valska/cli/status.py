"""``valska status``: what became of a bundle's stages, or of a sweep's points."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.progress import HEADER, rows
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.run_directory import Bundle, open_bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.status import RunStatus, run_status, wait
from valska.external_tools.core.submission.preparation import scheduler_here
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_sweep, sweep_of

if TYPE_CHECKING:
    from valska.external_tools.core.sweep.status import SweepStatus


@click.command("status")
@click.argument("path", type=click.Path(path_type=Path, file_okay=False))
@click.option("--watch", is_flag=True, help="Stay, and show changes until all stages have ended.")
@click.option("--all", "everything", is_flag=True, help="Show each point of a large sweep.")
@click.option(
    "--only",
    multiple=True,
    metavar="failed|LABEL",
    help="Show only these points of a sweep; a label may be a pattern. Repeatable.",
)
@json_option
def command(
    path: Path, watch: bool, everything: bool, only: tuple[str, ...], as_json: bool
) -> None:
    """Print what the scheduler and the jobs' own records know of each stage.

    PATH is a bundle, a sweep, or a point of one. The exit code is 0 whenever that could be found
    out, whatever became of the stages.
    """
    if watch and as_json:
        raise UsageError("--watch and --json do not go together", "Call with --json repeatedly.")
    if is_sweep(path):
        _sweep(open_sweep(path), watch, everything, only, as_json)
        return
    if everything or only:
        raise UsageError("--all and --only are for sweeps", "Name the sweep's directory.")
    _run(path, watch, as_json)


def _run(path: Path, watch: bool, as_json: bool) -> None:
    sweep = sweep_of(path)
    bundle = sweep.unit(_place(path)) if sweep else open_bundle(path)
    manifest = read_manifest(bundle)
    scheduler = scheduler_here(resolve(manifest.tool, path=state().config))
    run = _point(sweep, bundle, scheduler) if sweep else _bundle(bundle, manifest, scheduler)
    if watch:
        _watch(run.follow, _print, _text)
        return
    status = run.look()
    if as_json:
        result_json(_as_json(bundle, manifest, status))
    else:
        _print(status)


def _place(path: Path) -> str:
    """Return the place of a unit in its sweep (``points/x``)."""
    whole = path.absolute()
    return f"{whole.parent.name}/{whole.name}"


@dataclass(frozen=True, slots=True)
class _Followed:
    """What can be looked at once, or followed until it has ended."""

    look: Callable[[], RunStatus]
    follow: Callable[[Callable[[RunStatus], None], float], object]


def _bundle(bundle: Bundle, manifest: Manifest, scheduler: Scheduler) -> _Followed:
    return _Followed(
        lambda: run_status(bundle, manifest, scheduler),
        lambda show, poll: wait(bundle, manifest, scheduler, on_change=show, longest_poll=poll),
    )


def _point(sweep: Sweep, unit: Bundle, scheduler: Scheduler) -> _Followed:
    from valska.external_tools.core.sweep.document import read_sweep_manifest
    from valska.external_tools.core.sweep.status import sweep_status, wait_sweep

    manifest = read_sweep_manifest(sweep)
    label = unit.path.name
    lent = unit.path.parent == sweep.shared
    labels = [point.label for point in manifest.points if label in point.shared.values()]
    chosen = labels[:1] if lent else [manifest.point(label).label]

    def as_run(status: SweepStatus) -> RunStatus:
        stages = [status.shared[label]] if lent else status.points[label].values()
        return RunStatus(tuple(stages), status.notes)

    return _Followed(
        lambda: as_run(sweep_status(sweep, manifest, scheduler, chosen)),
        lambda show, poll: wait_sweep(
            sweep,
            manifest,
            scheduler,
            labels=chosen,
            on_change=lambda status: show(as_run(status)),
            longest_poll=poll,
        ),
    )


def _sweep(
    sweep: Sweep, watch: bool, everything: bool, only: tuple[str, ...], as_json: bool
) -> None:
    from valska.cli import sweep_view
    from valska.external_tools.core.sweep.document import read_sweep_manifest
    from valska.external_tools.core.sweep.status import sweep_status, wait_sweep

    manifest = read_sweep_manifest(sweep)
    scheduler = scheduler_here(resolve(manifest.tool, path=state().config))

    def show(status: SweepStatus) -> None:
        sweep_view.show(status, sweep_view.select(status, only), everything)

    def text(status: SweepStatus) -> str:
        return "\n".join(sweep_view.lines(status, sweep_view.select(status, only), everything))

    if watch:
        _watch(
            lambda tell, poll: wait_sweep(
                sweep, manifest, scheduler, on_change=tell, longest_poll=2 * poll
            ),
            show,
            text,
        )
        return
    status = sweep_status(sweep, manifest, scheduler)
    if as_json:
        labels = sweep_view.select(status, only)
        result(sweep_view.as_json(sweep, manifest, status, labels))
    else:
        show(status)


def _print(status: RunStatus) -> None:
    result(table(rows(status), HEADER))
    for stage in status.stages:
        if stage.log and stage.state.failed:
            note(f"The log of {stage.stage}: {plain(stage.log)}")
    for text in status.notes:
        note(f"Note: {plain(text)}")


def _text(status: RunStatus) -> str:
    notes = [f"Note: {plain(text)}" for text in status.notes]
    return "\n".join([table(rows(status), HEADER), *notes])


def _as_json(bundle: Bundle, manifest: Manifest, status: RunStatus) -> dict[str, Any]:
    return {
        "bundle": bundle.path,
        "tool": manifest.tool,
        "run_id": manifest.run_id,
        "bundle_id": manifest.bundle_id,
        "state": status.state.value,
        "stages": [asdict(stage) for stage in status.stages],
        "notes": list(status.notes),
    }


def _watch(
    follow: Callable[[Callable[[Any], None], float], object],
    show: Callable[[Any], None],
    text: Callable[[Any], str],
) -> None:
    """Show each change: below one another, or in place where stdout is a terminal."""
    if not sys.stdout.isatty():
        follow(show, 30.0)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        follow(lambda status: live.update(Text.from_ansi(text(status)), refresh=True), 5.0)
