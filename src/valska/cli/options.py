"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from valska.cli.places import RUN

Function = TypeVar("Function", bound=Callable[..., Any])

bundle_argument = click.argument("bundle", type=RUN)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and do nothing."
)


def execute_option(function: Function) -> Function:
    """Give a command ``--execute``, without which it does nothing, and the ``--dry-run`` that is.

    A command that clears away is handed ``execute``.
    """

    def refuse_both(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and ctx.params.get("execute"):
            raise click.UsageError("--dry-run and --execute exclude each other.", ctx)

    dry_run = click.option(
        "--dry-run",
        is_flag=True,
        expose_value=False,
        callback=refuse_both,
        help="Only tell; so it is without --execute.",
    )
    execute = click.option(
        "--execute", is_flag=True, is_eager=True, help="Do it; without, it is only told."
    )
    return execute(dry_run(function))


slurm_option = click.option(
    "--slurm",
    "directives",
    multiple=True,
    metavar="KEY=VALUE",
    help="Slurm directive; `KEY` is a flag, `KEY=` leaves a directive out. Repeatable.",
)


def stages_option(help_text: str) -> Callable[[Function], Function]:
    """Return the option that picks stages, completed from the bundle on the command line."""
    return click.option(
        "--stage",
        "stages",
        multiple=True,
        metavar="STAGE",
        help=f"{help_text} Repeatable.",
        shell_complete=_complete_stages,
    )


def parse_directives(pairs: tuple[str, ...]) -> dict[str, str | None]:
    """Read the values of ``--slurm``.

    Raises
    ------
    UsageError
        If a directive is unknown, is not the user's to set, or comes twice.
    """
    from valska.external_tools.core.directives import parse_directive
    from valska.external_tools.core.errors import UsageError

    found: dict[str, str | None] = {}
    for pair in pairs:
        name, value = parse_directive(pair)
        if name in found:
            raise UsageError(f"--slurm {name} is given twice", "Keep one of them.")
        found[name] = value
    return found


def parse_pairs(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    """Read the values of an option of the form ``KEY=VALUE``.

    Raises
    ------
    UsageError
        If one has no ``=`` or no key, or a key comes twice.
    """
    from valska.external_tools.core.errors import UsageError

    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(
                f"{option} {pair!r} is not of the form KEY=VALUE", f"Write {option} KEY=VALUE."
            )
        if name in found:
            raise UsageError(f"{option} {name} is given twice", "Keep one of them.")
        found[name] = value
    return found


def require_parent(output: Path) -> None:
    """Check that the directory is there in which a file is to be written.

    Raises
    ------
    UsageError
        If it is not.
    """
    from valska.external_tools.core.errors import UsageError

    if not output.parent.is_dir():
        raise UsageError(f"no such directory: {output.parent}", "Make it, or choose another.")


def complete_tools(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a tool."""
    from valska.external_tools.core.tool import tool_names

    return [name for name in tool_names() if name.startswith(incomplete)]


def first_argument(ctx: click.Context, name: str) -> str | None:
    """Return an argument while a command line is completed; click stops at the open option."""
    value = ctx.params.get(name)
    words = [word for word in ctx.args if not word.startswith("-")]
    return str(value) if value is not None else next(iter(words), None)


def _complete_stages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from valska.external_tools.core.errors import ValskaError
    from valska.external_tools.core.manifest import common_manifest, load_manifest
    from valska.external_tools.core.sweep.layout import is_sweep, sweep_of

    path = Path(first_argument(ctx, "path") or "")
    try:
        sweep = path if is_sweep(path) else getattr(sweep_of(path), "path", None)
        if sweep:
            names = [stage.name for stage in common_manifest(sweep).stages]
        else:
            names = [stage["name"] for stage in load_manifest(path)["stages"]]
    except (ValskaError, KeyError, TypeError):
        return []
    return [name for name in names if name.startswith(incomplete)]
