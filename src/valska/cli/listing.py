"""``valska list``: the runs and sweeps below a root."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli import results_view
from valska.cli.options import complete_tools, json_option
from valska.cli.output import note, plain, result, result_json
from valska.cli.places import RUN
from valska.external_tools.core.results import (
    Filter,
    Kind,
    overviews,
    parse_since,
    read_results,
)
from valska.external_tools.core.status import StageState
from valska.external_tools.core.submission.preparation import scheduler_here

_STATES = [*(state.value for state in StageState), results_view.UNREADABLE]


@click.command("list")
@click.argument("root", type=RUN, required=False)
@click.option("--tool", metavar="TOOL", shell_complete=complete_tools, help="Only of this tool.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    metavar="STATE",
    help="Only in this state, such as failed or running. Repeatable.",
)
@click.option("--run-id", metavar="PATTERN", help="Only with such a run id, or sweep id.")
@click.option("--since", metavar="DATE", help="Only those made on this day (UTC) or later.")
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="Only these.")
@json_option
def command(
    root: Path | None,
    tool: str | None,
    states: tuple[str, ...],
    run_id: str | None,
    since: str | None,
    kind: str | None,
    as_json: bool,
) -> None:
    """List the runs and sweeps below ROOT, and what became of them.

    Without ROOT: below the configured results_root. The column "done" counts the points of a
    sweep, or the stages of a run, that have completed.
    """
    chosen, settings = results_view.root_or_default(root)
    wanted = Filter(
        tool=tool,
        run_id=run_id,
        since=parse_since(since) if since else None,
        kind=Kind(kind) if kind else None,
    )
    found = overviews(read_results(chosen, wanted), scheduler_here(settings))
    if states:
        found = [one for one in found if results_view.state_word(one) in states]
    if as_json:
        result_json([results_view.as_json(one) for one in found])
    elif found:
        result(results_view.text(found, failures=False))
        for said in results_view.notes(found):
            note(said)
    else:
        note(f"There is no such run or sweep below {plain(chosen)}.")
