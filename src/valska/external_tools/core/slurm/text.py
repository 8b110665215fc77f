"""What Slurm's commands are asked and what they answer; text only, nothing is run here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from valska.external_tools.core.errors import SubmissionError, UsageError
from valska.external_tools.core.scheduler import JobInfo, JobRef, JobState
from valska.external_tools.core.timelimit import parse_time

JOBID_REGEX = re.compile(r"Submitted\s+batch\s+job\s+(\d+)(?:\s+on\s+cluster\s+(\S+))?", re.I)
SQUEUE_FORMAT = "%i|%T|%r|%M|%l|%j"
SACCT_FORMAT = "JobID,State,ExitCode,Reason,ElapsedRaw,TimelimitRaw,JobName"

NAMES_NOT_KNOWN_YET = ("", "allocation")
"""What the accounts call a job whose start has not reached them."""

_PARSABLE = re.compile(r"(\d+)(?:;(\S+))?")
_DEPENDENCY_MODES = (
    "after", "afterany", "afterburstbuffer", "aftercorr", "afternotok", "afterok"
)  # fmt: skip
_JOB_ID = re.compile(r"\d+(?:_\d+|\+\d+)?")

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

_TRANSIENT = (
    "socket timed out",
    "unable to contact slurm controller",
    "connection refused",
    "connection timed out",
    "connection reset",
    "transport endpoint",
    "zero bytes were transmitted",
    "unable to establish controller",
    "temporarily unable to accept",
    "resource temporarily unavailable",
    "problem talking to the database",
    "unable to connect to database",
    "slurm backup controller in standby",
)
_PERHAPS_ACCEPTED = (
    "socket timed out",
    "connection reset",
    "connection timed out",
    "transport endpoint",
    "zero bytes were transmitted",
)
_SQUEUE_UNKNOWN = "invalid job id"
_NO_ACCOUNTING = "accounting storage is disabled"

_KEPT_SLURM = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"})
_ACCESS = {
    "SBATCH_ACCOUNT": ("account",),
    "SBATCH_CLUSTERS": ("clusters", "cluster"),
    "SBATCH_PARTITION": ("partition",),
    "SBATCH_QOS": ("qos",),
    "SBATCH_RESERVATION": ("reservation",),
}
_DROPPED = ("SBATCH_", "SLURM_", "SQUEUE_", "SACCT_", "SCANCEL_")


class SlurmSubmissionError(SubmissionError):
    """Slurm did not take a job, or did not say clearly that it did."""


def parse_submission(text: str) -> JobRef:
    """Return the job that sbatch's output names: plain, on a cluster, or ``--parsable``.

    Raises
    ------
    SlurmSubmissionError
        If it names none.
    """
    plain = JOBID_REGEX.search(text)
    if plain:
        return JobRef(plain[1], cluster=plain[2])
    for line in reversed(text.split("\n")):
        match = _PARSABLE.fullmatch(line.strip())
        if match:
            return JobRef(match[1], cluster=match[2])
    shown = " ".join(text.split())[:200]
    raise SlurmSubmissionError(
        f"sbatch's answer has no job id: {shown!r}",
        "Look in `squeue --me` whether the job is there before you submit again.",
    )


def parse_job_id(text: str) -> str:
    """Return the job id in sbatch's output.

    Raises
    ------
    SlurmSubmissionError
        If there is none.
    """
    return parse_submission(text).job_id


def build_dependency_string(job_ids: Iterable[str], mode: str = "afterok") -> str:
    """Return a dependency as sbatch reads it (``afterok:12:13``).

    Raises
    ------
    SlurmSubmissionError
        If there is no id, an id is none, or Slurm has no such mode.
    """
    ids = [job_ids] if isinstance(job_ids, str) else list(job_ids)
    if mode not in _DEPENDENCY_MODES:
        raise SlurmSubmissionError(
            f"Slurm has no dependency mode {mode!r}", f"There are: {', '.join(_DEPENDENCY_MODES)}."
        )
    wrong = [job_id for job_id in ids if not _JOB_ID.fullmatch(job_id)]
    if wrong or not ids:
        raise SlurmSubmissionError(
            f"not a job id: {wrong[0]!r}" if wrong else "a dependency needs a job id"
        )
    return ":".join([mode, *ids])


def sbatch_argv(
    script: str,
    *,
    sbatch: str = "sbatch",
    name: str | None = None,
    dependency: str | None = None,
    cluster: str | None = None,
    extra: Sequence[str] = (),
    args: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the command that submits a script."""
    return (
        sbatch,
        "--parsable",
        *([f"--clusters={cluster}"] if cluster else []),
        *([f"--job-name={name}"] if name else []),
        *([f"--dependency={dependency}", "--kill-on-invalid-dep=yes"] if dependency else []),
        *extra,
        script,
        *args,
    )


def squeue_argv(
    *, ids: Sequence[str] = (), name: str | None = None, user: str = "", cluster: str | None = None
) -> tuple[str, ...]:
    """Return the command that asks the controller about jobs, also those ended lately."""
    return (
        "squeue",
        "--noheader",
        "--states=all",
        f"--format={SQUEUE_FORMAT}",
        *([f"--clusters={cluster}"] if cluster else []),
        *([f"--jobs={','.join(ids)}"] if ids else []),
        *([f"--name={name}", f"--user={user}"] if name else []),
    )


def sacct_argv(
    *,
    ids: Sequence[str] = (),
    name: str | None = None,
    user: str = "",
    since: datetime | None = None,
    cluster: str | None = None,
) -> tuple[str, ...]:
    """Return the command that asks the accounting about jobs, without their steps."""
    start = since.astimezone().strftime("%Y-%m-%dT%H:%M:%S") if since else None
    return (
        "sacct",
        "--parsable2",
        "--noheader",
        "--allocations",
        f"--format={SACCT_FORMAT}",
        *([f"--clusters={cluster}"] if cluster else []),
        *([f"--jobs={','.join(ids)}"] if ids else []),
        *([f"--name={name}", f"--user={user}"] if name else []),
        *([f"--starttime={start}"] if start else []),
    )


def parse_state(word: str) -> JobState:
    """Return the state that a word of Slurm means; UNKNOWN if there is no such word.

    >>> parse_state("CANCELLED by 1000")
    <JobState.CANCELLED: 'CANCELLED'>
    """
    first = word.split()[0].rstrip("+").upper() if word.strip() else ""
    return STATES.get(first, JobState.UNKNOWN)


def parse_squeue(text: str, cluster: str | None = None) -> dict[str, JobInfo]:
    """Return the jobs of `squeue_argv`'s answer by id."""
    found = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 5)
        if len(fields) == 6:
            job_id, word, reason, elapsed, limit, name = fields
            found[job_id] = JobInfo(
                job_id,
                name,
                parse_state(word),
                word,
                reason=_reason(reason),
                cluster=cluster,
                elapsed_s=_seconds(elapsed),
                limit_s=_seconds(limit),
            )
    return found


def parse_sacct(text: str, cluster: str | None = None) -> dict[str, JobInfo]:
    """Return the jobs of `sacct_argv`'s answer by id; of a requeued job, its last run."""
    found = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 6)
        if len(fields) == 7 and "." not in fields[0]:
            job_id, word, ended, reason, elapsed, limit, name = fields
            code, signal = parse_exit(ended)
            found[job_id] = JobInfo(
                job_id,
                name,
                parse_state(word),
                word,
                exit_code=code,
                signal=signal,
                reason=_reason(reason),
                cluster=cluster,
                elapsed_s=int(elapsed) if elapsed.isdecimal() else None,
                limit_s=int(limit) * 60 if limit.isdecimal() else None,
            )
    return found


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


def is_transient(text: str) -> bool:
    """Return whether an error of a query may be gone when it is asked again."""
    return _has(text, _TRANSIENT)


def perhaps_accepted(text: str) -> bool:
    """Return whether sbatch failed in a way that does not say if Slurm has the job."""
    return _has(text, _PERHAPS_ACCEPTED)


def is_unknown_job(text: str) -> bool:
    """Return whether squeue or scontrol says that it does not know a job (any more)."""
    return _SQUEUE_UNKNOWN in text.lower()


def has_no_accounting(text: str) -> bool:
    """Return whether sacct says that this cluster keeps no accounts."""
    return _NO_ACCOUNTING in text.lower()


def slurm_environment(
    environment: Mapping[str, str], directives: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return an environment in which Slurm's commands do what their arguments say.

    Variables that Slurm's commands read as options are left out: ``SBATCH_*`` would override
    the directives in a script without a trace, ``SQUEUE_*``, ``SACCT_*`` and ``SCANCEL_*`` would
    narrow an answer, and the ``SLURM_*`` of a surrounding job would leak into the new one. Kept
    are what says where Slurm is (``SLURM_CONF``, ``SLURM_CLUSTERS``, …) and who may use it
    (``SBATCH_ACCOUNT``, ``_PARTITION``, ``_QOS``, ``_RESERVATION``, ``_CLUSTERS``), the latter
    only where the script has no such directive.
    """
    given = directives or {}
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_DROPPED)
        or name in _KEPT_SLURM
        or (name in _ACCESS and not any(key in given for key in _ACCESS[name]))
    }


def check_extra(extra: Sequence[str]) -> tuple[str, ...]:
    """Return options for one submission, each checked and as one ``--name[=value]``.

    Raises
    ------
    UsageError
        If one is not a long option of sbatch, or one that valska sets itself.
    """
    from valska.external_tools.core.directives import parse_directive

    checked = []
    for text in extra:
        if text.startswith("-") and not text.startswith("--"):
            raise UsageError(f"not a long option of sbatch: {text!r}", "Write --name=value.")
        name, value = parse_directive(text)
        if value is None:
            raise UsageError(
                f"{text!r} cannot take a directive out of a script",
                "Give another value, or make the bundle again without the directive.",
            )
        checked.append(f"--{name}={value}" if value else f"--{name}")
    return tuple(checked)


def _has(text: str, needles: Iterable[str]) -> bool:
    lower = text.lower()
    return any(needle in lower for needle in needles)


def _reason(text: str) -> str | None:
    return None if text in ("", "None", "(null)") else text


def _seconds(text: str) -> int | None:
    try:
        return parse_time(text)
    except UsageError:
        return None
