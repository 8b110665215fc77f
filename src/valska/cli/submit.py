"""``valska submit``: the stages of a bundle or a sweep to Slurm, or to this machine."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from valska.cli.options import (
    dry_run_option,
    json_option,
    parse_directives,
    slurm_option,
    stages_option,
)
from valska.cli.output import note, result, result_json
from valska.cli.places import RUN
from valska.cli.progress import Progress, describe
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.jobs import Submission, submit
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.run_directory import Bundle, open_bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.site import write_site_env
from valska.external_tools.core.status import RunStatus, StageState, wait
from valska.external_tools.core.submission.preparation import prepare, scheduler_of
from valska.external_tools.core.sweep.layout import is_sweep, sweep_of


class StageFailedError(ValskaError):
    """A stage that was waited for did not succeed."""


@click.command("submit")
@click.argument("path", type=RUN)
@stages_option("Send only this stage.")
@click.option(
    "--resume",
    is_flag=True,
    help="Send what has neither completed nor waits or runs; go on from what it left, if it can.",
)
@click.option("--resubmit", is_flag=True, help="Send again what has ended, afresh.")
@click.option(
    "--only",
    multiple=True,
    metavar="failed|missing|LABEL",
    help="Send only these points of a sweep; a label may be a pattern. Repeatable.",
)
@click.option(
    "--throttle",
    type=click.IntRange(min=1),
    metavar="N",
    help="Let at most N tasks of each array of a sweep run at once.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["slurm", "local"]),
    help="Where to send them.  [slurm where sbatch is, else local]",
)
@click.option("--wait", "waits", is_flag=True, help="Wait until the stages have ended.")
@slurm_option
@click.option("--image", metavar="PATH", help="Where the image is, if it is not in the store.")
@dry_run_option
@json_option
@click.option("--tool", hidden=True, help="Refuse a bundle of any other tool.")
def command(
    path: Path,
    stages: tuple[str, ...],
    resume: bool,
    resubmit: bool,
    only: tuple[str, ...],
    throttle: int | None,
    scheduler: str | None,
    waits: bool,
    directives: tuple[str, ...],
    image: str | None,
    dry_run: bool,
    as_json: bool,
    tool: str | None,
) -> None:
    """Send stages to Slurm, chained by their order, or run them on this machine.

    PATH is a bundle, a sweep, or a point of one. It is checked first. Prints one line per job:
    stage and id; of a sweep, one line per stage, and what there is no room for. With --wait the
    exit code is 0 if every stage has completed, else 1.
    """
    extra = _extra(directives)
    if is_sweep(path) or sweep_of(path):
        from valska.cli import submit_sweep

        submit_sweep.submit(
            path,
            only=only,
            stages=stages,
            resume=resume,
            resubmit=resubmit,
            throttle=throttle,
            scheduler=scheduler,
            waits=waits,
            extra=extra,
            image=image,
            dry_run=dry_run,
            as_json=as_json,
            tool=tool,
        )
        return
    if only or throttle:
        raise UsageError("--only and --throttle are for sweeps", "Name the sweep's directory.")
    opened = open_bundle(path)
    manifest = _manifest(opened, tool)
    settings = resolve(manifest.tool, flags={"scheduler": scheduler}, path=state().config)
    chosen = scheduler_of(settings)
    prepared = prepare(opened, manifest, settings, chosen, image)
    submission = submit(
        opened,
        manifest,
        chosen,
        seal=prepared.seal,
        stages=stages or None,
        resubmit=resubmit,
        resume=resume,
        dry_run=dry_run,
        extra=extra,
        ready=lambda: write_site_env(opened.site_env, prepared.site),
    )
    try:
        _print(opened, submission, as_json)
        if waits and not dry_run:
            _wait(opened, manifest, chosen, stages)
    except KeyboardInterrupt:
        if not dry_run:
            note("The jobs go on. `valska status` follows them, `valska cancel` ends them.")
        raise


def _manifest(bundle: Bundle, tool: str | None) -> Manifest:
    manifest = read_manifest(bundle)
    if tool and manifest.tool != tool:
        raise UsageError(
            f"{bundle.path} is a bundle of {manifest.tool}, not of {tool}",
            "`valska submit` takes bundles of every tool.",
        )
    return manifest


def _extra(pairs: tuple[str, ...]) -> list[str]:
    parse_directives(pairs)
    return list(pairs)


def _print(bundle: Bundle, submission: Submission, as_json: bool) -> None:
    if as_json:
        result_json(_as_json(bundle, submission))
        return
    for argv in submission.commands if submission.dry_run else ():
        result(shlex.join(argv))
    for stage, job in submission.jobs.items():
        again = " (sent by an interrupted submit)" if stage in submission.found else ""
        kept = " (left alone)" if stage in submission.kept else ""
        result(f"{stage} {job.job_id}{again}{kept}")
    if submission.dry_run:
        note("Nothing was sent.")
    else:
        where = "Slurm" if submission.scheduler == "slurm" else "this machine"
        note(f"Submitted to {where}. Next: valska status {shlex.quote(str(bundle.path))}")


def _as_json(bundle: Bundle, submission: Submission) -> dict[str, Any]:
    return {
        "bundle": bundle.path,
        "scheduler": submission.scheduler,
        "dry_run": submission.dry_run,
        "token": submission.token,
        "jobs": {stage: asdict(job) for stage, job in submission.jobs.items()},
        "commands": [list(argv) for argv in submission.commands],
        "found": list(submission.found),
        "kept": list(submission.kept),
        "archived": submission.archived,
    }


def _wait(
    bundle: Bundle, manifest: Manifest, scheduler: Scheduler, stages: tuple[str, ...]
) -> None:
    wanted = stages or tuple(stage.name for stage in manifest.stages)
    progress = Progress(bundle)
    status = wait(
        bundle,
        manifest,
        scheduler,
        on_change=progress.tell,
        sleep=progress.sleep,
        longest_poll=2.0 if scheduler.name == "local" else 30.0,
        stages=wanted,
    )
    _require_success(bundle, status, wanted)


def _require_success(bundle: Bundle, status: RunStatus, wanted: tuple[str, ...]) -> None:
    for name in wanted:
        stage = status.stage(name)
        if stage.state is not StageState.COMPLETED:
            log = f"Its log: {bundle.path / stage.log}" if stage.log else "It left no log."
            raise StageFailedError(f"stage {describe(stage)}", log)
