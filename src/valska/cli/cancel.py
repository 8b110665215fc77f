"""``valska cancel``: end a bundle's jobs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from valska.cli.options import bundle_argument, dry_run_option, json_option, stages_option
from valska.cli.output import note, result, result_json
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.jobs import cancel
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import open_bundle
from valska.external_tools.core.submission.preparation import scheduler_here


@click.command("cancel")
@bundle_argument
@stages_option("Cancel only this stage, and those that wait for it.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time between the signal and the end.  [the stage's own]",
)
@dry_run_option
@json_option
def command(
    bundle: Path, stages: tuple[str, ...], grace: float | None, dry_run: bool, as_json: bool
) -> None:
    """End the jobs of BUNDLE that wait or run.

    A running job is told first and has time to write its record; then it is ended.
    """
    opened = open_bundle(bundle)
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
