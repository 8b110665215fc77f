"""What Slurm's commands answer, read into `JobInfo`; text only, nothing is run here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.ranges import write_ranges
from valska.external_tools.core.scheduler import JobInfo, JobState
from valska.external_tools.core.timelimit import parse_time

NAMES_NOT_KNOWN_YET = ("", "allocation")
"""What the accounts call a job whose start has not reached them."""

_TASKS = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")

_WORDS: Mapping[JobState, str] = {
    JobState.PENDING: "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD "
    "SPECIAL_EXIT POWER_UP_NODE PD CF RQ RF RH RD SE",
    JobState.RUNNING: "RUNNING RESIZING SIGNALING STOPPED SUSPENDED UPDATE_DB EXPEDITING "
    "R RS SI ST S",
    JobState.COMPLETING: "COMPLETING STAGE_OUT CG SO",
    JobState.COMPLETED: "COMPLETED CD",
    JobState.FAILED: "FAILED LAUNCH_FAILED RECONFIG_FAIL F",
    JobState.TIMEOUT: "TIMEOUT DEADLINE TO DL",
    JobState.CANCELLED: "CANCELLED REVOKED CA RV",
    JobState.OUT_OF_MEMORY: "OUT_OF_MEMORY OOM",
    JobState.NODE_FAIL: "NODE_FAIL BOOT_FAIL NF BF",
    JobState.PREEMPTED: "PREEMPTED PR",
}
STATES: Mapping[str, JobState] = {
    word: state for state, words in _WORDS.items() for word in words.split()
}
"""Every word of Slurm for a job's state, long and short."""


def parse_state(word: str) -> JobState:
    """Return the state that a word of Slurm means; UNKNOWN if there is no such word.

    >>> parse_state("CANCELLED by 1000")
    <JobState.CANCELLED: 'CANCELLED'>
    """
    first = word.split()[0].rstrip("+").upper() if word.strip() else ""
    return STATES.get(first, JobState.UNKNOWN)


def parse_squeue(text: str, cluster: str | None = None) -> dict[str, JobInfo]:
    """Return the jobs of `squeue_argv`'s answer by id; a task of an array has one of its own."""
    found = {}
    state, why, seconds = cache(parse_state), cache(_reason), cache(_seconds)
    for line in text.splitlines():
        fields = line.strip().split("|", 5)
        if len(fields) == 6:
            job_id, word, reason, elapsed, limit, name = fields
            found[job_id] = JobInfo(
                job_id,
                name,
                state(word),
                word,
                None,
                None,
                why(reason),
                cluster,
                seconds(elapsed),
                seconds(limit),
            )
    return found


def parse_sacct(text: str, cluster: str | None = None) -> dict[str, JobInfo]:
    """Return the jobs of `sacct_argv`'s answer by id; of a requeued job, its last run.

    Tasks that have not begun stand on one line, ``17_[4-9%2]``; each has an entry here. What was
    said of a single task counts more.
    """
    found: dict[str, JobInfo] = {}
    together: list[tuple[str, JobInfo]] = []
    state, why, code = cache(parse_state), cache(_reason), cache(parse_exit)
    for line in text.splitlines():
        fields = line.strip().split("|", 6)
        if len(fields) == 7 and "." not in fields[0]:
            job_id, word, ended, reason, elapsed, limit, name = fields
            info = JobInfo(
                job_id,
                name,
                state(word),
                word,
                *code(ended),
                why(reason),
                cluster,
                int(elapsed) if elapsed.isdecimal() else None,
                int(limit) * 60 if limit.isdecimal() else None,
            )
            if job_id.endswith("]"):
                together.append((job_id, info))
            else:
                found[job_id] = info
    for job_id, info in together:
        for task in expand_id(job_id):
            found.setdefault(task, replace(info, job_id=task))
    return found


def base_id(job_id: str) -> str:
    """Return the id of the array that a task belongs to; a job's own id for a single one."""
    return job_id.partition("_")[0]


def expand_id(job_id: str) -> list[str]:
    """Return the ids of the tasks in an id of Slurm such as ``17_[0-4:2,9%3]``.

    A list that Slurm has cut short (``17_[0,2,...]``) gives those that are there.
    """
    base, _, tasks = job_id.partition("_[")
    found: list[str] = []
    for part in tasks.rstrip("]").partition("%")[0].split(","):
        match = _TASKS.fullmatch(part)
        if match:
            first, last, step = match.groups()
            end = int(last or first) + 1
            found += [f"{base}_{index}" for index in range(int(first), end, int(step or 1))]
    return found


def join_ids(ids: Iterable[str]) -> list[str]:
    """Return ids as scancel reads them, tasks of one array together (``17_[0-3,9]``)."""
    tasks: dict[str, list[int]] = {}
    for job_id in ids:
        base, _, task = job_id.partition("_")
        tasks.setdefault(base, []).extend([int(task)] if task else [])
    return [f"{base}_[{write_ranges(of)}]" if of else base for base, of in tasks.items()]


def parse_scontrol(text: str, cluster: str | None = None) -> JobInfo | None:
    """Return the job of ``scontrol --oneliner show job ID``."""
    fields = dict(re.findall(r"(?:^|\s)([A-Za-z/:]+)=(\S*)", text))
    if "JobId" not in fields:
        return None
    word = fields.get("JobState", "")
    code, signal = parse_exit(fields.get("ExitCode", ""))
    name = re.search(r"JobName=(.*?) (?:UserId|ArrayJobId)=", text)
    return JobInfo(
        fields["JobId"],
        name[1] if name else fields.get("JobName", ""),
        parse_state(word),
        word,
        exit_code=code,
        signal=signal,
        reason=_reason(fields.get("Reason", "")),
        cluster=cluster,
        elapsed_s=_seconds(fields.get("RunTime", "")),
        limit_s=_seconds(fields.get("TimeLimit", "")),
    )


def parse_exit(text: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of ``1:0``; the signal is None where there was none."""
    code, _, signal = text.partition(":")
    if not code.isdecimal():
        return None, None
    return int(code), (int(signal) or None) if signal.isdecimal() else None


def settle(account: JobInfo, queued: JobInfo | None) -> JobInfo:
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


def bases(ids: Iterable[str]) -> list[str]:
    """Return the arrays and single jobs that ids belong to, each once."""
    return list(dict.fromkeys(map(base_id, ids)))


def asked_for(names: Mapping[str, str | None], found: Mapping[str, JobInfo]) -> dict[str, JobInfo]:
    """Return what was asked for, by its id or its array's, and is not another's reused id."""
    wanted: dict[str, JobInfo] = {}
    for job_id, info in found.items():
        key = job_id if job_id in names else job_id.partition("_")[0]
        if key in names and info.name in (names[key] or info.name, *NAMES_NOT_KNOWN_YET):
            wanted[job_id] = info
    return wanted


def _reason(text: str) -> str | None:
    return None if text in ("", "None", "(null)") else text


def _seconds(text: str) -> int | None:
    try:
        return parse_time(text)
    except UsageError:
        return None
