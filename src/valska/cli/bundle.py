"""``valska bundle``: from a tool's configuration to a sealed directory."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import click

from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.request import bundle_request, place_options, request_options, source_arguments
from valska.cli.tool_options import ToolCommand
from valska.external_tools.core.bundling import BundleRequest, Draft, create, draft
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.overrides import check_distinct, parse_perturbation
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import seal_of
from valska.external_tools.core.tool import Tool, load_tool


@click.command("bundle", cls=ToolCommand)
@source_arguments
@click.option("--run-id", metavar="ID", help="Name of the run.  [the configuration's name]")
@place_options("bundle")
@click.option("--unique", is_flag=True, help="Append the time (UTC) to the directory.")
@request_options
@click.option(
    "--perturb",
    "perturbations",
    multiple=True,
    metavar="KEY=FRACTION",
    help="Multiply the number at a key by 1 + `FRACTION`. Repeatable.",
)
@dry_run_option
@json_option
def command(tool: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Make the bundle of a run of TOOL from its configuration file CONFIG.

    Everything that the configuration names is found, staged and sealed; a job script is rendered
    for each stage. The bundle's path is printed last.
    """
    drafted = draft(_request(load_tool(tool), options))
    if dry_run:
        _print_draft(drafted, as_json)
        return
    bundle = create(drafted)
    if as_json:
        result_json(_as_json(bundle))
        return
    note(f"Next: valska submit {shlex.quote(str(bundle.path))}")
    result(str(bundle.path))


def _request(tool: Tool, options: dict[str, Any]) -> BundleRequest:
    perturbations = dict(map(parse_perturbation, options.pop("perturbations")))
    unique = options.pop("unique")
    request = bundle_request(tool, options.pop("run_id"), options)
    check_distinct(request.spec.overrides, perturbations)
    return replace(request, unique=unique, spec=replace(request.spec, perturbations=perturbations))


def _print_draft(drafted: Draft, as_json: bool) -> None:
    plan = drafted.plan
    if as_json:
        result_json(
            {
                "bundle": drafted.path,
                "dry_run": True,
                "stages": {stage.name: list(stage.argv) for stage in plan.stages},
                "inputs": {item.name: item.source for item in drafted.inputs},
                "configs": sorted(plan.configs),
            }
        )
        return
    rows = [("stage", stage.name, shlex.join(stage.argv)) for stage in plan.stages]
    rows += [("input", item.name, str(item.source)) for item in drafted.inputs]
    rows += [("config", name, f"{len(data)} bytes") for name, data in plan.configs.items()]
    result(table([(kind, plain(name), plain(text)) for kind, name, text in rows]))
    note("Nothing was made. The bundle would be:")
    result(str(drafted.path))


def _as_json(bundle: Bundle) -> dict[str, Any]:
    manifest = read_manifest(bundle)
    return {
        "bundle": bundle.path,
        "dry_run": False,
        "bundle_id": manifest.bundle_id,
        "seal": seal_of(bundle),
        "run_id": manifest.run_id,
        "stages": [stage.name for stage in manifest.stages],
    }
