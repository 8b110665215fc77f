"""Slurm: sends scripts, asks about jobs, ends them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from valska.external_tools.core import process
from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.process import Completed, ProcessTimeoutError, Run
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobInfo,
    JobRef,
    JobRequest,
    JobState,
    SchedulerError,
    Watch,
)
from valska.external_tools.core.slurm import answers
from valska.external_tools.core.slurm import text as slurm_text
from valska.external_tools.core.slurm.limits import (
    Bound,
    Configuration,
    ask_limits,
)
from valska.external_tools.core.slurm.sending import (
    SBATCH_TIMEOUT_S,
    SlurmFullError,
    SlurmOutcomeError,
    one_line,
    send,
    submit_script,
)
from valska.external_tools.core.slurm.text import (
    JOBID_REGEX,
    SlurmSubmissionError,
    build_dependency_string,
    parse_job_id,
)

__all__ = [
    "JOBID_REGEX",
    "Slurm",
    "SlurmFullError",
    "SlurmOutcomeError",
    "SlurmSubmissionError",
    "build_dependency_string",
    "parse_job_id",
    "submit_script",
]

QUERY_TIMEOUT_S = 30.0
QUERY_TRIES = 4
SETTLE_S = 60.0
"""How long a job that Slurm may have taken is looked for before its fate is called unknown."""
IDS_PER_CALL = 5000
_CLOCK_MARGIN = timedelta(hours=1)

log = logging.getLogger(__name__)


class NoProgramError(SchedulerError):
    """One of Slurm's programs is not there."""


@dataclass(frozen=True, slots=True)
class Slurm:
    """The Slurm that ``sbatch`` on the PATH belongs to.

    Parameters
    ----------
    run
        Runs a program.
    environment
        The caller's environment; see `slurm_environment` for what Slurm sees of it.
    user
        Whose jobs are looked for by name: a number or a name.
    sbatch
        The sbatch program.
    settle_s
        See `SETTLE_S`.
    sleep, now
        The clock.
    """

    run: Run = process.run
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user: str = field(default_factory=lambda: str(os.getuid()))
    sbatch: str = "sbatch"
    settle_s: float = SETTLE_S
    sbatch_timeout_s: float = SBATCH_TIMEOUT_S
    query_timeout_s: float = QUERY_TIMEOUT_S
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def name(self) -> str:
        """``slurm``."""
        return "slurm"

    @property
    def program(self) -> str:
        """The sbatch program."""
        return self.sbatch

    def reserve(self) -> str | None:
        """Return None: Slurm gives an id only to a job that it took."""
        return None

    def commands(self, requests: Sequence[JobRequest]) -> tuple[tuple[str, ...], ...]:
        """Return the sbatch command of each request, ids to come as ``<stage>``."""
        ids = {request.stage: f"<{request.stage}>" for request in requests}
        return tuple(self._command(request, ids) for request in requests)

    def submit(self, bundle: Bundle, requests: Sequence[JobRequest], watch: Watch) -> None:
        """Send a chain; see `Scheduler.submit`."""
        ids: dict[str, str] = {}
        cluster: str | None = None
        for wanted in requests:
            request = replace(wanted, cluster=wanted.cluster or cluster)
            argv = self._command(request, ids)
            watch.sending(request, argv)
            ref = self._send(bundle, request, argv)
            watch.accepted(request, ref)
            ids[request.stage] = ref.job_id
            cluster = ref.cluster or cluster

    def find(
        self, bundle: Bundle, ref: JobRef | None, name: str, since: datetime
    ) -> JobInfo | None:
        """Look for a job of this user by name in squeue, then in sacct; see `Scheduler.find`.

        Where there is no accounting, a job that ended longer ago than Slurm's ``MinJobAge`` is
        not found: it is not there any more.
        """
        start = since - _CLOCK_MARGIN
        for cluster in self._clusters(ref):
            found = self._squeue(name=name, cluster=cluster)
            found = found or self._sacct(name=name, since=start, cluster=cluster) or {}
            named = [info for info in found.values() if info.name == name]
            if named:
                return replace(named[-1], job_id=answers.base_id(named[-1].job_id))
        return None

    def query(self, bundle: Bundle, refs: Sequence[JobRef]) -> Mapping[str, JobInfo]:
        """Ask about many jobs with one squeue and, for those not live, one sacct per cluster.

        The id of an array stands for all its tasks; each has an answer of its own, by its own id
        (``17_4``).
        """
        found: dict[str, JobInfo] = {}
        for cluster in dict.fromkeys(ref.cluster for ref in refs):
            of = {ref.job_id: ref.name for ref in refs if ref.cluster == cluster}
            ids = list(of)
            for start in range(0, len(ids), IDS_PER_CALL):
                found |= self._states(of, ids[start : start + IDS_PER_CALL], cluster)
        return found

    def cancel(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        """End jobs; see `Scheduler.cancel`. The id of an array stands for all its tasks.

        Jobs that wait go first, so that the end of a running one releases none of them.
        """
        live = self._live(bundle, refs)
        waiting = [ref for ref, states in live if JobState.PENDING in states]
        self._scancel(list(reversed(waiting)), "--state=PENDING")
        running = [ref for ref, _ in (self._live(bundle, refs) if waiting else live)]
        self._scancel(running, "--batch", "--signal=TERM")
        self._scancel(self._wait_for_end(bundle, running, grace_s))

    def limits(
        self, account: str | None = None, qos: str | None = None, cluster: str | None = None
    ) -> tuple[Configuration, list[Bound]]:
        """Ask how many tasks fit: in an array, and in the queue. What has no answer has no limit.

        Parameters
        ----------
        account, qos
            Those that the jobs name.
        cluster
            The cluster that is meant.
        """
        account = account or self.environment.get("SBATCH_ACCOUNT")
        qos = qos or self.environment.get("SBATCH_QOS")
        return ask_limits(self._said, self.user, account, qos, _on(cluster))

    def _said(self, argv: Sequence[str]) -> str:
        """Return what one of Slurm's programs prints; nothing if it fails."""
        try:
            done = self._ask(argv)
        except SchedulerError as error:
            log.info("%s", error.message)
            return ""
        return done.stdout if done.returncode == 0 else ""

    def _command(self, request: JobRequest, ids: Mapping[str, str]) -> tuple[str, ...]:
        return slurm_text.sbatch_argv(
            request.script,
            sbatch=self.sbatch,
            name=request.name,
            dependency=slurm_text.dependency_of(request, ids),
            cluster=request.cluster,
            extra=request.extra,
            args=request.args,
            tasks=request.tasks,
            throttle=request.throttle,
        )

    def _send(self, bundle: Bundle, request: JobRequest, argv: tuple[str, ...]) -> JobRef:
        environment = slurm_text.slurm_environment(self.environment, request.directives)
        since = self.now()
        try:
            ref = send(
                self.run, argv, bundle.path, environment, self.sbatch_timeout_s, request.stage
            )
        except SlurmFullError as error:
            if found := self._in_spite_of(error, bundle, request, since):
                return found
            raise
        except SlurmOutcomeError as error:
            log.warning("%s; looking for the job %s", error.message, request.name)
            return self._look(bundle, request, since, error)
        return replace(ref, name=request.name, cluster=ref.cluster or request.cluster)

    def _in_spite_of(
        self, error: SlurmFullError, bundle: Bundle, request: JobRequest, since: datetime
    ) -> JobRef | None:
        """Look for the job of an sbatch that was ended, in case that it was not asleep."""
        if not error.ended:
            return None
        sought = JobRef("", request.name, request.cluster) if request.cluster else None
        try:
            info = self.find(bundle, sought, request.name, since)
        except SchedulerError as unanswered:
            raise SlurmOutcomeError(
                f"whether Slurm took {request.stage} is not known: {unanswered.message}",
                "Nothing is sent twice: the next `valska submit` looks for the job first.",
            ) from error
        return JobRef(info.job_id, request.name, info.cluster) if info else None

    def _look(
        self, bundle: Bundle, request: JobRequest, since: datetime, error: SlurmOutcomeError
    ) -> JobRef:
        waited, pause = 0.0, 1.0
        sought = JobRef("", request.name, request.cluster) if request.cluster else None
        while True:
            try:
                info = self.find(bundle, sought, request.name, since)
            except SchedulerError as unanswered:
                log.warning("%s", unanswered.message)
                info = None
            if info is not None:
                return JobRef(info.job_id, request.name, info.cluster)
            if waited >= self.settle_s:
                raise error
            self.sleep(pause)
            waited, pause = waited + pause, min(pause * 2, 15.0)

    def _clusters(self, ref: JobRef | None) -> list[str | None]:
        named = (ref.cluster if ref else None) or self.environment.get("SBATCH_CLUSTERS")
        named = named or self.environment.get("SLURM_CLUSTERS")
        return [*named.split(",")] if named else [None]

    def _states(
        self, names: Mapping[str, str | None], ids: Sequence[str], cluster: str | None
    ) -> dict[str, JobInfo]:
        """Return what is known of jobs, tasks, and all the tasks of arrays."""
        shown = self._squeue(ids=answers.bases(ids), cluster=cluster)
        queued = answers.asked_for(names, shown)
        rest = [one for one in ids if one not in shown or not shown[one].state.live]
        if not rest:
            return queued
        try:
            accounts = self._sacct(ids=answers.bases(rest), cluster=cluster)
        except SchedulerError as error:
            log.warning("%s", error.message)
            unknown = {
                one: JobInfo(one, "", JobState.UNKNOWN, "", reason=error.message) for one in rest
            }
            return unknown | queued
        if accounts is None:
            return queued | {one: self._shown(queued[one]) for one in rest if one in queued}
        ended = {
            one: answers.settle(account, queued.get(one))
            for one, account in answers.asked_for(names, accounts).items()
            if one not in queued or not queued[one].state.live
        }
        return queued | ended

    def _shown(self, info: JobInfo) -> JobInfo:
        """Complete an ended job by what the controller still knows, where there is no sacct."""
        argv = ["scontrol", *_on(info.cluster), "--oneliner", "show", "job", info.job_id]
        done = self._ask(argv)
        shown = answers.parse_scontrol(done.stdout, info.cluster)
        return replace(shown, job_id=info.job_id) if shown and done.returncode == 0 else info

    def _squeue(
        self, *, ids: Sequence[str] = (), name: str | None = None, cluster: str | None = None
    ) -> dict[str, JobInfo]:
        argv = slurm_text.squeue_argv(ids=ids, name=name, user=self.user, cluster=cluster)
        done = self._ask(argv)
        if done.returncode != 0 and not slurm_text.is_unknown_job(done.stderr):
            raise _no_answer(done)
        return answers.parse_squeue(done.stdout, cluster)

    def _sacct(
        self,
        *,
        ids: Sequence[str] = (),
        name: str | None = None,
        since: datetime | None = None,
        cluster: str | None = None,
    ) -> dict[str, JobInfo] | None:
        """Return what the accounting knows; None where there is none."""
        argv = slurm_text.sacct_argv(
            ids=ids, name=name, user=self.user, since=since, cluster=cluster
        )
        try:
            done = self._ask(argv)
        except NoProgramError:
            return None
        if done.returncode != 0:
            if slurm_text.has_no_accounting(done.stderr + done.stdout):
                return None
            raise _no_answer(done)
        return answers.parse_sacct(done.stdout, cluster)

    def _beside_sbatch(self, name: str) -> str:
        """Return Slurm's other programs from where a configured sbatch lies, if they are there."""
        sibling = Path(self.sbatch).parent / name
        return os.fspath(sibling) if "/" in self.sbatch and sibling.is_file() else name

    def _ask(self, argv: Sequence[str]) -> Completed:
        environment = slurm_text.slurm_environment(self.environment) | slurm_text.WHOLE_LISTS
        argv = [self._beside_sbatch(argv[0]), *argv[1:]]
        for attempt in range(QUERY_TRIES):
            last = attempt == QUERY_TRIES - 1
            try:
                done = self.run(argv, env=environment, timeout=self.query_timeout_s)
            except PrerequisiteError as error:
                raise NoProgramError(error.message, "Is Slurm's module loaded?") from error
            except ProcessTimeoutError as error:
                if last:
                    raise SchedulerError(
                        f"Slurm does not answer: {error.message}", "Try again later."
                    ) from error
            else:
                if last or done.returncode == 0 or not slurm_text.is_transient(done.stderr):
                    return done
            self.sleep(2.0**attempt)
        raise AssertionError("unreachable")

    def _live(
        self, bundle: Bundle, refs: Sequence[JobRef]
    ) -> list[tuple[JobRef, frozenset[JobState]]]:
        """Return those of which something waits or runs, with the states of that."""
        found: dict[str, set[JobState]] = {}
        for job_id, info in self.query(bundle, refs).items():
            if info.state.live:
                found.setdefault(job_id, set()).add(info.state)
                found.setdefault(answers.base_id(job_id), set()).add(info.state)
        return [(ref, frozenset(found[ref.job_id])) for ref in refs if ref.job_id in found]

    def _wait_for_end(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> list[JobRef]:
        waited, pause = 0.0, 0.5
        left = list(refs)
        while left and waited < grace_s:
            self.sleep(min(pause, grace_s - waited))
            waited, pause = waited + pause, min(pause * 1.5, 5.0)
            left = [
                ref for ref, states in self._live(bundle, left) if states != {JobState.COMPLETING}
            ]
        return left

    def _scancel(self, refs: Sequence[JobRef], *options: str) -> None:
        for cluster in dict.fromkeys(ref.cluster for ref in refs):
            ids = answers.join_ids(ref.job_id for ref in refs if ref.cluster == cluster)
            done = self._ask(["scancel", *_on(cluster), *options, *ids])
            text = done.stderr.lower()
            gone = slurm_text.is_unknown_job(text) or "already complet" in text
            if done.returncode != 0 and not gone:
                raise SchedulerError(f"scancel failed: {one_line(done.stderr)}")


def _no_answer(done: Completed) -> SchedulerError:
    said = one_line(done.stderr) or f"exit code {done.returncode}"
    return SchedulerError(f"{done.argv[0]} does not answer: {said}", "Try again later.")


def _on(cluster: str | None) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []
