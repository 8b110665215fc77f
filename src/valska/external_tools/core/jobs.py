"""Submitting a bundle: never a job twice, never a job lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import (
    SubmissionError,
    UsageError,
    ValskaError,
)
from valska.external_tools.core.lock import directory_lock
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobRequest,
    OutcomeUnknownError,
    Scheduler,
)
from valska.external_tools.core.seal import require_intact, seal_of
from valska.external_tools.core.slurm.text import check_extra
from valska.external_tools.core.submission.cancelling import Cancellation, cancel
from valska.external_tools.core.submission.chain import (
    Plan,
    requests_of,
    select_stages,
    unfinished,
)
from valska.external_tools.core.submission.intents import (
    SETTLE_S,
    Clock,
    unconfirmed,
)
from valska.external_tools.core.submission.interrupted import take_up
from valska.external_tools.core.submission.jobsfile import (
    ALL_STAGES,
    JobEntry,
    JobsError,
    archive_jobs_json,
    has_submitted_stage,
    load_jobs_json,
    read_entries,
    write_jobs_json,
)
from valska.external_tools.core.submission.ledger import Ledger
from valska.external_tools.core.utils import random_hex, write_json_atomic

__all__ = [
    "Cancellation",
    "JobEntry",
    "JobsError",
    "Submission",
    "archive_jobs_json",
    "cancel",
    "has_submitted_stage",
    "load_jobs_json",
    "submit",
    "write_jobs_json",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a submit did, or would do.

    Parameters
    ----------
    scheduler
        ``slurm`` or ``local``.
    token
        Of this submission; it is in the names of its jobs.
    dry_run
        Whether nothing was sent.
    jobs
        Stage to job, in the order of the stages: those sent now, and those found again.
    commands
        The exact command of each stage sent now.
    found
        Stages that an interrupted submit had sent already; they were not sent again.
    kept
        Stages that a resume left alone, since they have completed, wait or run.
    archived
        Where the earlier jobs.json went.
    """

    scheduler: str
    token: str
    dry_run: bool
    jobs: Mapping[str, JobEntry]
    commands: tuple[tuple[str, ...], ...]
    found: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    archived: Path | None = None


def submit(
    bundle: Bundle,
    manifest: Manifest,
    scheduler: Scheduler,
    *,
    seal: str | None = None,
    stages: Sequence[str] | None = None,
    resubmit: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    extra: Sequence[str] = (),
    ready: Callable[[], object] | None = None,
    settle_s: float = SETTLE_S,
    clock: Clock | None = None,
    new_token: Callable[[], str] = lambda: random_hex(4),
) -> Submission:
    """Send stages to a scheduler, chained by their order.

    An intent is on disk before each job is sent. A submit that was killed is taken up where it
    stopped: its jobs are found by their names, and only what was never sent is sent.

    Parameters
    ----------
    bundle
        The bundle.
    manifest
        Its manifest.
    scheduler
        Where to send them.
    seal
        The seal that the jobs insist on. If it is not given, the whole bundle is checked; a
        caller that has checked it already names the seal that it saw.
    stages
        Names; all, if not given. A stage whose parents are not among them depends on their
        live jobs, or needs them completed.
    resubmit
        Send stages again that have ended, afresh. The earlier jobs.json is archived.
    resume
        Send the stages that have neither completed nor wait or run; those that can, go on from
        what they left. The earlier jobs.json is archived.
    dry_run
        Touch nothing, and only say what would be run.
    extra
        sbatch options for this submission (``--time=10``).
    ready
        Called under the lock, after every refusal and before the first job is sent.
    settle_s
        Seconds that a lost job is looked for.
    clock
        The time.
    new_token
        Gives eight hexadecimal digits.

    Raises
    ------
    LockedError
        If another process is submitting this bundle.
    VerificationError
        If the bundle was altered.
    UsageError
        If there is no such stage or sbatch option.
    PrerequisiteError
        If a parent has failed or was never submitted.
    SubmissionError
        If a stage is live or was submitted before, or the scheduler refuses it.
    OutcomeUnknownError
        If it is not known whether the scheduler took a job. Nothing is sent again until it is.
    """
    if resume and resubmit:
        raise UsageError("--resume and --resubmit do not go together", "Choose one of them.")
    plan = Plan(
        bundle=bundle,
        manifest=manifest,
        scheduler=scheduler,
        wanted=select_stages(manifest, stages),
        resubmit=resubmit,
        resume=resume,
        extra=check_extra(extra),
        seal=seal or _intact(bundle),
        token=new_token(),
    )
    if dry_run:
        return _rehearse(plan)
    time_source = clock or Clock()
    asked = ALL_STAGES if stages is None else ",".join(stages)
    with directory_lock(bundle.submit_lock):
        return _perform(plan, asked, ready, settle_s, time_source)


def _rehearse(plan: Plan) -> Submission:
    entries = read_entries(load_jobs_json(plan.bundle.path))
    doubtful = [entry.stage for entry in unconfirmed(plan.bundle, entries.values())]
    if doubtful:
        log.warning("%s may have been sent; submit looks for it first", ", ".join(doubtful))
    to_send = unfinished(plan, plan.wanted) if plan.resume else plan.wanted
    requests = requests_of(plan, to_send, frozenset(doubtful))
    return Submission(
        scheduler=plan.scheduler.name,
        token=plan.token,
        dry_run=True,
        jobs={},
        commands=plan.scheduler.commands(requests),
        kept=tuple(stage for stage in plan.wanted if stage not in to_send),
    )


def _perform(
    plan: Plan, asked: str, ready: Callable[[], object] | None, settle_s: float, clock: Clock
) -> Submission:
    entries = read_entries(load_jobs_json(plan.bundle.path))
    attempts = {stage: entry.attempt for stage, entry in entries.items()}
    taken_up = take_up(plan.bundle, entries, plan.scheduler, settle_s, clock)
    attempts |= {stage: attempts[stage] - 1 for stage in taken_up.never_sent}
    found = tuple(stage for stage in plan.wanted if stage in taken_up.found)
    left = tuple(stage for stage in plan.wanted if stage not in taken_up.found)
    to_send = unfinished(plan, left) if plan.resume else left
    requests = requests_of(plan, to_send, taken_up.never_sent)
    if requests and ready is not None:
        ready()
    plan.bundle.logs.mkdir(exist_ok=True)
    ledger = Ledger(
        bundle=plan.bundle,
        scheduler=plan.scheduler,
        seal=plan.seal,
        stage=asked,
        token=plan.token,
        clock=clock,
        entries=entries,
        attempts=attempts,
    )
    archived = _send(plan, ledger, requests) if requests else None
    return Submission(
        scheduler=plan.scheduler.name,
        token=plan.token,
        dry_run=False,
        jobs={stage: entries[stage] for stage in plan.wanted if stage in entries},
        commands=tuple(entries[stage].command for stage in to_send),
        found=found,
        kept=tuple(stage for stage in left if stage not in to_send),
        archived=archived,
    )


def _send(plan: Plan, ledger: Ledger, requests: Sequence[JobRequest]) -> Path | None:
    bundle = plan.bundle
    before = load_jobs_json(bundle.path)
    replaces = any(request.stage in ledger.entries for request in requests)
    archived = archive_jobs_json(bundle.path, keep=True) if replaces else None
    try:
        plan.scheduler.submit(bundle, requests, ledger)
    except OutcomeUnknownError as error:
        ledger.save()
        raise OutcomeUnknownError(_told(error, ledger), error.hint) from error
    except ValskaError as error:
        ledger.take_back()
        if ledger.accepted_stages:
            ledger.save()
            raise SubmissionError(_told(error, ledger), _rest(error, ledger, requests)) from error
        _restore(bundle, before, archived)
        raise
    except BaseException:
        ledger.save()
        raise
    ledger.save()
    return archived


def _restore(bundle: Bundle, before: dict[str, Any] | None, archived: Path | None) -> None:
    if before is None:
        bundle.jobs.unlink(missing_ok=True)
    else:
        write_json_atomic(bundle.jobs, before)
    if archived is not None:
        archived.unlink(missing_ok=True)


def _told(error: ValskaError, ledger: Ledger) -> str:
    sent = [f"{stage} (job {ledger.entries[stage].job_id})" for stage in ledger.accepted_stages]
    return f"{error.message}; sent before: {', '.join(sent)}" if sent else error.message


def _rest(error: ValskaError, ledger: Ledger, requests: Sequence[JobRequest]) -> str:
    rest = [one.stage for one in requests if one.stage not in ledger.accepted_stages]
    options = " ".join(f"--stage {stage}" for stage in rest)
    return f"{error.hint or 'See to it.'} Then: `valska submit {options}`."


def _intact(bundle: Bundle) -> str:
    require_intact(bundle)
    return seal_of(bundle)
