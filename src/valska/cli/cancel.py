"""``valska cancel``: end a bundle's jobs."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.options import bundle_argument, dry_run_option, json_option, stages_option
from valska.cli.output import note, result, result_json
from valska.external_tools.core.jobs import cancel
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.run_directory import Bundle, open_bundle
from valska.external_tools.core.scheduler import choose_scheduler
from valska.external_tools.core.status import run_status


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
    if dry_run:
        _rehearse(opened, manifest, stages, as_json)
        return
    found = cancel(opened, manifest, choose_scheduler(), stages=stages or None, grace_s=grace)
    if as_json:
        result_json({"cancelled": list(found.cancelled), "not_live": list(found.not_live)})
        return
    for stage in found.cancelled:
        result(f"{stage} cancelled")
    if not found.cancelled:
        note("No stage waits or runs; there was nothing to cancel.")


def _rehearse(bundle: Bundle, manifest: Manifest, stages: tuple[str, ...], as_json: bool) -> None:
    names = [manifest.stage(name).name for name in stages]
    status = run_status(bundle, manifest, choose_scheduler())
    live = [
        one.stage for one in status.stages if one.state.live and (not names or one.stage in names)
    ]
    if as_json:
        result_json({"dry_run": True, "would_cancel": live})
        return
    for stage in live:
        result(f"{stage} would be cancelled")
    note("Nothing was cancelled.")
