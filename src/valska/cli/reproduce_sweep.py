"""``valska reproduce`` on a sweep."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from valska.cli.output import note, plain, result, result_json, table
from valska.cli.quantities import count_text
from valska.cli.reproduce import print_rehearsal, rehearsed
from valska.cli.verdicts import shown
from valska.external_tools.core.comparison.document import to_json
from valska.external_tools.core.comparison.sweep_page import (
    count_verdicts,
    describe_values,
    summarize_unit,
)
from valska.external_tools.core.comparison.sweeps import SweepComparison
from valska.external_tools.core.comparison.verdict import Verdict
from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.reproduction.reference import LocatedSweep
from valska.external_tools.core.reproduction.running import Reproduction
from valska.external_tools.core.reproduction.sweep_reference import open_sweep_parent
from valska.external_tools.core.reproduction.sweep_running import (
    MadeSweep,
    SweepWish,
    conclude_sweep,
    earlier_sweep,
    follow_sweep,
    make_sweep,
    require_any_outputs,
    send,
)
from valska.external_tools.core.reproduction.taking import unpacked_only_if_usable
from valska.external_tools.core.sweep.dispatch.submission import SweepSubmission
from valska.external_tools.core.sweep.following.status import SweepStatus

if TYPE_CHECKING:
    from valska.cli.reproduce import Given

_SHOWN = 20
"""So many points that are not identical are named."""


def reproduce(
    located: LocatedSweep,
    place: Reproduction,
    settings: Settings,
    given: Given,
) -> None:
    """Make a sweep again, or some points of it; see ``valska reproduce``."""
    parent = open_sweep_parent(located, settings.images, given.only)
    with unpacked_only_if_usable(place.reference, given.fresh):
        require_any_outputs(parent)
    for label, why in list(parent.missing.items())[:_SHOWN]:
        note(f"Without point {plain(label)}: {plain(why)}.")
    wish = SweepWish(parent, given.wish(parent.common, place, settings))
    if given.dry_run:
        _rehearse(wish, given)
        return
    made = make_sweep(wish)
    note(f"The new sweep: {made.side.sweep.path}")
    sent = send(wish, made)
    _tell_unsent(sent)
    if not given.waits:
        _leave(made, given.as_json)
        return
    _conclude(wish, made, sent, given)


def _rehearse(wish: SweepWish, given: Given) -> None:
    parent, whole = wish.parent, wish.whole
    there = earlier_sweep(wish)
    image, rows = rehearsed(whole, given, there is not None)
    if given.as_json:
        result_json(
            {
                **given.told(whole),
                "sweep": whole.place.sweep.path,
                "parent": parent.side.manifest.common_seal,
                "points": [point.label for point in parent.points],
                "missing": dict(parent.missing),
                "image": image,
                "stages": [one.name for one in parent.side.common.stages],
            }
        )
        return
    named = given.archive or parent.sweep.path
    print_rehearsal(
        [
            ("sweep", f"{whole.place.sweep.path}{', which is there' if there else ''}"),
            ("parent", f"{named} ({parent.side.manifest.common_seal[:12]})"),
            ("points", _first([point.label for point in parent.points])),
            *rows,
        ]
    )


def _first(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more


def _tell_unsent(sent: SweepSubmission) -> None:
    for (place, stage), why in list(sent.blocked.items())[:_SHOWN]:
        note(f"Not sent: {stage} of {plain(place)}: {plain(why)}")
    if sent.unsent:
        counts = ", ".join(f"{stage} {number}" for stage, number in sent.unsent.items())
        note(f"No room yet for {counts}: {plain(sent.why_unsent or '')}")


def _leave(made: MadeSweep, as_json: bool) -> None:
    side = made.side
    if as_json:
        result_json({"sweep": side.sweep.path, "points": len(side.manifest.points),
                     "parent": side.common.parent, "verdict": None})  # fmt: skip
        return
    result(str(side.sweep.path))
    note("It runs. The same command without --no-wait waits for it and compares.")


def _conclude(wish: SweepWish, made: MadeSweep, sent: SweepSubmission, given: Given) -> None:
    try:
        ended = follow_sweep(wish, made, sent, _Teller().tell, time.sleep)
    except KeyboardInterrupt:
        note("The jobs go on. The same command again waits for them and compares.")
        raise
    found = conclude_sweep(wish, made, ended, given.tolerances)
    place = wish.whole.place
    if given.as_json:
        result_json(to_json(found))
    else:
        note(f"Written: {place.document} and {place.page}")
        print_sweep_comparison(found)
    require_same_sweep(found, place.page)


class _Teller:
    """Tells each change in how many points have come how far."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def tell(self, status: SweepStatus) -> None:
        """Say what is new."""
        for stage, counts in status.counts.items():
            text = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
            if self._told.get(stage) != text:
                self._told[stage] = text
                note(f"{stage}: {text}")


def print_sweep_comparison(comparison: SweepComparison) -> None:
    """Print a line for each point and shared work that is not identical, and the verdict last."""
    units = (*comparison.shared, *comparison.points)
    others = [one for one in units if one.verdict is not Verdict.IDENTICAL]
    if others:
        rows = [
            (plain(one.label), plain(describe_values(one)), shown(one.verdict),
             plain(summarize_unit(one)))
            for one in others[:_SHOWN]
        ]  # fmt: skip
        result(table(rows, ("point", "values", "verdict", "what")))
    if len(others) > _SHOWN:
        note(f"{len(others) - _SHOWN} more are not identical.")
    note(count_verdicts(comparison.points))
    if comparison.left_out:
        note(f"Not asked for: {count_text(len(comparison.left_out), 'point')} of the reference.")
    for text in comparison.notes:
        note(f"Note: {plain(text)}")
    result(shown(comparison.verdict))


def require_same_sweep(comparison: SweepComparison, page: Path | None) -> None:
    """End with exit code 5 if a point did not give the same answer.

    Raises
    ------
    VerificationError
        If one did not.
    """
    if comparison.verdict.holds:
        return
    bad = [one for one in comparison.points if not one.verdict.holds]
    first = next((one for one in bad if one.verdict is comparison.verdict), None)
    told = f": {plain(first.label)}: {plain(summarize_unit(first))}" if first else ""
    of = f"{len(bad)} of {count_text(len(comparison.points), 'point')}"
    raise VerificationError(
        f"the new sweep is {comparison.verdict.value}, {of}{told}",
        f"{page} says what, where and by how much." if page else "-o DIR writes a page of it.",
    )
