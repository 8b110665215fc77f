"""``valska bundle``: from a tool's configuration to a sealed directory."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.options import (
    complete_tools,
    dry_run_option,
    first_argument,
    json_option,
    parse_directives,
    parse_pairs,
    slurm_option,
)
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.state import state
from valska.external_tools.core.bundling import BundledImage, BundleRequest, Draft, create, draft
from valska.external_tools.core.config import (
    Settings,
    directive_texts,
    resolve,
    resolve_directives,
)
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.jobscript import checked_text
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.overrides import parse_override
from valska.external_tools.core.run_directory import Bundle, check_name
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.seal import seal_of
from valska.external_tools.core.site import Site
from valska.external_tools.core.site_settings import site_of
from valska.external_tools.core.staging import COPY_LIMIT_BYTES, StagingMode
from valska.external_tools.core.templates import get_template_path, list_templates
from valska.external_tools.core.tool import (
    Launch,
    RunSpec,
    Tool,
    default_directives,
    load_tool,
)

if TYPE_CHECKING:
    from valska.external_tools.core.conda import CondaEnvironment

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_PATHS = {"source": "CONFIG", "output": "-o", "results_root": "--results-root"}
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._+=-]+")


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number of bytes, also with K, M, G or T (powers of 1024)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if not match:
            self.fail(f"{value!r} is no size. Write 500M or 2G.", param, ctx)
        return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _complete_templates(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        names = list_templates(load_tool(first_argument(ctx, "tool") or "").templates_dir)
    except ValskaError:
        return []
    return [name for name in names if name.startswith(incomplete)]


@click.command("bundle")
@click.argument("tool", shell_complete=complete_tools)
@click.argument("source", required=False, type=click.Path(path_type=Path), metavar="[CONFIG]")
@click.option(
    "--template",
    metavar="NAME",
    help="Start from a template of the tool instead of CONFIG.",
    shell_complete=_complete_templates,
)
@click.option("--run-id", metavar="ID", help="Name of the run.  [the configuration's name]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The bundle's directory.  [below the results root]",
)
@click.option(
    "--results-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory below which runs lie, by tool, taxonomy and run id.",
)
@click.option("--unique", is_flag=True, help="Append the time (UTC) to the directory.")
@click.option("--taxonomy", multiple=True, metavar="LEVEL=VALUE", help="Fix a level. Repeatable.")
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a (dotted) key of the configuration; the value is YAML. Repeatable.",
)
@click.option("--runner", type=click.Choice([kind.value for kind in RunnerKind]))
@click.option(
    "--image",
    metavar="REF",
    help="A .sif file, a digest (or its start) in the store, or a definition's name.",
)
@click.option("--embed-image", is_flag=True, help="Put the image itself into the bundle.")
@click.option(
    "--inputs",
    type=click.Choice([mode.value for mode in StagingMode]),
    help="How inputs are staged.  [copy; reference above the copy limit]",
)
@click.option("--copy-limit", type=Size(), help="Larger inputs are referenced.  [1G]")
@click.option(
    "--launch",
    type=click.Choice([launch.value for launch in Launch]),
    help="How MPI ranks are started: in one container, or one container each.  [mpiexec]",
)
@slurm_option
@dry_run_option
@json_option
def command(tool: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Make the bundle of a run of TOOL from its configuration file CONFIG.

    Everything that the configuration names is found, staged and sealed; a job script is rendered
    for each stage. The bundle's path is printed last.
    """
    drafted = draft(_request(load_tool(tool), **options))
    if dry_run:
        _print_draft(drafted, as_json)
        return
    bundle = create(drafted)
    if as_json:
        result_json(_as_json(bundle))
        return
    note(f"Next: valska submit {shlex.quote(str(bundle.path))}")
    result(str(bundle.path))


def _request(tool: Tool, **options: Any) -> BundleRequest:
    for name, shown in _PATHS.items():
        checked_text(str(options[name] or ""), shown)
    settings = resolve(
        tool.name,
        flags={name: options[name] for name in ("results_root", "runner", "image")},
        path=state().config,
    )
    runner = RunnerKind(settings.runner)
    site = site_of(settings, runner)
    return BundleRequest(
        tool=tool,
        spec=_spec(tool, settings, **options),
        runner=runner,
        image=_image(tool, settings) if runner is RunnerKind.CONTAINER else None,
        environment=_environment(site),
        site=site,
        output=options["output"],
        results_root=settings.results_root,
        unique=options["unique"],
        staging=StagingMode(options["inputs"]) if options["inputs"] else None,
        copy_limit=COPY_LIMIT_BYTES if options["copy_limit"] is None else options["copy_limit"],
        embed_image=options["embed_image"],
    )


def _environment(site: Site) -> CondaEnvironment | None:
    if site.conda is None:
        return None
    from valska.external_tools.core.conda import read_environment

    return read_environment(site.conda)


def _spec(tool: Tool, settings: Settings, **options: Any) -> RunSpec:
    source = _source(tool, options["source"], options["template"])
    return RunSpec(
        tool=tool.name,
        run_id=check_name(options["run_id"], "run id") if options["run_id"] else _name(source),
        source=source,
        taxonomy=parse_pairs(options["taxonomy"], "--taxonomy"),
        overrides=dict(map(parse_override, options["overrides"])),
        directives=_directives(tool, settings, options["directives"], {}),
        launch=Launch(options["launch"] or Launch.MPIEXEC),
    )


def _source(tool: Tool, config: Path | None, template: str | None) -> Path:
    if template and config:
        raise UsageError("CONFIG and --template do not go together", "Give one of them.")
    if template:
        return get_template_path(tool.templates_dir, template)
    if config is None:
        raise UsageError(
            "no configuration",
            f"Name a file, or a template: {', '.join(list_templates(tool.templates_dir))}.",
        )
    return config.absolute()


def _name(source: Path) -> str:
    return check_name(_NOT_IN_A_NAME.sub("_", source.stem).lstrip("._+=-"), "run id")


def _directives(
    tool: Tool, settings: Settings, pairs: tuple[str, ...], options: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    defaults = default_directives(tool, options)
    found = resolve_directives(settings.runtime, tool.name, defaults, parse_directives(pairs))
    return {stage: directive_texts(entries) for stage, entries in found.items()}


def _image(tool: Tool, settings: Settings) -> BundledImage:
    from valska.external_tools.core.images import resolve_image
    from valska.external_tools.core.images.store import ImageStore

    return resolve_image(
        settings.image,
        ImageStore(settings.images),
        definition=tool.definition,
        apptainer=settings.apptainer,
    )


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
