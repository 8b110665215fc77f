"""Options that a tool adds to the verbs that make its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.tool import BUILT_IN, HasOptions, ToolOption, load_tool, tool_names

_OF_TOOL = "of_tool_"
_META = "valska.tool_options"


class ToolCommand(click.Command):
    """A command that takes, besides its own options, those of the tool among its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the tool, then parse with its options."""
        tool = self._tool_in(args)
        own = {name for param in self.params for name in (*param.opts, *param.secondary_opts)}
        ctx.meta[_META] = (tool, [] if tool is None else _options_of(tool, own))
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's options and those of the tool."""
        _, options = ctx.meta.get(_META, (None, []))
        return [*super().get_params(ctx), *options]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's options, then those of the tool."""
        tool, options = ctx.meta.pop(_META, (None, []))
        super().format_options(ctx, formatter)
        records = [record for option in options if (record := option.get_help_record(ctx))]
        if records:
            with formatter.section(f"Options of {tool}"):
                formatter.write_dl(records)

    def _tool_in(self, args: Sequence[str]) -> str | None:
        takes_value = {
            name
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag and not param.count
            for name in param.opts
        }
        value = False
        for arg in args:
            if not value and not arg.startswith("-") and (arg in BUILT_IN or arg in tool_names()):
                return arg
            value = not value and arg in takes_value
        return None


def take_tool_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the tool's options out of a command's, by their names in the spec.

    Those that were not given and have no default are left out.
    """
    taken = {name: options.pop(name) for name in list(options) if name.startswith(_OF_TOOL)}
    return {
        name.removeprefix(_OF_TOOL): value
        for name, value in taken.items()
        if value is not None and value is not False
    }


def _options_of(name: str, own: set[str]) -> list[click.Option]:
    try:
        tool = load_tool(name)
    except ValskaError:
        return []
    options = tool.options if isinstance(tool, HasOptions) else ()
    for option in options:
        if f"--{option.name}" in own:
            raise ValskaError(
                f"the plugin of tool {name!r} has an option --{option.name} of valska's"
            )
    return [_click_option(option) for option in options]


def _click_option(option: ToolOption) -> click.Option:
    names = [f"--{option.name}", _OF_TOOL + option.name.replace("-", "_")]
    if option.flag:
        return click.Option(names, is_flag=True, help=option.help)
    kind = click.Choice(option.choices) if option.choices else None
    return click.Option(
        names,
        type=kind,
        default=option.default,
        show_default=option.default is not None,
        metavar=option.metavar,
        help=option.help,
    )
