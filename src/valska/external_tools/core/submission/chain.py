"""From stages to jobs: which may be sent, and what each has to wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from valska.external_tools.core.errors import PrerequisiteError, SubmissionError, UsageError
from valska.external_tools.core.manifest import Manifest, StageEntry
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobRequest, Scheduler, job_name
from valska.external_tools.core.status import RunStatus, StageState, StageStatus, run_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a submit was asked for.

    Parameters
    ----------
    bundle, manifest, scheduler
        What to send, and where.
    wanted
        Stages, in the manifest's order.
    resubmit
        Whether stages that have ended may be sent again.
    resume
        Whether only what is neither completed nor live is sent, to go on from where it was.
    extra
        sbatch options, checked.
    seal, token
        Of the bundle, and of this submission.
    """

    bundle: Bundle
    manifest: Manifest
    scheduler: Scheduler
    wanted: tuple[str, ...]
    resubmit: bool
    resume: bool
    extra: tuple[str, ...]
    seal: str
    token: str


def requests_of(
    plan: Plan, to_send: Sequence[str], never_sent: frozenset[str]
) -> tuple[JobRequest, ...]:
    """Return the jobs to be sent, chained, after refusing what must not be sent.

    Parameters
    ----------
    plan
        What was asked for.
    to_send
        Stages, in the manifest's order.
    never_sent
        Those of an interrupted submission that never reached the scheduler.

    Raises
    ------
    SubmissionError
        If a stage, or one that uses its outputs, is live, or a stage was run before.
    PrerequisiteError
        If a stage needs one that is neither sent, live nor completed.
    """
    if not to_send:
        return ()
    status = run_status(plan.bundle, plan.manifest, plan.scheduler)
    for stage in to_send:
        again = plan.resubmit or plan.resume or stage in never_sent
        _refuse(status.stage(stage), again, unclear=plan.resume)
    _refuse_live_dependants(plan.manifest, to_send, status)
    return tuple(_request(plan, plan.manifest.stage(name), to_send, status) for name in to_send)


def unfinished(plan: Plan, stages: Sequence[str]) -> tuple[str, ...]:
    """Return those stages that have neither completed nor are known to wait or run."""
    if not stages:
        return ()
    status = run_status(plan.bundle, plan.manifest, plan.scheduler)
    done = {one.stage for one in status.stages if one.state is StageState.COMPLETED}
    live = {one.stage for one in status.stages if one.state.live}
    return tuple(stage for stage in stages if stage not in done | live)


def _request(
    plan: Plan, stage: StageEntry, to_send: Sequence[str], status: RunStatus
) -> JobRequest:
    outside = [status.stage(name) for name in stage.after if name not in to_send]
    live = [parent for parent in outside if _needed(stage.name, parent, plan.scheduler)]
    cluster = next((parent.cluster for parent in live if parent.cluster), None)
    directives = {**stage.directives, **dict(_option(text) for text in plan.extra)}
    return JobRequest(
        stage=stage.name,
        name=job_name(plan.token, stage.name),
        script=stage.script,
        args=(plan.seal, *(["--resume"] if plan.resume and stage.resume else [])),
        after=tuple(name for name in stage.after if name in to_send),
        dependency=tuple(parent.job_id for parent in live if parent.job_id),
        extra=plan.extra,
        directives=directives,
        cluster=cluster or directives.get("clusters") if plan.scheduler.name == "slurm" else None,
        job_id=plan.scheduler.reserve(),
    )


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.removeprefix("--").partition("=")
    return name, value


def _refuse(status: StageStatus, again: bool, unclear: bool) -> None:
    """Refuse a stage that may run, or whose end is not clear, or that has ended."""
    job = f" (job {status.job_id})" if status.job_id else ""
    if status.state is StageState.UNKNOWN and status.may_run:
        raise SubmissionError(
            f"whether stage {status.stage}{job} still runs is not known: {status.reason}",
            "Try again once the scheduler answers.",
        )
    if status.state is StageState.UNKNOWN and unclear:
        raise SubmissionError(
            f"what became of stage {status.stage}{job} is not clear: {status.reason}",
            "Try again later; --resubmit runs it again in any case.",
        )
    if status.may_run:
        raise SubmissionError(
            f"stage {status.stage} is {status.state} already{job}",
            "Wait for it, or end it with `valska cancel` and then use --resubmit.",
        )
    if status.state is not StageState.NOT_SUBMITTED and not again:
        raise SubmissionError(
            f"stage {status.stage} was run before and is {status.state}{job}",
            "Use --resubmit to run it again, or --stage to choose other stages.",
        )


def _refuse_live_dependants(manifest: Manifest, to_send: Sequence[str], status: RunStatus) -> None:
    for name in with_descendants(manifest, to_send):
        if name not in to_send and status.stage(name).may_run:
            raise SubmissionError(
                f"stage {name} (job {status.stage(name).job_id}) uses what is to be run again",
                f"End it first: `valska cancel --stage {name}`.",
            )


def _needed(stage: str, parent: StageStatus, scheduler: Scheduler) -> bool:
    """Return whether a stage has to wait for a parent that was submitted earlier."""
    if parent.state is StageState.COMPLETED:
        return False
    if parent.state.live and parent.job_id and parent.scheduler == scheduler.name:
        return True
    if parent.state.live:
        raise PrerequisiteError(
            f"stage {stage} cannot wait for {parent.stage}, which {scheduler.name} does not know",
            f"Wait until {parent.stage} has completed, then submit {stage}.",
        )
    raise PrerequisiteError(
        f"stage {stage} needs {parent.stage}, which is {parent.state}",
        f"Submit {parent.stage} too"
        + ("." if parent.state is StageState.NOT_SUBMITTED else ", with --resubmit."),
    )


def select_stages(manifest: Manifest, stages: Sequence[str] | None) -> tuple[str, ...]:
    """Return stages by name, in the manifest's order."""
    names = {manifest.stage(name).name for name in stages} if stages is not None else None
    if names is not None and not names:
        raise UsageError("no stage is named", "Leave --stage out for all stages.")
    return tuple(one.name for one in manifest.stages if names is None or one.name in names)


def with_descendants(manifest: Manifest, stages: Sequence[str]) -> tuple[str, ...]:
    """Return stages and all that come after them, in the manifest's order."""
    chosen = set(stages)
    for stage in manifest.stages:
        if chosen.intersection(stage.after):
            chosen.add(stage.name)
    return tuple(stage.name for stage in manifest.stages if stage.name in chosen)
