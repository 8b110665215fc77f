"""``valska cancel``: end the jobs of a bundle or a sweep."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from valska.cli.options import dry_run_option, json_option, stages_option
from valska.cli.output import note, result, result_json
from valska.cli.places import RUN
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.jobs import cancel
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import open_bundle
from valska.external_tools.core.submission.preparation import scheduler_here
from valska.external_tools.core.sweep.layout import is_sweep, sweep_of


@click.command("cancel")
@click.argument("path", type=RUN)
@stages_option("Cancel only this stage, and those that wait for it.")
@click.option(
    "--only",
    multiple=True,
    metavar="LABEL",
    help="Cancel only these points of a sweep; a label may be a pattern. Repeatable.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time between the signal and the end.  [the stage's own]",
)
@dry_run_option
@json_option
def command(
    path: Path,
    stages: tuple[str, ...],
    only: tuple[str, ...],
    grace: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """End the jobs of PATH, a bundle, a sweep or a point of one, that wait or run.

    A running job is told first and has time to write its record; then it is ended. What waits for
    it is ended too.
    """
    if is_sweep(path) or sweep_of(path):
        from valska.cli import submit_sweep

        submit_sweep.cancel(
            path, only=only, stages=stages, grace=grace, dry_run=dry_run, as_json=as_json
        )
        return
    if only:
        raise UsageError("--only is for sweeps", "Name the sweep's directory.")
    opened = open_bundle(path)
    manifest = read_manifest(opened)
    found = cancel(
        opened,
        manifest,
        scheduler_here(resolve(manifest.tool, path=state().config)),
        stages=stages or None,
        grace_s=grace,
        dry_run=dry_run,
    )
    if as_json:
        result_json({"dry_run": dry_run, **asdict(found)})
        return
    for stage in found.cancelled:
        result(f"{stage} {'would be ' if dry_run else ''}cancelled")
    if not found.cancelled:
        note("No stage waits or runs; there was nothing to cancel.")
    elif dry_run:
        note("Nothing was cancelled.")
