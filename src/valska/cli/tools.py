"""``valska tools``: which tools there are."""

from __future__ import annotations

from typing import Any

import click

from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.tool import Tool, load_tool, tool_names


@click.command("tools")
@json_option
def command(as_json: bool) -> None:
    """List the tools that valska can run."""
    entries = [_entry(name) for name in tool_names()]
    if as_json:
        result_json(entries)
    else:
        rows = [(entry["name"], plain(entry["error"] or entry["summary"])) for entry in entries]
        result(table(rows))


def _entry(name: str) -> dict[str, Any]:
    try:
        tool = load_tool(name)
    except ValskaError as error:
        return {"name": name, "summary": None, "stages": [], "error": error.message}
    return {"name": name, "summary": tool.summary, "stages": list(tool.stages), "error": None}


def load_tools() -> dict[str, Tool]:
    """Load every tool; a broken one is told on stderr and left out."""
    loaded = {}
    for name in tool_names():
        try:
            loaded[name] = load_tool(name)
        except ValskaError as error:
            note(f"Left out: {error.message}")
    return loaded
