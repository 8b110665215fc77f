"""From a slice of a sweep to its list and its job arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from valska.external_tools.core.manifest import StageEntry
from valska.external_tools.core.scheduler import JobRequest, Scheduler, job_name
from valska.external_tools.core.sweep.dispatch.jobsfile import ArrayEntry
from valska.external_tools.core.sweep.dispatch.slices import Slice, Work
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import sha256_bytes, write_atomic


@dataclass(frozen=True, slots=True)
class SliceList:
    """The list of a slice.

    Parameters
    ----------
    place
        Where it lies in the sweep.
    sha256
        Its digest.
    tasks
        The lines of it that the slice has, from 0.
    text
        Its content, if it is new; None for that of arrays sent earlier.
    """

    place: str
    sha256: str
    tasks: tuple[int, ...]
    text: bytes | None

    def write(self, sweep: Sweep) -> None:
        """Write a new list, so that a crash leaves all of it or nothing."""
        if self.text is not None:
            sweep.arrays.mkdir(exist_ok=True)
            write_atomic(sweep.path / self.place, self.text)

    def remove(self, sweep: Sweep) -> None:
        """Remove a new list that nothing was sent with."""
        if self.text is not None:
            (sweep.path / self.place).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """A slice as it can be sent: its list, and one array per stage."""

    piece: Slice
    listed: SliceList
    requests: tuple[JobRequest, ...]

    @property
    def tasks(self) -> int:
        """How many tasks that is."""
        return len(self.requests) * len(self.piece.works)


@dataclass(slots=True, kw_only=True)
class Drafter:
    """Makes drafts of slices, in the order in which they are sent.

    Parameters
    ----------
    sweep, scheduler, token
        Of the submission.
    stages
        The sweep's stages by name.
    earlier
        Returns the arrays that were sent so far.
    throttle, extra, resume
        See `submit_sweep`.
    tasks_of
        Place of shared work that was sent now to the id of its task.
    """

    sweep: Sweep
    scheduler: Scheduler
    token: str
    stages: Mapping[str, StageEntry]
    earlier: Callable[[], Sequence[ArrayEntry]]
    throttle: int | None
    extra: tuple[str, ...]
    resume: bool
    tasks_of: dict[str, str] = field(default_factory=dict)
    _number: int = 0

    def draft(self, piece: Slice) -> Draft:
        """Return the list and the arrays of a slice."""
        listed = self._list(piece.works)
        requests = tuple(self._request(piece, name, listed) for name in piece.stages)
        self._number += 1
        return Draft(piece, listed, requests)

    def sent(self, draft: Draft, id_of: Callable[[JobRequest], str]) -> None:
        """Note by which ids others wait for the shared work of a slice."""
        folder = f"{self.sweep.shared.name}/"
        for request in draft.requests:
            for work, index in zip(draft.piece.works, draft.listed.tasks, strict=True):
                if work.place.startswith(folder):
                    self.tasks_of[work.place] = f"{id_of(request)}_{index}"

    def missing(self, piece: Slice) -> str | None:
        """Return shared work that a slice waits for and that was not sent."""
        needed = (place for work in piece.works for _, place in work.after)
        return next((place for place in needed if place not in self.tasks_of), None)

    def _list(self, works: Sequence[Work]) -> SliceList:
        lines = [work.line for work in works if work.line]
        if lines:
            name = lines[0][0]
            digest = next(one.list_sha256 for one in self.earlier() if one.list == name)
            return SliceList(name, digest, tuple(index for _, index in lines), None)
        sums = self.sweep.bundle.sums.name
        text = "".join(f"{work.seal}  {work.place}/{sums}\n" for work in works).encode()
        place = f"{self.sweep.arrays.name}/{self.token}-{self._number}.sums"
        return SliceList(place, sha256_bytes(text), tuple(range(len(works))), text)

    def _request(self, piece: Slice, name: str, listed: SliceList) -> JobRequest:
        stage, work = self.stages[name], piece.works[0]
        directives = {**stage.directives, **options(self.extra)}
        goes_on = ["--resume"] if self.resume and stage.resume else []
        shared = [self.tasks_of[place] for place in _of(name, work.after)]
        return JobRequest(
            stage=name,
            name=f"{job_name(self.token, name)}.{self._number}",
            script=stage.script,
            args=(listed.sha256, listed.place, *goes_on),
            dependency=(*_of(name, work.afterok), *shared),
            extra=self.extra,
            directives=directives,
            cluster=self._cluster(work, directives),
            job_id=self.scheduler.reserve(),
            tasks=listed.tasks,
            throttle=self.throttle,
            after_each=tuple(parent for parent in stage.after if parent in piece.stages),
            corresponding=_of(name, work.corresponding),
        )

    def _cluster(self, work: Work, directives: Mapping[str, str]) -> str | None:
        if self.scheduler.name != "slurm":
            return None
        waits = {job_id.partition("_")[0] for _, job_id in (*work.corresponding, *work.afterok)}
        older = (one.cluster for one in self.earlier() if one.job_id in waits and one.cluster)
        return next(older, None) or directives.get("clusters")


def options(extra: Sequence[str]) -> dict[str, str]:
    """Return sbatch options by name."""
    pairs = (text.removeprefix("--").partition("=") for text in extra)
    return {name: value for name, _, value in pairs}


def _of(stage: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(value for name, value in pairs if name == stage)
