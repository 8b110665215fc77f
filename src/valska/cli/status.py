"""``valska status``: what became of a bundle's stages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from valska.cli.options import bundle_argument, json_option
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


@click.command("status")
@bundle_argument
@click.option("--watch", is_flag=True, help="Stay, and show changes until all stages have ended.")
@json_option
def command(bundle: Path, watch: bool, as_json: bool) -> None:
    """Print what the scheduler and the jobs' own records know of each stage of BUNDLE.

    The exit code is 0 whenever that could be found out, whatever became of the stages.
    """
    if watch and as_json:
        raise UsageError("--watch and --json do not go together", "Call with --json repeatedly.")
    opened = open_bundle(bundle)
    manifest = read_manifest(opened)
    scheduler = scheduler_here(resolve(manifest.tool, path=state().config))
    if watch:
        _watch(opened, manifest, scheduler)
        return
    status = run_status(opened, manifest, scheduler)
    if as_json:
        result_json(_as_json(opened, manifest, status))
    else:
        _print(status)


def _print(status: RunStatus) -> None:
    result(table(rows(status), HEADER))
    for stage in status.stages:
        if stage.log and stage.state.failed:
            note(f"The log of {stage.stage}: {plain(stage.log)}")
    for text in status.notes:
        note(f"Note: {plain(text)}")


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


def _watch(bundle: Bundle, manifest: Manifest, scheduler: Scheduler) -> None:
    if not sys.stdout.isatty():
        wait(bundle, manifest, scheduler, on_change=_print)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:

        def show(status: RunStatus) -> None:
            live.update(Text.from_ansi(_text(status)), refresh=True)

        _wait(bundle, manifest, scheduler, show)


def _wait(
    bundle: Bundle, manifest: Manifest, scheduler: Scheduler, show: Callable[[RunStatus], None]
) -> None:
    wait(bundle, manifest, scheduler, on_change=show, longest_poll=5.0)


def _text(status: RunStatus) -> str:
    notes = [f"Note: {plain(text)}" for text in status.notes]
    return "\n".join([table(rows(status), HEADER), *notes])
