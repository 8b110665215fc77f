"""The options that make a run, shared by the verbs that make runs, and what they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.options import (
    Function,
    complete_tools,
    first_argument,
    parse_directives,
    parse_pairs,
    slurm_option,
)
from valska.cli.output import note, plain
from valska.cli.state import state
from valska.cli.tool_options import take_tool_options
from valska.external_tools.core.bundling import BundledImage, BundleRequest
from valska.external_tools.core.config import (
    Settings,
    directive_texts,
    resolve,
    resolve_directives,
)
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.jobscript import checked_text
from valska.external_tools.core.overrides import parse_override
from valska.external_tools.core.run_directory import check_name
from valska.external_tools.core.runner import RunnerKind
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


def _stacked(*decorators: Callable[[Any], Any]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


source_arguments = _stacked(
    click.argument("tool", shell_complete=complete_tools),
    click.argument("source", required=False, type=click.Path(path_type=Path), metavar="[CONFIG]"),
    click.option(
        "--template",
        metavar="NAME",
        help="Start from a template of the tool instead of CONFIG.",
        shell_complete=_complete_templates,
    ),
)
"""The tool, and its configuration or a template of it."""


def place_options(what: str) -> Callable[[Function], Function]:
    """Return the options that say where a bundle or a sweep goes."""
    return _stacked(
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path, file_okay=False),
            help=f"The {what}'s directory.  [below the results root]",
        ),
        click.option(
            "--results-root",
            type=click.Path(path_type=Path, file_okay=False),
            help="Directory below which runs lie, by tool, taxonomy and run id.",
        ),
    )


request_options = _stacked(
    click.option(
        "--taxonomy", multiple=True, metavar="LEVEL=VALUE", help="Fix a level. Repeatable."
    ),
    click.option(
        "--override",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set a (dotted) key of the configuration; the value is YAML. Repeatable.",
    ),
    click.option(
        "--runner",
        type=click.Choice([kind.value for kind in RunnerKind]),
        help="Where stages run: in the image, in a conda environment, or on the machine as it is.  "
        "[container]",
    ),
    click.option(
        "--image",
        metavar="REF",
        help="A .sif file, a digest (or its start) in the store, or a definition's name.",
    ),
    click.option("--embed-image", is_flag=True, help="Put the image itself into it."),
    click.option(
        "--inputs",
        type=click.Choice([mode.value for mode in StagingMode]),
        help="How inputs are staged.  [copy; reference above the copy limit]",
    ),
    click.option("--copy-limit", type=Size(), help="Larger inputs are referenced.  [1G]"),
    click.option(
        "--launch",
        type=click.Choice([launch.value for launch in Launch]),
        help="How MPI ranks are started: in one container, or one container each.  [mpiexec]",
    ),
    slurm_option,
)
"""What a run is made from, and how it runs."""


def bundle_request(tool: Tool, run_id: str | None, options: dict[str, Any]) -> BundleRequest:
    """Return the request that the options of a command line make.

    Parameters
    ----------
    tool
        The tool.
    run_id
        The user's name for the run; that of the configuration, if not given.
    options
        Values of `source_arguments`, `place_options`, `request_options` and the tool's own.

    Raises
    ------
    ValskaError
        If one of them is not usable.
    """
    of_tool = take_tool_options(options)
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
        spec=_spec(tool, settings, run_id, of_tool, options),
        runner=runner,
        image=_image(tool, settings) if runner is RunnerKind.CONTAINER else None,
        environment=_environment(site),
        site=site,
        output=options["output"],
        results_root=settings.results_root,
        staging=StagingMode(options["inputs"]) if options["inputs"] else None,
        copy_limit=COPY_LIMIT_BYTES if options["copy_limit"] is None else options["copy_limit"],
        embed_image=options["embed_image"],
    )


def _environment(site: Site) -> CondaEnvironment | None:
    if site.conda is None:
        return None
    from valska.external_tools.core.conda import read_environment

    return read_environment(site.conda)


def _spec(
    tool: Tool,
    settings: Settings,
    run_id: str | None,
    of_tool: Mapping[str, Any],
    options: Mapping[str, Any],
) -> RunSpec:
    source = _source(tool, options["source"], options["template"])
    return RunSpec(
        tool=tool.name,
        run_id=check_name(run_id, "run id") if run_id else _name(source),
        source=source,
        taxonomy=parse_pairs(options["taxonomy"], "--taxonomy"),
        overrides=dict(map(parse_override, options["overrides"])),
        directives=_directives(tool, settings, options["directives"], of_tool),
        launch=Launch(options["launch"] or Launch.MPIEXEC),
        options=of_tool,
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

    image = resolve_image(
        settings.image,
        ImageStore(settings.images),
        definition=tool.definition,
        apptainer=settings.apptainer,
    )
    _note_other_image(tool, image)
    return image


def _note_other_image(tool: Tool, image: BundledImage) -> None:
    """Say it if an image is of another definition than the tool's, and has no package of it."""
    found = [data for role, data in image.files.values() if role == "image-record"]
    record = json.loads(found[0]) if found else {}
    packages = record.get("packages") or {}
    places = [
        packages.get("python"),
        *(one["packages"] for one in packages.get("environments", ())),
    ]
    names = {name for place in places for name in place or ()}
    names |= {one["name"] for one in packages.get("conda", ())}
    of = (record.get("definition") or {}).get("name")
    if names and of != tool.definition and tool.name not in {name.lower() for name in names}:
        note(
            f"Note: {plain(record['name'])} may be the wrong image: it has no package {tool.name}."
        )
