"""``valska config``: the settings that hold here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from valska.cli.options import complete_tools, json_option
from valska.cli.output import note, plain, result, result_json, styled, table
from valska.cli.state import add_global_options, state
from valska.cli.tools import load_tools
from valska.external_tools.core.config import (
    SETTING_NAMES,
    Directive,
    Settings,
    resolve,
    resolve_directives,
)
from valska.external_tools.core.tool import Tool, load_tool


@click.group("config")
def command() -> None:
    """Print the settings that hold here, and where each is from."""


@command.command("show")
@click.argument("tool", required=False, shell_complete=complete_tools)
@json_option
def show(tool: str | None, as_json: bool) -> None:
    """Print each setting, its value and where the value is from.

    With TOOL only that tool's; otherwise every installed tool's.
    """
    tools = {tool: load_tool(tool)} if tool else load_tools()
    found = {name: _resolve(loaded) for name, loaded in tools.items()}
    if as_json:
        result_json({name: _as_json(*entry) for name, entry in found.items()})
        return
    for name, (settings, directives) in found.items():
        result(styled(f"{name}", bold=True) + f"  (file: {settings.file or 'none'})")
        result(table(_rows(settings, directives)))
    note("Precedence: flag > section of the tool > the site's > default.")


add_global_options(show)


def _resolve(tool: Tool) -> tuple[Settings, dict[str, dict[str, Directive]]]:
    settings = resolve(tool.name, path=state().config)
    stages = {stage: tool.directives.get(stage, {}) for stage in tool.stages}
    return settings, resolve_directives(settings.runtime, tool.name, stages)


def _rows(
    settings: Settings, directives: dict[str, dict[str, Directive]]
) -> list[tuple[str, str, str]]:
    rows = [
        (f"  {name}", _text(getattr(settings, name)), settings.origins[name])
        for name in SETTING_NAMES
    ]
    for stage, entries in directives.items():
        rows += [
            (f"  slurm {stage} {name}", _directive_text(entry), entry.origin)
            for name, entry in entries.items()
        ]
    return [(name, plain(value), f"[{plain(origin)}]") for name, value, origin in rows]


def _text(value: object) -> str:
    if value is None or value == ():
        return "-"
    return "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _directive_text(entry: Directive) -> str:
    if entry.value is None:
        return "(left out)"
    return entry.value or "(set)"


def _as_json(settings: Settings, directives: dict[str, dict[str, Directive]]) -> dict[str, Any]:
    return {
        "file": _json_value(settings.file),
        "settings": {
            name: {
                "value": _json_value(getattr(settings, name)),
                "origin": settings.origins[name],
            }
            for name in SETTING_NAMES
        },
        "slurm": {
            stage: {
                name: {"value": entry.value, "origin": entry.origin}
                for name, entry in entries.items()
            }
            for stage, entries in directives.items()
        },
    }


def _json_value(value: object) -> object:
    return os.fspath(value) if isinstance(value, Path) else value
