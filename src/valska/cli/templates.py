"""``valska templates``: configuration files to start from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click

from valska.cli.options import complete_tools, dry_run_option, json_option
from valska.cli.output import note, result, result_json, table
from valska.cli.tools import load_tools
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.templates import get_template_path, list_templates
from valska.external_tools.core.tool import RunSpec, Tool, load_tool, read_file


@click.command("templates")
@click.argument("tool", required=False, shell_complete=complete_tools)
@click.option("--show", metavar="NAME", help="Print a template.")
@click.option(
    "--copy",
    type=(str, click.Path(path_type=Path, file_okay=False)),
    metavar="NAME DIR",
    help="Copy a template, and the files that it names, into a directory.",
)
@dry_run_option
@json_option
def command(
    tool: str | None,
    show: str | None,
    copy: tuple[str, Path] | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """List, print or copy the templates of TOOL, or list those of every tool."""
    if tool is None:
        if show or copy:
            raise UsageError(
                "--show and --copy need the name of a tool", "valska tools lists them."
            )
        _list(load_tools(), as_json)
        return
    if show and copy:
        raise UsageError("--show and --copy do not go together", "Give one of them.")
    loaded = load_tool(tool)
    if show:
        _show(loaded, show, as_json)
    elif copy:
        _copy(loaded, *copy, dry_run, as_json)
    else:
        _list({tool: loaded}, as_json)


def _list(tools: dict[str, Tool], as_json: bool) -> None:
    found = {name: list_templates(tool.templates_dir) for name, tool in tools.items()}
    if as_json:
        result_json(found)
        return
    rows = [
        (tool, name, _summary(get_template_path(tools[tool].templates_dir, name)))
        for tool, names in found.items()
        for name in names
    ]
    result(table(rows))


def _summary(template: Path) -> str:
    lines = template.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    text = " ".join(line.lstrip("#").strip() for line in comment)
    return text.partition(". ")[0].rstrip(".")


def _show(tool: Tool, name: str, as_json: bool) -> None:
    text = get_template_path(tool.templates_dir, name).read_text(encoding="utf-8")
    if as_json:
        result_json({"tool": tool.name, "template": name, "text": text})
    else:
        result(text.rstrip())


def _copy(tool: Tool, name: str, directory: Path, dry_run: bool, as_json: bool) -> None:
    template = get_template_path(tool.templates_dir, name)
    targets = {
        source: directory / _place(source, tool.templates_dir)
        for source in (template, *_companions(tool, template))
    }
    taken = [str(target) for target in targets.values() if target.exists()]
    if taken:
        raise UsageError(f"already there: {', '.join(taken)}", "Choose another directory.")
    for source, target in targets.items():
        note(f"{'would copy' if dry_run else 'copied'} {target}")
        if not dry_run:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    if as_json:
        files = list(targets.values())
        result_json({"dry_run": dry_run, "template": targets[template], "files": files})
    else:
        result(str(targets[template]))


def _place(source: Path, root: Path) -> Path:
    return source.relative_to(root) if source.is_relative_to(root) else Path(source.name)


def _companions(tool: Tool, template: Path) -> Iterator[Path]:
    """Find what a template names, and what lies in the directory that is called like it."""
    spec = RunSpec(tool=tool.name, run_id="copy", source=template)
    yield from (item.source for item in tool.discover(spec, read_file))
    yield from filter(Path.is_file, sorted(template.with_suffix("").rglob("*")))
