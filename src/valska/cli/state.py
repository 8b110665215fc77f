"""The global options and the state that they set. Imported by every call, so it imports little."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

Command = TypeVar("Command", bound=click.Command)


class State:
    """What the global options say.

    Attributes
    ----------
    verbosity
        Number of ``-v`` minus number of ``-q``.
    debug
        Show tracebacks.
    config
        The configuration file that was named.
    command
        The command that runs, as the user would type it.
    """

    def __init__(self) -> None:
        self.command = "valska"
        self.verbosity = 0
        self.debug = False
        self.config: Path | None = None


def state() -> State:
    """Return the state of the running command."""
    found: State = click.get_current_context().find_object(State) or State()
    return found


def add_global_options(command: Command) -> Command:
    """Give a command the global options; they work before the verb and after it."""
    known = {name for param in command.params for name in param.opts}
    command.params += [param for param in _global_options() if not known & set(param.opts)]
    return command


def _global_options() -> list[click.Option]:
    return [
        _option("-v", "--verbose", count=True, callback=_verbose, help="Say more; -vv: all."),
        _option("-q", "--quiet", count=True, callback=_quiet, help="Say less."),
        _option("--debug", is_flag=True, callback=_debug, help="Show tracebacks of errors."),
        _option(
            "--config",
            type=click.Path(dir_okay=False),
            callback=_config,
            help="Configuration file; the project's or the user's runtime_paths.yaml without it.",
        ),
        _option(
            "--version", is_flag=True, is_eager=True, callback=_version, help="Show the version."
        ),
    ]


def _option(*names: str, callback: Callable[[State, Any], None], **rest: Any) -> click.Option:
    def apply(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            callback(ctx.ensure_object(State), value)

    return click.Option(names, callback=apply, expose_value=False, **rest)


def _verbose(state: State, value: int) -> None:
    state.verbosity += value
    _log(state)


def _quiet(state: State, value: int) -> None:
    state.verbosity -= value
    _log(state)


def _debug(state: State, value: bool) -> None:
    state.debug = value


def _config(state: State, value: str) -> None:
    from pathlib import Path

    state.config = Path(value)


def _version(state: State, value: bool) -> None:
    from valska import __version__

    click.echo(f"valska {__version__}")
    click.get_current_context().exit()


def _log(state: State) -> None:
    from valska.cli.output import set_up_logging

    set_up_logging(state.verbosity)


def color() -> bool | None:
    """Return False where colour is not wanted, None where click decides."""
    return False if os.environ.get("NO_COLOR") else None
