"""``valska status``: what became of a bundle's stages, a sweep's points, or a root's runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.places import RUN
from valska.cli.progress import HEADER, FailedError, rows
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.run_directory import Bundle, is_bundle, open_bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.status import RunStatus, run_status, wait
from valska.external_tools.core.submission.preparation import scheduler_here
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_sweep, sweep_of

if TYPE_CHECKING:
    from valska.external_tools.core.sweep.following.status import SweepStatus

_FEW = 5


@click.command("status")
@click.argument("path", type=RUN)
@click.option("--watch", is_flag=True, help="Stay, and show changes until all stages have ended.")
@click.option("--all", "everything", is_flag=True, help="Show each point of a large sweep.")
@click.option(
    "--only",
    multiple=True,
    metavar="failed|LABEL",
    help="Show only these points of a sweep; a label may be a pattern. Repeatable.",
)
@click.option("--check", is_flag=True, help="End with exit code 1 if something has failed.")
@json_option
def command(
    path: Path, watch: bool, everything: bool, only: tuple[str, ...], check: bool, as_json: bool
) -> None:
    """Print what the scheduler and the jobs' own records know of each stage.

    PATH is a bundle, a sweep, a point of one, or a directory with many of them. Without --check
    the exit code is 0 whenever that could be found out, whatever became of the stages.
    """
    if watch and as_json:
        raise UsageError("--watch and --json do not go together", "Call with --json repeatedly.")
    if (everything or only) and not is_sweep(path):
        raise UsageError("--all and --only are for sweeps", "Name the sweep's directory.")
    view = _view(path, only, everything)
    if watch:
        status = _watch(view)
    elif as_json:
        status = view.look()
        view.show_json(status)
    else:
        status = view.look()
        _show(view, status)
    if check and (failed := view.failures(status)):
        shown = ", ".join(failed[:_FEW])
        more = f" and {len(failed) - _FEW} more" if len(failed) > _FEW else ""
        raise FailedError(f"failed: {shown}{more}", "Its log says more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What can be looked at once, or followed until it has ended, and how it is shown."""

    look: Callable[[], Any]
    text: Callable[[Any], str]
    notes: Callable[[Any], list[str]]
    show_json: Callable[[Any], None]
    failures: Callable[[Any], list[str]]
    follow: Callable[[Callable[[Any], None], float], Any] | None = None


def _view(path: Path, only: tuple[str, ...], everything: bool) -> _View:
    if is_sweep(path):
        return _sweep(open_sweep(path), only, everything)
    if sweep := sweep_of(path):
        whole = path.absolute()
        return _point(sweep, sweep.unit(f"{whole.parent.name}/{whole.name}"))
    return _bundle(open_bundle(path)) if is_bundle(path) else _root(path)


def _show(view: _View, status: Any) -> None:
    result(view.text(status))
    for text in view.notes(status):
        note(text)


def _watch(view: _View) -> Any:
    """Show each change: below one another, or in place where stdout is a terminal."""
    if view.follow is None:
        raise UsageError("--watch is for one bundle or sweep", "Name one of those below it.")
    if not sys.stdout.isatty():
        return view.follow(lambda status: _show(view, status), 30.0)
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:

        def update(status: Any) -> None:
            text = "\n".join([view.text(status), *view.notes(status)])
            live.update(Text.from_ansi(text), refresh=True)

        return view.follow(update, 5.0)


def _scheduler(tool: str | None) -> Scheduler:
    return scheduler_here(resolve(tool, path=state().config))


def _bundle(bundle: Bundle) -> _View:
    manifest = read_manifest(bundle)
    scheduler = _scheduler(manifest.tool)
    return _of_stages(
        bundle,
        manifest,
        lambda: run_status(bundle, manifest, scheduler),
        lambda tell, poll: wait(bundle, manifest, scheduler, on_change=tell, longest_poll=poll),
    )


def _point(sweep: Sweep, unit: Bundle) -> _View:
    from valska.external_tools.core.sweep.document import read_sweep_manifest
    from valska.external_tools.core.sweep.following.status import sweep_status, wait_sweep

    document = read_sweep_manifest(sweep)
    manifest = read_manifest(unit)
    scheduler = _scheduler(manifest.tool)
    label, lent = unit.path.name, unit.path.parent == sweep.shared
    borrowers = [point.label for point in document.points if label in point.shared.values()]
    chosen = borrowers[:1] if lent else [document.point(label).label]

    def of_unit(status: SweepStatus) -> RunStatus:
        stages = [status.shared[label]] if lent else status.points[label].values()
        return RunStatus(tuple(stages), status.notes)

    def follow(tell: Callable[[RunStatus], None], poll: float) -> RunStatus:
        return of_unit(
            wait_sweep(
                sweep,
                document,
                scheduler,
                labels=chosen,
                on_change=lambda status: tell(of_unit(status)),
                longest_poll=poll,
            )
        )

    return _of_stages(
        unit, manifest, lambda: of_unit(sweep_status(sweep, document, scheduler, chosen)), follow
    )


def _of_stages(
    bundle: Bundle,
    manifest: Manifest,
    look: Callable[[], RunStatus],
    follow: Callable[[Callable[[RunStatus], None], float], RunStatus],
) -> _View:
    return _View(
        look=look,
        follow=follow,
        text=lambda status: table(rows(status), HEADER),
        notes=_notes,
        show_json=lambda status: result_json(_as_json(bundle, manifest, status)),
        failures=lambda status: [one.stage for one in status.stages if one.state.failed],
    )


def _notes(status: RunStatus) -> list[str]:
    logs = [
        f"The log of {stage.stage}: {plain(stage.log)}"
        for stage in status.stages
        if stage.log and stage.state.failed
    ]
    return logs + [f"Note: {plain(text)}" for text in status.notes]


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


def _sweep(sweep: Sweep, only: tuple[str, ...], everything: bool) -> _View:
    from valska.cli import sweep_view
    from valska.external_tools.core.sweep.document import read_sweep_manifest
    from valska.external_tools.core.sweep.following.status import sweep_status, wait_sweep

    document = read_sweep_manifest(sweep)
    scheduler = _scheduler(document.tool)
    return _View(
        look=lambda: sweep_status(sweep, document, scheduler),
        follow=lambda tell, poll: wait_sweep(
            sweep, document, scheduler, on_change=tell, longest_poll=2 * poll
        ),
        text=lambda status: sweep_view.text(status, sweep_view.select(status, only), everything),
        notes=lambda status: [f"Note: {plain(text)}" for text in status.notes],
        show_json=lambda status: result(
            sweep_view.as_json(sweep, document, status, sweep_view.select(status, only))
        ),
        failures=lambda status: list(dict.fromkeys(label for label, _ in status.failures())),
    )


def _root(path: Path) -> _View:
    from valska.cli import results_view
    from valska.external_tools.core.results import overviews, require_results

    results = require_results(path)
    scheduler = _scheduler(None)
    return _View(
        look=lambda: overviews(results, scheduler),
        text=results_view.text,
        notes=results_view.notes,
        show_json=lambda found: result_json([results_view.as_json(one) for one in found]),
        failures=lambda found: [one.result.place for one in found if one.bad],
    )
