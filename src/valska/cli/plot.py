"""``valska plot``: a picture of what a run wrote."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.options import bundle_argument, dry_run_option, json_option
from valska.cli.output import note, result, result_json
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.layout import open_unit
from valska.external_tools.core.tool import Plots, load_tool
from valska.external_tools.core.utils import write_atomic


@click.command("plot")
@bundle_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The picture; one that is there is replaced.  [RUN_ID.png]",
)
@dry_run_option
@json_option
def command(bundle: Path, output: Path | None, dry_run: bool, as_json: bool) -> None:
    """Draw what the run of BUNDLE, which may be a point of a sweep, wrote, as a PNG.

    What is drawn is up to the tool: for pyuvsim amplitude and phase of the shortest few baselines
    over time and frequency. The picture's path is printed.
    """
    opened = open_unit(bundle)
    manifest = read_manifest(opened)
    target = _target(opened, output or Path(f"{manifest.run_id}.png"))
    data = _plots(manifest).plot(opened.outputs, manifest.section, _title(manifest))
    if not dry_run:
        write_atomic(target, data)
    if as_json:
        result_json({"dry_run": dry_run, "picture": target.absolute()})
        return
    note(
        "Nothing was written. The picture would be:"
        if dry_run
        else f"Drew {manifest.tool} run {manifest.run_id}."
    )
    result(str(target))


def _target(bundle: Bundle, output: Path) -> Path:
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output} is no name for a PNG", "Let it end in .png.")
    place = output.absolute().parent.resolve()
    if not place.is_dir():
        raise UsageError(f"no such directory: {output.parent}", "Make it, or choose another.")
    if place.is_relative_to(bundle.path.resolve()):
        raise UsageError(f"{output} is in the bundle, which is sealed", "Choose another directory.")
    return output


def _plots(manifest: Manifest) -> Plots:
    tool = load_tool(manifest.tool)
    if not isinstance(tool, Plots):
        raise UsageError(
            f"{manifest.tool} cannot draw what its runs write",
            "Look at the bundle's outputs/ with the tool's own programs.",
        )
    return tool


def _title(manifest: Manifest) -> str:
    return f"{manifest.tool} run {manifest.run_id}\nbundle id {manifest.bundle_id}"
