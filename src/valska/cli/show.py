"""``valska show``: what a bundle will run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from valska.cli.options import bundle_argument, json_option
from valska.cli.output import plain, result, result_json, styled, table
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.manifest import (
    Manifest,
    StageEntry,
    load_manifest,
    load_point,
    read_manifest,
)
from valska.external_tools.core.process import run
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import seal_of
from valska.external_tools.core.sweep.layout import open_unit


@click.command("show")
@bundle_argument
@click.option("--stage", metavar="STAGE", help="Only this stage.")
@click.option(
    "--command", "as_command", is_flag=True, help="Print the exact command that the stage runs."
)
@json_option
def command(bundle: Path, stage: str | None, as_command: bool, as_json: bool) -> None:
    """Print what a bundle, or a point of a sweep, will run: stages, inputs, image, directives.

    With --command the one line that the job script runs here, runner and all.
    """
    opened = open_unit(bundle)
    manifest = read_manifest(opened)
    stages = (manifest.stage(stage),) if stage else manifest.stages
    if as_command:
        _print_commands(opened, stages, as_json)
    elif as_json:
        result_json(_as_json(opened, stages))
    else:
        _print_plan(opened, manifest, stages)


def _print_commands(bundle: Bundle, stages: tuple[StageEntry, ...], as_json: bool) -> None:
    if len(stages) > 1 and not as_json:
        names = ", ".join(stage.name for stage in stages)
        raise UsageError("there are several stages", f"Pick one with --stage: {names}.")
    commands = {stage.name: _command(bundle, stage) for stage in stages}
    if as_json:
        result_json({name: shlex.split(text) for name, text in commands.items()})
    else:
        result(commands[stages[0].name])


def _command(bundle: Bundle, stage: StageEntry) -> str:
    unit = [str(bundle.path)] if bundle.common else []
    done = run(["bash", stage.script, *unit, "--show"], cwd=bundle.shared_path, timeout=60)
    if done.returncode:
        raise ValskaError(
            f"{stage.script} cannot say what it runs: {plain(done.stderr.strip())}",
            "Check the bundle with `valska verify`.",
        )
    return done.stdout.strip()


def _as_json(bundle: Bundle, stages: tuple[StageEntry, ...]) -> dict[str, Any]:
    names = {stage.name for stage in stages}
    common = bundle.common
    manifest = load_point(bundle.path, common) if common else load_manifest(bundle.path)
    manifest["stages"] = [stage for stage in manifest["stages"] if stage["name"] in names]
    return {"bundle": bundle.path, "seal": seal_of(bundle), "manifest": manifest}


def _print_plan(bundle: Bundle, manifest: Manifest, stages: tuple[StageEntry, ...]) -> None:
    result(table(_head(bundle, manifest)))
    for stage in stages:
        result("\n" + styled(f"stage {stage.name}", bold=True))
        result(table([(f"  {name}", plain(value)) for name, value in _stage_rows(stage)]))
    if manifest.inputs:
        result("\n" + styled("inputs", bold=True))
        result(
            table(
                [
                    (f"  {plain(entry.path)}", entry.mode, f"{entry.size} bytes", entry.sha256[:12])
                    for entry in manifest.inputs
                ]
            )
        )


def _head(bundle: Bundle, manifest: Manifest) -> list[tuple[str, str]]:
    image = manifest.image["sha256"][:12] if manifest.image else "none"
    rows = [
        ("bundle", bundle.path),
        ("tool", manifest.tool),
        ("run id", manifest.run_id),
        ("bundle id", manifest.bundle_id),
        ("seal", seal_of(bundle)),
        ("made", f"{manifest.created_utc} by valska {manifest.valska_version}"),
        ("runner", manifest.runner),
        ("image", image),
    ]
    return [(styled(name, bold=True), plain(value)) for name, value in rows]


def _stage_rows(stage: StageEntry) -> list[tuple[str, str]]:
    directives = [
        f"--{name}={value}" if value else f"--{name}" for name, value in stage.directives.items()
    ]
    rows = [
        ("command", shlex.join(stage.argv)),
        ("ranks", f"{stage.ranks} ({stage.launch})" if stage.ranks > 1 else "1"),
        ("after", ", ".join(stage.after)),
        ("outputs", ", ".join(stage.outputs)),
        ("environment", " ".join(f"{name}={value}" for name, value in stage.env.items())),
        ("slurm", " ".join(directives)),
        ("script", stage.script),
    ]
    return [(name, value) for name, value in rows if value]
