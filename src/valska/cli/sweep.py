"""``valska sweep``: from one configuration and many values to a directory of runs."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.quantities import count_text
from valska.cli.request import bundle_request, place_options, request_options, source_arguments
from valska.cli.tool_options import ToolCommand
from valska.external_tools.core.run_directory import check_name
from valska.external_tools.core.sweep.planning.cost import Cost
from valska.external_tools.core.sweep.planning.points import Point, points_from_options
from valska.external_tools.core.sweep.writing.making import (
    Made,
    SweepDraft,
    SweepRequest,
    add_points,
    create_sweep,
    draft_sweep,
    preview,
)
from valska.external_tools.core.tool import load_tool


@click.command("sweep", cls=ToolCommand)
@source_arguments
@click.option(
    "--values",
    multiple=True,
    metavar="KEY=A,B,C",
    help="Values of a (dotted) key, each YAML; a comma in brackets or quotes does not separate. "
    "Repeatable.",
)
@click.option(
    "--values-file",
    "values_files",
    multiple=True,
    metavar="[KEY=]FILE",
    help="Values of a key from a file, one on each line; or a YAML file that maps keys to lists. "
    "Repeatable.",
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="KEY=START:STOP:N",
    help="N values from `START` to `STOP`, both included. Repeatable.",
)
@click.option(
    "--perturb",
    multiple=True,
    metavar="KEY[=F,F,F]",
    help="Multiply the number at a key by 1 + `F`.  [±0.1, ±0.05, ±0.02, ±0.01 and 0] Repeatable.",
)
@click.option(
    "--points",
    "table_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The points from a table: CSV with a column for each key, or a YAML list; a column "
    "`label` names them.",
)
@click.option(
    "--zip",
    "zipped",
    is_flag=True,
    help="Take the first values of all keys together, then the second; not every combination.",
)
@click.option("--add", is_flag=True, help="Add what is new to the sweep if there is one.")
@click.option("--sweep-id", metavar="ID", help="Name of the sweep.  [the configuration's name]")
@place_options("sweep")
@request_options
@dry_run_option
@json_option
def command(
    tool: str,
    values: tuple[str, ...],
    values_files: tuple[str, ...],
    ranges: tuple[str, ...],
    perturb: tuple[str, ...],
    table_file: Path | None,
    zipped: bool,
    add: bool,
    sweep_id: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make many runs of TOOL from its configuration file CONFIG, which differ in some values.

    What all points share is stored once; each runs and verifies by itself. The same command again,
    with --add and more values, adds points and keeps those that are there. The sweep's path is
    printed last. For example:

    \b
      valska sweep pyuvsim obsparam.yaml --values time.Ntimes=4,8 -o sweep1
    """  # noqa: D301
    points = points_from_options(
        values=values,
        values_files=values_files,
        ranges=ranges,
        perturb=perturb,
        table=table_file,
        zipped=zipped,
    )
    if sweep_id is not None:
        check_name(sweep_id, "--sweep-id")
    base = bundle_request(load_tool(tool), sweep_id, options)
    draft = draft_sweep(SweepRequest(base=base, points=points))
    if dry_run:
        _print_draft(draft, preview(draft, add=add), as_json)
        return
    made = add_points(draft) if add else create_sweep(draft)
    for text in made.notes:
        note(f"Note: {text}.")
    if as_json:
        result_json(_as_json(made))
        return
    note(_summary(made))
    note(f"Next: valska submit {shlex.quote(str(made.sweep.path))}")
    result(str(made.sweep.path))


def _summary(made: Made) -> str:
    were = "was" if len(made.kept) == 1 else "were"
    kept = f", {len(made.kept)} {were} there already" if made.kept else ""
    return f"{count_text(len(made.added), 'point')} made{kept}, {len(made.manifest.points)} in all."


def _print_draft(draft: SweepDraft, new: SweepDraft, as_json: bool) -> None:
    points = [drafted.point for drafted in draft.points]
    added = [drafted.point.label for drafted in new.points]
    cost = new.cost
    if as_json:
        result_json(
            {
                "sweep": draft.path,
                "dry_run": True,
                "sweep_id": draft.sweep_id,
                "points": [asdict(point) for point in points],
                "added": added,
                "kept": sorted({point.label for point in points} - set(added)),
                "stages": {stage.name: list(stage.argv) for stage in draft.stages},
                "cost": asdict(cost),
                "notes": list(new.notes),
            }
        )
        return
    result(_point_table(points, set(added)))
    result("")
    result(_cost_text(cost))
    for text in new.notes:
        note(f"Note: {text}.")
    note("Nothing was made. The sweep would be:")
    result(str(draft.path))


def _point_table(points: list[Point], added: set[str]) -> str:
    keys = list(dict.fromkeys(key for point in points for key in (*point.values,)))
    perturbed = list(dict.fromkeys(key for point in points for key in (*point.perturbations,)))
    some_there = len(added) < len(points)
    rows = [
        [
            point.label,
            *(_shown(point.values, key) for key in keys),
            *(_shown(point.perturbations, key) for key in perturbed),
            *(["" if point.label in added else "there already"] if some_there else []),
        ]
        for point in points
    ]
    header = ["point", *keys, *(f"{key} times 1 +" for key in perturbed)]
    return table(
        [[plain(cell) for cell in row] for row in rows],
        [plain(cell) for cell in [*header, *([""] if some_there else [])]],
    )


def _shown(values: Any, key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else ""


def _cost_text(cost: Cost) -> str:
    jobs = ", ".join(f"{stage} {count}" for stage, count in cost.jobs.items())
    cpu, gpu = _hours(cost.cpu_hours), _hours(cost.gpu_hours)
    return f"jobs: {jobs}\nasked for, at most: {cpu} CPU hours, {gpu} GPU hours"


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"{hours:.10g}"


def _as_json(made: Made) -> dict[str, Any]:
    return {
        "sweep": made.sweep.path,
        "dry_run": False,
        "sweep_id": made.manifest.sweep_id,
        "points": len(made.manifest.points),
        "added": list(made.added),
        "kept": list(made.kept),
        "notes": list(made.notes),
    }
