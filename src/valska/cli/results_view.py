"""How many runs and sweeps are shown together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from valska.cli.output import plain, styled, table
from valska.cli.progress import COLOURS
from valska.cli.state import state
from valska.external_tools.core.config import Settings, resolve
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.results import Kind, Overview
from valska.external_tools.core.run_directory import check_root
from valska.external_tools.core.status import StageStatus

HEADER = ("path", "kind", "tool", "id", "state", "done", "made")
UNREADABLE = "unreadable"


def root_or_default(root: Path | None) -> tuple[Path, Settings]:
    """Return a root that was named, or the configured one, and the settings.

    Raises
    ------
    UsageError
        If neither is there, or it is not a directory.
    """
    settings = resolve(path=state().config)
    chosen = root or settings.results_root
    if chosen is None:
        raise UsageError(
            "no root is named, and the configuration has no results_root",
            "Name the directory below which your runs are.",
        )
    return check_root(chosen), settings


def state_word(overview: Overview) -> str:
    """Return the word for the state of a run or sweep."""
    return overview.state.value if overview.state else UNREADABLE


def text(overviews: Sequence[Overview], failures: bool = True) -> str:
    """Return a table of runs and sweeps, and a table of what failed of them."""
    blocks = [table(map(_row, overviews), HEADER)]
    rows = {
        _failure(overview, label, stage): None
        for overview in overviews
        for label, stage in overview.failures
    }
    if rows and failures:
        blocks += ["", table(rows, ("failed", "stage", "state", "log", "reason"))]
    return "\n".join(blocks)


def notes(overviews: Iterable[Overview]) -> list[str]:
    """Return what else there is to say of runs and sweeps."""
    return [
        f"Note: {plain(overview.result.place)}: {plain(said)}"
        for overview in overviews
        for said in overview.notes
    ]


def as_json(overview: Overview) -> dict[str, Any]:
    """Return a run or sweep as JSON types."""
    found = overview.result
    sweep = found.kind is Kind.SWEEP
    return {
        "path": found.path,
        "place": found.place,
        "kind": found.kind.value,
        "tool": found.tool or None,
        "taxonomy": dict(found.taxonomy),
        "run_id": found.run_id or None,
        "bundle_id": found.bundle_id or None,
        "created_utc": found.created_utc or None,
        "state": state_word(overview),
        "points": {"done": overview.done, "total": overview.total} if sweep else None,
        "stages": None if sweep else {"done": overview.done, "total": overview.total},
        "failures": [
            {
                "point": label or None,
                "stage": stage.stage,
                "state": stage.state.value,
                "reason": stage.reason,
                "log": stage.log,
            }
            for label, stage in overview.failures
        ],
        "notes": list(overview.notes),
    }


def _row(overview: Overview) -> tuple[str, ...]:
    found = overview.result
    colour = COLOURS.get(overview.state, "red") if overview.state else "red"
    return (
        plain(found.place),
        found.kind.value,
        plain(found.tool or "-"),
        plain(found.run_id or "-"),
        styled(state_word(overview), fg=colour),
        f"{overview.done}/{overview.total}" if overview.state else "-",
        plain(found.created_utc or "-"),
    )


def _failure(overview: Overview, label: str, stage: StageStatus) -> tuple[str, ...]:
    place = overview.result.place
    where = f"{place}: {label}" if label else place
    colour = COLOURS.get(stage.state, "red")
    log = f"{place}/{stage.log}" if stage.log else "-"
    word = styled(stage.state.value, fg=colour)
    return (plain(where), stage.stage, word, plain(log), plain(stage.reason or ""))
