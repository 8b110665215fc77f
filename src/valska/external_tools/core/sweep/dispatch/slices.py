"""From points to job arrays: what is to be sent, what it waits for, and in which slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import StageEntry
from valska.external_tools.core.status import StageState, StageStatus
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.sweep.dispatch.jobsfile import ArrayEntry
from valska.external_tools.core.sweep.document import PointEntry, SharedEntry, SweepManifest
from valska.external_tools.core.sweep.following.status import SweepStatus

Pairs = tuple[tuple[str, str], ...]


class Kind(StrEnum):
    """Which stages of a unit are to be sent."""

    MISSING = "missing"
    """Never sent."""
    FAILED = "failed"
    """Ended without success."""
    COMPLETED = "completed"
    """Ended with success."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a sweep is to be sent.

    Parameters
    ----------
    labels
        Points.
    stages
        Stages, in the manifest's order.
    kinds
        In which state a stage must be.
    scheduler
        Name of the scheduler that will have it.
    found
        Place and stage of what an interrupted submit had sent already; once is enough.
    """

    labels: tuple[str, ...]
    stages: tuple[str, ...]
    kinds: frozenset[Kind]
    scheduler: str
    found: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be sent of one unit.

    Parameters
    ----------
    place, seal
        Which unit.
    stages
        Its stages, in order; each waits for those before it that it comes after.
    after
        Pairs of a stage and the place of shared work, sent now too, that it waits for.
    afterok
        Pairs of a stage and the id of a task, sent earlier, that it waits for.
    corresponding
        Pairs of a stage and the id of an array, sent earlier: it waits for the task of its index.
    line
        List and index that it has in that array.
    """

    place: str
    seal: str
    stages: tuple[str, ...]
    after: Pairs = ()
    afterok: Pairs = ()
    corresponding: Pairs = ()
    line: tuple[str, int] | None = None

    @property
    def alike(self) -> tuple[object, ...]:
        """What all units of an array have in common."""
        name = self.line[0] if self.line else None
        return (self.stages, self.after, self.afterok, self.corresponding, name)


@dataclass(slots=True)
class WorkPlan:
    """What is to be sent of a sweep, and what is not.

    Parameters
    ----------
    works
        Shared work first.
    completed, live
        How many stages of units are left alone since they are so.
    blocked
        Place and stage to the reason why it cannot be sent.
    altered
        Whether a unit cannot be sent since it is not as it was made.
    """

    works: list[Work] = field(default_factory=list)
    completed: int = 0
    live: int = 0
    blocked: dict[tuple[str, str], str] = field(default_factory=dict)
    altered: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """Units that are sent as one array per stage.

    Parameters
    ----------
    stages
        The stages that are sent.
    works
        The units.
    left_out
        Stages that do not fit.
    """

    stages: tuple[str, ...]
    works: tuple[Work, ...]
    left_out: tuple[str, ...] = ()


def choose_labels(manifest: SweepManifest, only: Sequence[str]) -> tuple[str, ...]:
    """Return the points that labels and patterns of labels name; all, if there are none.

    Raises
    ------
    UsageError
        If one fits no point.
    """
    labels = [point.label for point in manifest.points]
    if not only:
        return tuple(labels)
    known, picked = set(labels), set[str]()
    for word in only:
        fitting = {word} if word in known else {one for one in labels if fnmatchcase(one, word)}
        if not fitting:
            raise UsageError(
                f"no point of this sweep fits {word!r}",
                did_you_mean(word, labels) or "`valska status` lists its points.",
            )
        picked |= fitting
    return tuple(label for label in labels if label in picked)


def plan_work(
    manifest: SweepManifest,
    stages: Sequence[StageEntry],
    status: SweepStatus,
    arrays: Iterable[ArrayEntry],
    choice: Choice,
) -> WorkPlan:
    """Find out what is to be sent of a sweep, and what each part of it waits for.

    Parameters
    ----------
    manifest, stages
        The sweep's.
    status
        What became of the chosen points so far.
    arrays
        All arrays that were sent.
    choice
        What is asked for.
    """
    return _Planner(manifest, stages, status, arrays, choice).plan()


def cut_slices(works: Sequence[Work], largest: int | None) -> Iterator[Slice]:
    """Yield the slices of units, in order, with no more units than a scheduler takes."""
    groups: dict[tuple[object, ...], list[Work]] = {}
    for work in works:
        groups.setdefault(work.alike, []).append(work)
    for group in groups.values():
        size = largest or len(group)
        for start in range(0, len(group), size):
            yield Slice(group[0].stages, tuple(group[start : start + size]))


def fit(piece: Slice, room: int | None, split: bool) -> tuple[Slice | None, Slice | None]:
    """Return the part of a slice for which there is room, and the rest.

    Parameters
    ----------
    piece
        The slice.
    room
        How many tasks fit; None for any number.
    split
        Whether the first stages of a point may be sent alone, where not all of them fit.
    """
    if room is None or len(piece.stages) * len(piece.works) <= room:
        return piece, None
    count = room // len(piece.stages)
    if count:
        return Slice(piece.stages, piece.works[:count]), Slice(piece.stages, piece.works[count:])
    if not split or room <= 0:
        return None, piece
    first = Slice(piece.stages[:room], piece.works[:1], piece.stages[room:])
    return first, Slice(piece.stages, piece.works[1:]) if piece.works[1:] else None


class _Planner:
    def __init__(
        self,
        manifest: SweepManifest,
        stages: Sequence[StageEntry],
        status: SweepStatus,
        arrays: Iterable[ArrayEntry],
        choice: Choice,
    ) -> None:
        self._manifest = manifest
        self._stages = {stage.name: stage for stage in stages}
        self._status = status
        self._arrays = {array.job_id: array for array in arrays if array.job_id}
        self._choice = choice
        self._found = WorkPlan()
        self._sent_now: set[str] = set()
        self._users: dict[str, list[PointEntry]] = {}
        for point in manifest.points:
            for label in point.shared.values():
                self._users.setdefault(label, []).append(point)

    def plan(self) -> WorkPlan:
        known = self._manifest.by_label()
        points = [known[label] for label in self._choice.labels]
        used = {label for point in points for label in point.shared.values()}
        for entry in self._manifest.shared:
            if entry.label in used and entry.stage in self._choice.stages:
                self._shared(entry)
        for point in points:
            self._point(point)
        return self._found

    def _shared(self, entry: SharedEntry) -> None:
        status = self._status.shared[entry.label]
        if self._wanted(entry.place, status) and not self._used_now(entry):
            self._sent_now.add(entry.place)
            self._found.works.append(Work(entry.place, entry.seal, (entry.stage,)))

    def _used_now(self, entry: SharedEntry) -> bool:
        """Refuse to run shared work again while something uses it."""
        if Kind.COMPLETED not in self._choice.kinds:
            return False
        later = self._descendants([entry.stage])
        for point in self._users[entry.label]:
            row = self._status.points[point.label]
            for name in later:
                if row[name].may_run:
                    self._block(entry.place, entry.stage, _used(name, row[name], point.label))
                    return True
        return False

    def _point(self, point: PointEntry) -> None:
        row = self._status.points[point.label]
        own = [name for name in self._choice.stages if name not in point.shared]
        chosen = [name for name in own if self._wanted(point.place, row[name])]
        links = _Links(self._arrays)
        sent: list[str] = []
        for name in chosen:
            reason = self._user(point, name, chosen, row) or self._wait(
                point, name, sent, row, links
            )
            if reason:
                self._block(point.place, name, reason)
            else:
                sent.append(name)
        if sent:
            self._found.works.append(links.work(point.place, point.seal, tuple(sent)))

    def _wanted(self, place: str, status: StageStatus) -> bool:
        """Return whether a stage is to be sent, and count why not."""
        kinds = self._choice.kinds
        if status.state is StageState.NOT_SUBMITTED:
            return Kind.MISSING in kinds
        if status.state is StageState.UNKNOWN and (status.may_run or Kind.COMPLETED not in kinds):
            what = (
                "whether it still runs is not known" if status.may_run else "its end is not clear"
            )
            self._block(place, status.stage, f"{what}: {status.reason}")
            return False
        if status.may_run:
            self._found.live += 1
            return False
        if status.state is StageState.COMPLETED:
            self._found.completed += 1
            return Kind.COMPLETED in kinds and (place, status.stage) not in self._choice.found
        return Kind.FAILED in kinds

    def _user(
        self,
        point: PointEntry,
        name: str,
        chosen: Sequence[str],
        row: Mapping[str, StageStatus],
    ) -> str | None:
        """Return why a stage must not run again: something that is live uses its outputs."""
        for other in self._descendants([name]):
            if other not in chosen and other not in point.shared and row[other].may_run:
                return _used(other, row[other], point.label)
        return None

    def _wait(
        self,
        point: PointEntry,
        name: str,
        sent: Sequence[str],
        row: Mapping[str, StageStatus],
        links: _Links,
    ) -> str | None:
        """Find what a stage waits for; return why it cannot."""
        for parent in self._stages[name].after:
            shared = point.shared.get(parent)
            if shared and f"shared/{shared}" in self._sent_now:
                links.after.append((name, f"shared/{shared}"))
                continue
            status = row[parent]
            if parent in sent or status.state is StageState.COMPLETED:
                continue
            if not (status.state.live and status.job_id):
                return f"it needs {parent}, which is {_said(status)}"
            if status.scheduler != self._choice.scheduler:
                return f"it cannot wait for {parent}, which {self._choice.scheduler} does not know"
            if shared:
                links.afterok.append((name, status.job_id))
            else:
                links.own.append((name, status.job_id))
        return None

    def _descendants(self, names: Sequence[str]) -> list[str]:
        chosen = set(names)
        for stage in self._stages.values():
            if chosen.intersection(stage.after):
                chosen.add(stage.name)
        return [name for name in self._stages if name in chosen and name not in names]

    def _block(self, place: str, stage: str, reason: str) -> None:
        self._found.blocked[place, stage] = reason


class _Links:
    """Collects what the stages of one unit wait for."""

    def __init__(self, arrays: Mapping[str, ArrayEntry]) -> None:
        self._arrays = arrays
        self.after: list[tuple[str, str]] = []
        self.afterok: list[tuple[str, str]] = []
        self.own: list[tuple[str, str]] = []

    def work(self, place: str, seal: str, stages: tuple[str, ...]) -> Work:
        """Return the unit's work; tasks of one list are waited for array by array."""
        kept = [(name, job_id) for name, job_id in self.own if name in stages]
        split = [(name, *job_id.partition("_")[::2]) for name, job_id in kept]
        lines = {
            (self._arrays[base].list, int(index)) if base in self._arrays and index else None
            for _, base, index in split
        }
        line = lines.pop() if len(lines) == 1 else None
        return Work(
            place,
            seal,
            stages,
            tuple(self.after),
            tuple(self.afterok) + (() if line else tuple(kept)),
            tuple((name, base) for name, base, _ in split) if line else (),
            line,
        )


def _used(name: str, status: StageStatus, label: str) -> str:
    return f"{name} of {label} (job {status.job_id}) uses it and is {status.state}"


def _said(status: StageStatus) -> str:
    return f"{status.state} ({status.reason})" if status.reason else str(status.state)
