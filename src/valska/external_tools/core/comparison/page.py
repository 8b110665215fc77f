"""The page of a comparison: what a person reads of it, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from valska.external_tools.core.comparison.intent import Difference
from valska.external_tools.core.comparison.runs import Comparison
from valska.external_tools.core.comparison.verdict import (
    OutputComparison,
    Part,
    Tolerances,
    Verdict,
)
from valska.external_tools.core.comparison.written import COMPLETED

if TYPE_CHECKING:
    from valska.external_tools.core.comparison.sweeps import SweepComparison

FILE_NAME = "comparison.md"

_SAID = {
    Verdict.IDENTICAL: "Every output of the new run has the same bytes as the reference's.",
    Verdict.EQUIVALENT: "The new run gives the same science as the reference, within the "
    "tolerances below. Some bytes differ; what differs, and why it does not count, is said below.",
    Verdict.DIFFERENT: "The new run does not give the answer of the reference.",
    Verdict.INCOMPLETE: "The two runs cannot be compared as a whole: something is missing.",
}
SHORT = 12
"""Characters of a digest that are shown."""
MANY = 40
"""So many things of one kind are shown."""


def render_page(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    blocks = [
        f"# Verdict: {comparison.verdict.value}",
        _SAID[comparison.verdict],
        *_stages(comparison),
        "## Outputs",
        *outputs_blocks(comparison.outputs),
        *notes_blocks(comparison.notes),
        "## What the two runs were to do",
        intent_text(comparison.intent),
        _runs(comparison),
        *last_blocks(comparison.verdict, comparison.tolerances),
        signature(comparison),
    ]
    return "\n\n".join(blocks) + "\n"


def last_blocks(verdict: Verdict, tolerances: Tolerances) -> Iterator[str]:
    """Yield the tolerances, where they decided something."""
    if verdict is not Verdict.IDENTICAL:
        yield "## Tolerances"
        yield describe_tolerances(tolerances)


def signature(comparison: Comparison | SweepComparison) -> str:
    """Return the last line of a page: when and by what it was made."""
    return (
        f"Compared by valska {comparison.valska_version} at {comparison.created_utc}. The same "
        "for programs: `comparison.json`."
    )


def describe_tolerances(tolerances: Tolerances) -> str:
    """Return the tolerances as a sentence."""
    relative = (
        f"rtol is {tolerances.relative:g}"
        if tolerances.rtol is not None
        else f"rtol is {tolerances.relative:g}, or 0 where the tool asks for the same numbers"
    )
    return (
        "A number b agrees with the reference's a if |b - a| ≤ atol + rtol·|a|: "
        f"{relative}, atol is {tolerances.atol:g}. Whole numbers, flags and words have to be the "
        f"same. Statistical results may differ by {tolerances.sigma:g} standard errors."
    )


def summarize(one: OutputComparison) -> str:
    """Return the one sentence that says most of an output."""
    if one.verdict is Verdict.IDENTICAL:
        return "the same bytes"
    counted = [part for part in one.parts if part.counted and part.verdict is one.verdict]
    told = [f"{part.name}: {part.detail}" for part in counted if part.detail]
    aside = [f"{part.name}: {part.detail}" for part in one.parts if not part.counted]
    statistics = [part for part in counted if part.sigma is not None]
    if one.verdict is Verdict.EQUIVALENT and statistics:
        far = max(statistics, key=lambda part: part.sigma or 0.0)
        return (
            f"{len(statistics)} statistical results agree; the furthest apart, {far.name}, by "
            f"{far.sigma:.1f} standard errors"
        )
    if one.verdict is Verdict.EQUIVALENT and not told and aside:
        told = [f"only what does not count differs ({'; '.join(aside)})"]
    return "; ".join(told[:3] or list(one.notes[:1]) or ["see below"])


def _runs(comparison: Comparison) -> str:
    a, b = comparison.reference, comparison.new
    same = "the same" if a.bundle_id == b.bundle_id else "not the same"
    rows = [
        ("run", a.run_id, b.run_id),
        ("made", f"{a.created_utc} by valska {a.valska_version}",
         f"{b.created_utc} by valska {b.valska_version}"),
        (f"bundle id ({same})", a.bundle_id[:SHORT], b.bundle_id[:SHORT]),
        ("seal", a.seal[:SHORT], b.seal[:SHORT]),
        ("software", *((one.software or "of the host")[:SHORT] for one in (a, b))),
        ("directory", a.place, b.place),
    ]  # fmt: skip
    return table(("", "reference", "new run"), rows)


def _stages(comparison: Comparison) -> Iterator[str]:
    bad = [one for one in comparison.stages if (one.reference, one.new) != (COMPLETED, COMPLETED)]
    if bad:
        yield "## Stages that have not completed"
        rows = [(one.name, one.reference, one.new, one.reason) for one in bad]
        yield table(("stage", "reference", "new run", "why"), rows)


def outputs_blocks(outputs: Sequence[OutputComparison], level: str = "###") -> Iterator[str]:
    """Yield all that was found of outputs that are not identical, and the names of the others."""
    if not outputs:
        yield "There are none."
    others = [one for one in outputs if one.verdict is not Verdict.IDENTICAL]
    yield from (_details(one, level) for one in others[:MANY])
    if len(others) > MANY:
        yield f"{len(others) - MANY} more are in comparison.json."
    same = [code(one.path) for one in outputs if one.verdict is Verdict.IDENTICAL]
    if same:
        yield f"The same bytes: {_listed(same)}."


def _details(one: OutputComparison, level: str) -> str:
    lines = [f"{level} {code(one.path)}: {one.verdict.value} (compared as {one.method})", ""]
    same = [text(part.name) for part in one.parts if part.verdict is Verdict.IDENTICAL]
    lines += [f"- {text(_told(p))}" for p in one.parts if p.verdict is not Verdict.IDENTICAL]
    lines += [f"- the same: {_listed(same)}"] if same else []
    lines += [f"- {text(note)}" for note in one.notes]
    lines += [f"- judged with it: {_listed(list(map(code, one.covers)))}"] if one.covers else []
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - MANY} more" if len(names) > MANY else ""
    return f"{', '.join(names[:MANY])}{more}"


def _told(part: Part) -> str:
    how = part.verdict.value if part.counted else "not counted"
    return f"{part.name} ({how}): {part.detail}" if part.detail else f"{part.name} ({how})"


def intent_text(differences: Sequence[Difference]) -> str:
    """Return what the two were not both to do."""
    if not differences:
        return "The same: parameters, inputs, commands, software, directives and versions agree."
    rows = [
        (one.kind.value, one.key, one.a or "none", one.b or "none", "yes" if one.science else "no")
        for one in differences[:MANY]
    ]
    shown = table(("what", "which", "reference", "new run", "changes the science"), rows)
    more = len(differences) - MANY
    return f"{shown}\n\n{more} more are in comparison.json." if more > 0 else shown


def notes_blocks(notes: Iterable[str]) -> Iterator[str]:
    """Yield the notes below a heading, if there are any."""
    listed = [f"- {text(note)}" for note in notes]
    if listed:
        yield "## Notes"
        yield "\n".join(listed)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], escaped: bool = False) -> str:
    """Return a table; its cells are words, or Markdown if they are `escaped` already."""
    lines = [_row(head), _row(["---"] * len(head))]
    lines += [_row(row if escaped else [text(cell) for cell in row]) for row in rows]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text(value: str) -> str:
    """Return words as Markdown shows them: on one line, and nothing in them a command."""
    plain = "".join(c if c.isprintable() else " " for c in value)
    for mark in "\\`*_[]<>|":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def code(value: str) -> str:
    """Return a name as code, whatever it holds."""
    plain = "".join(c if c.isprintable() else " " for c in value).replace("|", "\\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"
