"""The page of a comparison of two sweeps: what a person reads of it, in Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from valska.external_tools.core.comparison.page import (
    MANY,
    SHORT,
    code,
    intent_text,
    last_blocks,
    notes_blocks,
    outputs_blocks,
    signature,
    summarize,
    table,
    text,
)
from valska.external_tools.core.comparison.sweeps import SweepComparison, UnitComparison
from valska.external_tools.core.comparison.verdict import Verdict
from valska.external_tools.core.comparison.written import COMPLETED

ROWS = 1000
"""So many points that are identical have a row each."""

_SAID = {
    Verdict.IDENTICAL: "Every output of every point has the same bytes as the reference's.",
    Verdict.EQUIVALENT: "Every point gives the same science as the reference, within the "
    "tolerances below. Some bytes differ; what differs, and why it does not count, is said below.",
    Verdict.DIFFERENT: "At least one point does not give the answer of the reference.",
    Verdict.INCOMPLETE: "The two sweeps cannot be compared as a whole: something is missing.",
}


def render_sweep_page(comparison: SweepComparison) -> str:
    """Return the page of a comparison of two sweeps."""
    blocks = [
        f"# Verdict: {comparison.verdict.value}",
        _SAID[comparison.verdict],
        count_verdicts(comparison.points),
        *_left_out(comparison.left_out),
        "## Points",
        *_points(comparison.points),
        *_shared(comparison.shared),
        *notes_blocks(comparison.notes),
        *_details((*comparison.shared, *comparison.points)),
        "## What the two sweeps were to do",
        "What all points share is compared here; the configurations of the points are those "
        "that the reference's seals cover.",
        intent_text(comparison.intent),
        _sweeps(comparison),
        *last_blocks(comparison.verdict, comparison.tolerances),
        signature(comparison),
    ]
    return "\n\n".join(blocks) + "\n"


def count_verdicts(points: Sequence[UnitComparison]) -> str:
    """Return how many points have which verdict, the best first, as a sentence."""
    found = Counter(one.verdict for one in points)
    told = ", ".join(f"{found[one]} {one.value}" for one in Verdict if found[one])
    return f"{len(points)} {'point' if len(points) == 1 else 'points'}: {told or 'none'}."


def describe_values(point: UnitComparison) -> str:
    """Return what a point sets, for a person."""
    shown = [f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in point.values.items()]
    shown += [f"{k} times 1 + {v!r}" for k, v in point.perturbations.items()]
    return ", ".join(shown)


def summarize_unit(one: UnitComparison) -> str:
    """Return the one sentence that says most of a point, or of shared work."""
    bad = [stage for stage in one.stages if {stage.reference, stage.new} != {COMPLETED}]
    worst = [out for out in one.outputs if out.verdict is one.verdict]
    if one.verdict is Verdict.IDENTICAL:
        return "the same bytes"
    if worst and one.verdict is not Verdict.INCOMPLETE:
        more = f"; and {len(worst) - 1} more" if len(worst) > 1 else ""
        return f"{worst[0].path}: {summarize(worst[0])}{more}"
    if one.new is not None and bad:
        why = f" ({bad[0].reason})" if bad[0].reason else ""
        return f"{bad[0].name} is {bad[0].reference} in the reference, {bad[0].new} now{why}"
    if worst:
        return f"{worst[0].path}: {summarize(worst[0])}"
    return "; ".join(one.notes[:1]) or "see below"


def _left_out(labels: Sequence[str]) -> Iterator[str]:
    if labels:
        shown = ", ".join(map(code, labels[:MANY]))
        more = f", and {len(labels) - MANY} more" if len(labels) > MANY else ""
        yield f"Not asked for, and not in this verdict: {shown}{more}."


def _sweeps(comparison: SweepComparison) -> str:
    a, b = comparison.reference, comparison.new
    rows = [
        ("sweep", a.sweep_id, b.sweep_id),
        ("made", f"{a.created_utc} by valska {a.valska_version}",
         f"{b.created_utc} by valska {b.valska_version}"),
        ("seal of what points share", a.seal[:SHORT], b.seal[:SHORT]),
        ("software", *((one.software or "of the host")[:SHORT] for one in (a, b))),
        ("directory", a.place, b.place),
    ]  # fmt: skip
    return table(("", "reference", "new sweep"), rows)


def _points(points: Sequence[UnitComparison]) -> Iterator[str]:
    others = [one for one in points if one.verdict is not Verdict.IDENTICAL]
    same = [one for one in points if one.verdict is Verdict.IDENTICAL]
    shown = {id(one) for one in (*others, *same[:ROWS])}
    rows = [
        (code(one.label), text(describe_values(one)), one.verdict.value)
        for one in points
        if id(one) in shown
    ]
    yield table(("point", "values", "verdict"), rows, escaped=True)
    if len(same) > ROWS:
        yield f"{len(same) - ROWS} more are identical; comparison.json has them all."


def _shared(shared: Sequence[UnitComparison]) -> Iterator[str]:
    if shared:
        yield "## Work that points share"
        rows = [(code(one.label), one.verdict.value) for one in shared]
        yield table(("work", "verdict"), rows, escaped=True)


def _details(units: Sequence[UnitComparison]) -> Iterator[str]:
    bad = [one for one in units if one.verdict is not Verdict.IDENTICAL]
    for one in bad[:MANY]:
        yield f"## {code(one.place)}: {one.verdict.value}"
        yield from _stages(one)
        if one.outputs:
            yield from outputs_blocks(one.outputs)
        if one.notes:
            yield "\n".join(f"- {text(note)}" for note in one.notes)
    if len(bad) > MANY:
        yield f"{len(bad) - MANY} more are in comparison.json."


def _stages(one: UnitComparison) -> Iterator[str]:
    bad = [stage for stage in one.stages if {stage.reference, stage.new} != {COMPLETED}]
    if bad:
        rows = [(stage.name, stage.reference, stage.new, stage.reason) for stage in bad]
        yield table(("stage", "reference", "new sweep", "why"), rows)
