"""What ``valska report`` and ``valska compare`` have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from valska.cli.output import note, plain
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.report.assembly import report_of_run, report_of_sweep, reporter_of
from valska.external_tools.core.report.document import Report
from valska.external_tools.core.report.drawing import Panel, picture
from valska.external_tools.core.run_directory import is_bundle, open_bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.submission.preparation import scheduler_here
from valska.external_tools.core.sweep.layout import is_sweep, open_sweep, sweep_of
from valska.external_tools.core.tool import BUILT_IN, ToolOption, tool_names
from valska.external_tools.core.utils import write_atomic

Command = TypeVar("Command", bound=click.Command)
Function = TypeVar("Function", bound=Callable[..., Any])

_OF_TOOL = "of_tool_"
PICTURE = ".png"

_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}")


def _picture_place(context: click.Context, param: click.Parameter, path: Path | None) -> Any:
    """Refuse a file that is no picture: what has another suffix than `PICTURE`, or is a file."""
    if path is None or path.suffix.lower() == PICTURE or path.is_dir():
        return path
    if _SUFFIX.fullmatch(path.suffix) or path.exists():
        raise UsageError(
            f"--plot {path} is no picture and no directory",
            f"Name a file that ends in {PICTURE}, or a directory.",
        )
    return path


csv_option = click.option(
    "--csv",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a CSV file; one that is there is replaced.",
)
plot_option = click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    callback=_picture_place,
    help="Draw: all in one FILE.png, or a picture each in a directory.",
)
against_option = click.option(
    "--against",
    metavar="KEY",
    help="The swept parameter that runs across pictures.  [the first]",
)
tables_option = click.option(
    "--tables", is_flag=True, help="Print what points have tables of, too, such as a spectrum."
)


def output_option(content: str) -> Callable[[Function], Function]:
    """Return the option that names a directory for everything."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help=f"Write {content} into this directory.",
    )


def add_tool_options(command: Command) -> Command:
    """Give a command the options that tools have for their reports."""
    known = {name for param in command.params for name in param.opts}
    for tool, option in _tool_options():
        if f"--{option.name}" not in known:
            known.add(f"--{option.name}")
            command.params.append(_click_option(tool, option))
    return command


def take_tool_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the tools' options out of a command's, by their names in the report."""
    names = [name for name in options if name.startswith(_OF_TOOL)]
    return {name.removeprefix(_OF_TOOL): options.pop(name) for name in names}


def scheduler_for(tool: str | None = None) -> Scheduler:
    """Return the scheduler to ask about jobs."""
    return scheduler_here(resolve(tool, path=state().config))


def report_of(path: Path, options: Mapping[str, Any]) -> Report:
    """Return the report of a bundle, a sweep, or a point of one.

    Raises
    ------
    ValskaError
        If it is none of them, or cannot be summed up.
    """
    if is_sweep(path):
        return report_of_sweep(open_sweep(path), scheduler_for(), options)
    if sweep := sweep_of(path):
        label = path.absolute().name
        found = report_of_sweep(sweep, scheduler_for(), options, [label])
        return replace(found, kind="run", name=label, place=label)
    return report_of_run(open_bundle(path), scheduler_for(), options)


def pictures(panels: Sequence[Panel], path: Path, title: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the pictures of panels: one file for a name that ends in .png, else one each."""
    if path.suffix.lower() == PICTURE:
        yield path, picture(panels, title)
        return
    for panel in panels:
        yield path / f"{panel.name}{PICTURE}", picture([panel], title)


def title_of(report: Report) -> str:
    """Return what stands above the pictures of a report."""
    return " ".join(word for word in (report.tool, report.kind, report.name) if word)


def write_files(files: Mapping[Path, bytes], dry_run: bool) -> None:
    """Write files and tell them; in a dry run, only tell.

    Raises
    ------
    UsageError
        If one would lie in a bundle or sweep.
    ValskaError
        If one cannot be written.
    """
    for path in files:
        _refuse_sealed(path)
    for path, data in files.items():
        if not dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        note(f"{'Would write' if dry_run else 'Wrote'} {plain(path)}")


def _refuse_sealed(path: Path) -> None:
    for folder in path.absolute().resolve().parents:
        if is_bundle(folder) or is_sweep(folder):
            raise UsageError(f"{path} is in {folder}, which is sealed", "Choose another directory.")


def _tool_options() -> Iterator[tuple[str, ToolOption]]:
    for tool in sorted({*BUILT_IN, *tool_names()}):
        try:
            reporter = reporter_of(tool)
        except ValskaError:
            continue
        for option in reporter.options if reporter else ():
            yield tool, option


def _click_option(tool: str, option: ToolOption) -> click.Option:
    default = f"  [{option.default}]" if option.default else ""
    return click.Option(
        [f"--{option.name}", _OF_TOOL + option.name.replace("-", "_")],
        type=click.Choice(option.choices) if option.choices else None,
        is_flag=option.flag,
        default=None,
        metavar=option.metavar,
        help=f"{option.help} ({tool}){default}",
    )
