"""Groups of commands whose modules are imported when they are used, not before."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

import click

from valska.cli.state import State, add_global_options


class LazyGroup(click.Group):
    """A group that knows its commands by name; each lies in a module as ``command``.

    Attributes
    ----------
    verbs
        Name to summary, in the order in which a user meets them.
    """

    verbs: ClassVar[Mapping[str, str]] = {}

    def module(self, verb: str) -> str:
        """Return the name of a command's module."""
        return f"{self.name}_{verb}"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.verbs:
            return None
        module = import_module(f"valska.cli.{self.module(cmd_name)}")
        command: click.Command = module.command
        return add_global_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; for a typing error, say which is meant."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            from valska.external_tools.core.suggest import did_you_mean

            hint = did_you_mean(args[0], self.verbs)
            message = f"No such command {args[0]!r}." + (f" {hint}" if hint else "")
            raise click.UsageError(message, ctx)
        found = super().resolve_command(ctx, args)
        named = ctx.ensure_object(State)
        named.command = f"{named.command} {found[0]}"
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.verbs.items()))
