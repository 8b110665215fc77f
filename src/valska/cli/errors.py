"""The one place where errors become a message, a hint and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from valska.cli.state import State, color
from valska.external_tools.core.errors import ValskaError

INTERRUPTED = 130
TERMINATED = 143
GENERAL = 1
USAGE = 2

_BREAKS = re.compile(r"\n\t?")
_FULL = "Free some space, or choose another directory."
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: "Check the permissions, or choose another directory.",
    errno.EPERM: "Check the permissions, or choose another directory.",
    errno.EROFS: "Choose a directory on a file system that can be written.",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
    errno.ESTALE: "A network file system went away; try again.",
}


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came; whatever tidies up after Ctrl-C does after this."""


def terminate(number: int, frame: object) -> NoReturn:
    """End a command on SIGTERM as Ctrl-C does, but for the exit code and what is said.

    Raises
    ------
    TerminatedError
        Always.
    """
    raise TerminatedError


def guarded(run: Callable[[], Any], state: State) -> int:
    """Run a command line and return its exit code, telling every error in one shape.

    Parameters
    ----------
    run
        Runs the command line without click's own handling of errors.
    state
        The global options, as far as they have been read when something fails.
    """
    code = _run(run, state)
    _settle_stdout()
    return code


def _run(run: Callable[[], Any], state: State) -> int:
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:
        return GENERAL
    except click.UsageError as error:
        return _help(error) or _tell(error, state)
    except Exception as error:  # noqa: BLE001 - nothing may reach the user as a bare traceback
        return _tell(error, state)
    return code if isinstance(code, int) else 0


def _settle_stdout() -> None:
    """Throw away what cannot be written, or the interpreter tries again and ends with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _help(error: click.UsageError) -> int | None:
    """Show the help that newer versions of click raise where a group is called without a verb."""
    if type(error).__name__ != "NoArgsIsHelpError" or error.ctx is None:
        return None
    click.echo(error.ctx.get_help(), err=True)
    return USAGE


def _tell(error: Exception, state: State) -> int:
    if state.debug:
        import traceback

        click.echo(traceback.format_exc(), err=True, nl=False)
    if isinstance(error, click.Abort):
        terminated = isinstance(error.__cause__, TerminatedError)
        click.echo("Terminated." if terminated else "Interrupted.", err=True)
        return TERMINATED if terminated else INTERRUPTED
    message, hint, code = _describe(error)
    click.echo(f"{_label('Error:', 'red')} {message}", err=True, color=color())
    hint = _one_line(hint) if hint else _general_hint(code, state)
    click.echo(f"{_label('Hint:', 'cyan')} {hint}", err=True, color=color())
    return code


def _general_hint(code: int, state: State) -> str:
    if code == USAGE:
        return f"`{state.command} --help` says what is expected."
    return "Run it again with -vv --debug to see more."


def _label(text: str, colour: str) -> str:
    return click.style(text, fg=colour, bold=True)


def _describe(error: Exception) -> tuple[str, str | None, int]:
    if isinstance(error, ValskaError):
        return _one_line(error.message), error.hint, error.exit_code
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message()), _usage_hint(error), error.exit_code
    if isinstance(error, OSError) and error.strerror:
        return _system(error), _HINTS.get(error.errno or 0), GENERAL
    return (
        f"valska failed unexpectedly: {type(error).__name__}: {_one_line(str(error))}",
        "This is a fault in valska. Run the command again with --debug, and report what it prints.",
        GENERAL,
    )


def _system(error: OSError) -> str:
    places = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = (error.strerror or "").lower()
    return _one_line(f"{' to '.join(places)}: {reason}" if places else reason)


def _usage_hint(error: click.ClickException) -> str | None:
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return None
    return f"See `{error.ctx.command_path} --help`."


def _one_line(text: str) -> str:
    joined = _BREAKS.sub(" ", text)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)
