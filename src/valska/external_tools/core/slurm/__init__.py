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
    OutcomeUnknownError,
    SchedulerError,
    Watch,
)
from valska.external_tools.core.slurm import text as slurm_text
from valska.external_tools.core.slurm.text import (
    JOBID_REGEX,
    SlurmSubmissionError,
    build_dependency_string,
    parse_job_id,
)

__all__ = [
    "JOBID_REGEX",
    "Slurm",
    "SlurmOutcomeError",
    "SlurmSubmissionError",
    "build_dependency_string",
    "parse_job_id",
    "submit_script",
]

SBATCH_TIMEOUT_S = 120.0
QUERY_TIMEOUT_S = 30.0
QUERY_TRIES = 4
SETTLE_S = 60.0
"""How long a job that Slurm may have taken is looked for before its fate is called unknown."""
IDS_PER_CALL = 500
_CLOCK_MARGIN = timedelta(hours=1)

log = logging.getLogger(__name__)


class SlurmOutcomeError(SlurmSubmissionError, OutcomeUnknownError):
    """It is not known whether Slurm took a job."""


class NoProgramError(SchedulerError):
    """One of Slurm's programs is not there."""


def submit_script(
    script_path: Path,
    *,
    sbatch: str = "sbatch",
    dependency: str | None = None,
    cwd: Path | None = None,
    dry_run: bool = False,
    extra: Sequence[str] = (),
    args: Sequence[str] = (),
    run: Run = process.run,
    timeout: float = SBATCH_TIMEOUT_S,
) -> str | None:
    """Submit a script and return its job id; nothing is written down and nothing sent again.

    Parameters
    ----------
    script_path
        The script.
    sbatch
        The sbatch program.
    dependency
        As `build_dependency_string` makes it; the job is removed if it can never be satisfied.
    cwd
        Working directory of the job.
    dry_run
        Only log the command.
    extra
        Further options for sbatch.
    args
        Arguments of the script.
    run
        Runs a program.
    timeout
        Seconds to wait for sbatch.

    Returns
    -------
    str or None
        The job id; None after a dry run.

    Raises
    ------
    SlurmSubmissionError
        If Slurm refuses the job.
    SlurmOutcomeError
        If it is not known whether Slurm took it.
    PrerequisiteError
        If there is no such sbatch.
    """
    argv = slurm_text.sbatch_argv(
        os.fspath(script_path), sbatch=sbatch, dependency=dependency, extra=extra, args=args
    )
    if dry_run:
        log.info("would run %s", argv)
        return None
    environment = slurm_text.slurm_environment(os.environ)
    return _sbatch(run, argv, cwd, environment, timeout, script_path.name).job_id


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
                return named[-1]
        return None

    def query(self, bundle: Bundle, refs: Sequence[JobRef]) -> Mapping[str, JobInfo]:
        """Ask about many jobs with one squeue and, for those not live, one sacct per cluster."""
        names = {ref.job_id: ref.name for ref in refs}
        found: dict[str, JobInfo] = {}
        for cluster in dict.fromkeys(ref.cluster for ref in refs):
            ids = [ref.job_id for ref in refs if ref.cluster == cluster]
            for start in range(0, len(ids), IDS_PER_CALL):
                found |= self._states(ids[start : start + IDS_PER_CALL], cluster)
        return {
            job_id: info
            for job_id, info in found.items()
            if info.name in (names.get(job_id) or info.name, *slurm_text.NAMES_NOT_KNOWN_YET)
        }

    def cancel(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        """End jobs; see `Scheduler.cancel`.

        Jobs that wait go first, so that the end of a running one releases none of them.
        """
        live = self._live(bundle, refs)
        waiting = [ref for ref, state in live if state is JobState.PENDING]
        self._scancel(list(reversed(waiting)), "--state=PENDING")
        running = [ref for ref, _ in (self._live(bundle, refs) if waiting else live)]
        self._scancel(running, "--batch", "--signal=TERM")
        self._scancel(self._wait_for_end(bundle, running, grace_s))

    def _command(self, request: JobRequest, ids: Mapping[str, str]) -> tuple[str, ...]:
        parents = [*request.dependency, *(ids[stage] for stage in request.after)]
        return slurm_text.sbatch_argv(
            request.script,
            sbatch=self.sbatch,
            name=request.name,
            dependency=":".join(["afterok", *parents]) if parents else None,
            cluster=request.cluster,
            extra=request.extra,
            args=request.args,
        )

    def _send(self, bundle: Bundle, request: JobRequest, argv: tuple[str, ...]) -> JobRef:
        environment = slurm_text.slurm_environment(self.environment, request.directives)
        since = self.now()
        try:
            ref = _sbatch(
                self.run, argv, bundle.path, environment, self.sbatch_timeout_s, request.stage
            )
        except SlurmOutcomeError as error:
            log.warning("%s; looking for the job %s", error.message, request.name)
            return self._look(bundle, request, since, error)
        return replace(ref, name=request.name, cluster=ref.cluster or request.cluster)

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

    def _states(self, ids: Sequence[str], cluster: str | None) -> dict[str, JobInfo]:
        queued = self._squeue(ids=ids, cluster=cluster)
        found = {job_id: info for job_id, info in queued.items() if job_id in ids}
        rest = [job_id for job_id in ids if job_id not in found or not found[job_id].state.live]
        if not rest:
            return found
        try:
            accounts = self._sacct(ids=rest, cluster=cluster)
        except SchedulerError as error:
            log.warning("%s", error.message)
            unknown = {
                job_id: JobInfo(job_id, "", JobState.UNKNOWN, "", reason=error.message)
                for job_id in rest
            }
            return unknown | found
        if accounts is None:
            return found | {
                job_id: self._shown(found[job_id]) for job_id in rest if job_id in found
            }
        ended = {
            job_id: _settled(accounts[job_id], found.get(job_id))
            for job_id in rest
            if job_id in accounts
        }
        return found | ended

    def _shown(self, info: JobInfo) -> JobInfo:
        """Complete an ended job by what the controller still knows, where there is no sacct."""
        argv = ["scontrol", *_on(info.cluster), "--oneliner", "show", "job", info.job_id]
        done = self._ask(argv)
        shown = slurm_text.parse_scontrol(done.stdout, info.cluster)
        return replace(shown, job_id=info.job_id) if shown and done.returncode == 0 else info

    def _squeue(
        self, *, ids: Sequence[str] = (), name: str | None = None, cluster: str | None = None
    ) -> dict[str, JobInfo]:
        argv = slurm_text.squeue_argv(ids=ids, name=name, user=self.user, cluster=cluster)
        done = self._ask(argv)
        if done.returncode != 0 and not slurm_text.is_unknown_job(done.stderr):
            raise _no_answer(done)
        return slurm_text.parse_squeue(done.stdout, cluster)

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
        return slurm_text.parse_sacct(done.stdout, cluster)

    def _beside_sbatch(self, name: str) -> str:
        """Return Slurm's other programs from where a configured sbatch lies, if they are there."""
        sibling = Path(self.sbatch).parent / name
        return os.fspath(sibling) if "/" in self.sbatch and sibling.is_file() else name

    def _ask(self, argv: Sequence[str]) -> Completed:
        environment = slurm_text.slurm_environment(self.environment)
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

    def _live(self, bundle: Bundle, refs: Sequence[JobRef]) -> list[tuple[JobRef, JobState]]:
        infos = self.query(bundle, refs)
        states = [(ref, infos[ref.job_id].state) for ref in refs if ref.job_id in infos]
        return [(ref, state) for ref, state in states if state.live]

    def _wait_for_end(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> list[JobRef]:
        waited, pause = 0.0, 0.5
        left = list(refs)
        while left and waited < grace_s:
            self.sleep(min(pause, grace_s - waited))
            waited, pause = waited + pause, min(pause * 1.5, 5.0)
            left = [
                ref for ref, state in self._live(bundle, left) if state is not JobState.COMPLETING
            ]
        return left

    def _scancel(self, refs: Sequence[JobRef], *options: str) -> None:
        for cluster in dict.fromkeys(ref.cluster for ref in refs):
            ids = [ref.job_id for ref in refs if ref.cluster == cluster]
            done = self._ask(["scancel", *_on(cluster), *options, *ids])
            text = done.stderr.lower()
            gone = slurm_text.is_unknown_job(text) or "already complet" in text
            if done.returncode != 0 and not gone:
                raise SchedulerError(f"scancel failed: {_one_line(done.stderr)}")


def _sbatch(
    run: Run,
    argv: tuple[str, ...],
    cwd: Path | None,
    environment: Mapping[str, str],
    timeout: float,
    what: str,
) -> JobRef:
    try:
        done = run(argv, cwd=cwd, env=environment, timeout=timeout)
    except ProcessTimeoutError as error:
        raise _outcome_unknown(what, error.message) from error
    said = _one_line(done.stderr)
    if done.returncode < 0 or (done.returncode and slurm_text.perhaps_accepted(done.stderr)):
        raise _outcome_unknown(what, said or f"sbatch ended with code {done.returncode}")
    if done.returncode:
        raise SlurmSubmissionError(
            f"sbatch refused {what}: {said or f'exit code {done.returncode}'}",
            "Change what Slurm names (account, partition, time, memory), then submit again.",
        )
    if said:
        log.warning("sbatch says: %s", said)
    try:
        return slurm_text.parse_submission(done.stdout)
    except SlurmSubmissionError as error:
        raise _outcome_unknown(what, error.message) from error


def _outcome_unknown(what: str, why: str) -> SlurmOutcomeError:
    return SlurmOutcomeError(
        f"whether Slurm took {what} is not known: {why}",
        "Nothing is sent twice: the next `valska submit` looks for the job first.",
    )


def _settled(account: JobInfo, queued: JobInfo | None) -> JobInfo:
    """Return what to believe of a job that squeue does not show as live."""
    if queued is not None and account.state.live:
        return queued
    if queued is not None:
        return replace(account, name=queued.name, reason=queued.reason or account.reason)
    if not account.state.live:
        return account
    return replace(
        account,
        state=JobState.LOST,
        reason=f"the accounting says {account.word}, but Slurm's controller has no such job",
    )


def _no_answer(done: Completed) -> SchedulerError:
    said = _one_line(done.stderr) or f"exit code {done.returncode}"
    return SchedulerError(f"{done.argv[0]} does not answer: {said}", "Try again later.")


def _on(cluster: str | None) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line.removeprefix("sbatch: error: ") for line in lines if line)[:500]
