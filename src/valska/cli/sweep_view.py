"""How the status of a sweep is shown: points by stages, counts, failures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from valska.cli.output import plain, styled, table
from valska.cli.progress import COLOURS
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.status import NEVER_STARTED, StageState, StageStatus
from valska.external_tools.core.sweep.document import PointEntry, SweepManifest
from valska.external_tools.core.sweep.following.status import SHARED, SweepStatus
from valska.external_tools.core.sweep.layout import Sweep

MANY = 50
"""More points than these are only counted, but for those that are not completed."""

_FIELDS = tuple(StageStatus.__dataclass_fields__)
_FAILED = "failed"


def select(status: SweepStatus, only: Sequence[str]) -> list[str]:
    """Return the labels that the values of ``--only`` pick, in the order of the points.

    Raises
    ------
    UsageError
        If a value is neither ``failed`` nor fits a label.
    """
    labels = list(status.points)
    if not only:
        return labels
    picked: set[str] = set()
    for word in only:
        if word == _FAILED:
            picked |= {label for label, _ in status.failures()}
            continue
        fitting = {label for label in labels if fnmatchcase(label, word)}
        if not fitting:
            raise UsageError(
                f"no point of this sweep fits {word!r}", "Name a label, a pattern, or `failed`."
            )
        picked |= fitting
    return [label for label in labels if label in picked]


def text(status: SweepStatus, labels: Sequence[str], everything: bool) -> str:
    """Return the tables of a sweep's status.

    Parameters
    ----------
    status
        The status.
    labels
        The points to show.
    everything
        Whether all of them are shown, however many there are.
    """
    return "\n".join(_blocks(status, labels, everything))


def _blocks(status: SweepStatus, labels: Sequence[str], everything: bool) -> Iterator[str]:
    shown, left_out = _shown(status, labels, everything)
    if shown:
        rows = [(label, *map(_cell, status.points[label].values())) for label in shown]
        yield table(rows, ("point", *status.stages))
    if left_out:
        yield left_out
    yield ("\n" if shown or left_out else "") + table(_counts(status), _count_header(status))
    failures = _failures(status, set(labels))
    if failures:
        few = failures if everything else failures[:MANY]
        yield "\n" + table(few, ("failed", "stage", "state", "log", "reason"))
    if len(failures) > MANY and not everything:
        yield f"… and {len(failures) - MANY} more; --all shows them."


def as_json(
    sweep: Sweep, manifest: SweepManifest, status: SweepStatus, labels: Iterable[str]
) -> str:
    """Return a sweep's status as JSON, one point a line: with indents 10,000 would take seconds."""
    head = {
        "sweep": os.fspath(sweep.path),
        "tool": manifest.tool,
        "sweep_id": manifest.sweep_id,
        "state": status.state.value,
        "stages": status.stages,
        "counts": status.counts,
        "notes": status.notes,
        "shared": {label: _fields(one) for label, one in status.shared.items()},
    }
    known = manifest.by_label()
    points = [_text(_point_json(known[label], status)) for label in labels]
    fields = [f'  "{name}": {_text(value)},' for name, value in head.items()]
    return "\n".join(["{", *fields, '  "points": [', "    " + ",\n    ".join(points), "  ]", "}"])


def _point_json(point: PointEntry, status: SweepStatus) -> dict[str, Any]:
    return {
        "label": point.label,
        "values": point.values,
        "perturbations": point.perturbations,
        "bundle_id": point.bundle_id,
        "shared": point.shared,
        "state": status.state_of(point.label).value,
        "stages": {stage: _fields(one) for stage, one in status.points[point.label].items()},
    }


def _fields(status: StageStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in _FIELDS}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=os.fspath)


def _shown(
    status: SweepStatus, labels: Sequence[str], everything: bool
) -> tuple[Sequence[str], str]:
    if everything or len(labels) <= MANY:
        return labels, ""
    failed = {label for label, _ in status.failures()}
    open_ones = [label for label in labels if not _done(status, label)]
    ordered = [label for label in open_ones if label in failed]
    ordered += [label for label in open_ones if label not in failed]
    done = len(labels) - len(open_ones)
    words = [f"{done} completed"] if done else []
    words += [f"{len(ordered) - MANY} more not completed"] if len(ordered) > MANY else []
    return ordered[:MANY], f"… and {' and '.join(words)}; --all shows them." if words else ""


def _done(status: SweepStatus, label: str) -> bool:
    return all(one.state is StageState.COMPLETED for one in status.points[label].values())


def _cell(status: StageStatus) -> str:
    return styled(status.state.value, fg=COLOURS.get(status.state, "red"))


def _states(status: SweepStatus) -> list[StageState]:
    found = {state for of_stage in status.counts.values() for state in of_stage}
    return [state for state in StageState if state in found]


def _count_header(status: SweepStatus) -> tuple[str, ...]:
    return ("stage", *(state.value for state in _states(status)), "points")


def _counts(status: SweepStatus) -> list[tuple[str, ...]]:
    states = _states(status)
    return [
        (
            stage,
            *(str(of_stage.get(state, "-")) for state in states),
            str(sum(of_stage.values())),
        )
        for stage, of_stage in status.counts.items()
    ]


def _failures(status: SweepStatus, labels: set[str]) -> list[tuple[str, ...]]:
    """Return a row for each unit and stage that failed by itself."""
    return [
        (
            who,
            one.stage,
            styled(one.state.value, fg=COLOURS.get(one.state, "red")),
            plain(one.log or "-"),
            plain(one.reason or ""),
        )
        for who, one in status.failed_units()
        if (who in labels or who.startswith(f"{SHARED}/"))
        and not (one.reason or "").startswith(NEVER_STARTED)
    ]
