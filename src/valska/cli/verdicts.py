"""How comparisons are shown: the verdict, what is not identical, and the exit code."""

from __future__ import annotations

from pathlib import Path

from valska.cli.output import note, plain, result, styled, table
from valska.external_tools.core.comparison.page import summarize
from valska.external_tools.core.comparison.runs import Comparison, StageStates
from valska.external_tools.core.comparison.verdict import Verdict
from valska.external_tools.core.comparison.written import COMPLETED
from valska.external_tools.core.errors import VerificationError

_COLOURS = {
    Verdict.IDENTICAL: "green",
    Verdict.EQUIVALENT: "green",
    Verdict.INCOMPLETE: "yellow",
    Verdict.DIFFERENT: "red",
}


def print_comparison(comparison: Comparison) -> None:
    """Print a line for each output that is not identical, and the verdict last."""
    for stage in comparison.stages:
        if {stage.reference, stage.new} != {COMPLETED}:
            note(f"Stage {_of_stage(stage)}")
    others = [one for one in comparison.outputs if one.verdict is not Verdict.IDENTICAL]
    same = len(comparison.outputs) - len(others)
    if others:
        rows = [(plain(one.path), shown(one.verdict), plain(summarize(one))) for one in others]
        result(table(rows, ("output", "verdict", "what")))
    if same:
        note(f"{same} of {len(comparison.outputs)} outputs have the same bytes.")
    for text in comparison.notes:
        note(f"Note: {plain(text)}")
    result(shown(comparison.verdict))


def shown(verdict: Verdict) -> str:
    """Return a verdict with a colour where stdout wants one."""
    return styled(verdict.value, fg=_COLOURS[verdict])


def require_same(comparison: Comparison, page: Path | None) -> None:
    """End with exit code 5 if the new run did not give the same answer.

    Raises
    ------
    VerificationError
        If it did not.
    """
    if comparison.verdict.holds:
        return
    hint = f"{page} says what, where and by how much." if page else "-o DIR writes a page of it."
    raise VerificationError(f"the new run is {comparison.verdict.value}{_why(comparison)}", hint)


def _why(comparison: Comparison) -> str:
    """Return what the verdict is from: a stage, whose outputs can only be missing, or an output."""
    stages = [one for one in comparison.stages if {one.reference, one.new} != {COMPLETED}]
    if stages and comparison.verdict is Verdict.INCOMPLETE:
        return f": stage {_of_stage(stages[0])}"
    bad = [one for one in comparison.outputs if one.verdict is comparison.verdict]
    return f": {plain(bad[0].path)}: {plain(summarize(bad[0]))}" if bad else ""


def _of_stage(stage: StageStates) -> str:
    why = f" ({plain(stage.reason)})" if stage.reason else ""
    return f"{stage.name}: {stage.reference} in the reference, {stage.new} now{why}"
