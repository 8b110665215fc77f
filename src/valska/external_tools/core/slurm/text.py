"""Slurm's commands, and what their errors mean; text only, nothing is run here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from valska.external_tools.core.errors import SubmissionError, UsageError
from valska.external_tools.core.ranges import write_ranges
from valska.external_tools.core.scheduler import JobRef, JobRequest

JOBID_REGEX = re.compile(r"Submitted\s+batch\s+job\s+(\d+)(?:\s+on\s+cluster\s+(\S+))?", re.I)
SQUEUE_FORMAT = "%i|%T|%r|%M|%l|%j"
SACCT_FORMAT = "JobID,State,ExitCode,Reason,ElapsedRaw,TimelimitRaw,JobName"

WHOLE_LISTS = {"SLURM_BITSTR_LEN": "0"}
"""Environment in which Slurm's programs do not cut long lists of tasks short."""

_PARSABLE = re.compile(r"(\d+)(?:;(\S+))?")
_DEPENDENCY_MODES = (
    "after", "afterany", "afterburstbuffer", "aftercorr", "afternotok", "afterok"
)  # fmt: skip
_JOB_ID = re.compile(r"\d+(?:_\d+|\+\d+)?")

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
_QUEUE_FULL = ("sleeping and retrying", "job queue full")
_SUBMIT_LIMIT = re.compile(r"(assoc|qos|max|grp)\w*submit\w*limit", re.I)
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
    tasks: Sequence[int] = (),
    throttle: int | None = None,
) -> tuple[str, ...]:
    """Return the command that submits a script; with `tasks`, as an array."""
    array = f"--array={write_ranges(tasks)}" + (f"%{throttle}" if throttle else "")
    return (
        sbatch,
        "--parsable",
        *([f"--clusters={cluster}"] if cluster else []),
        *([f"--job-name={name}"] if name else []),
        *([array] if tasks else []),
        *([f"--dependency={dependency}", "--kill-on-invalid-dep=yes"] if dependency else []),
        *extra,
        script,
        *args,
    )


def dependency_of(request: JobRequest, ids: Mapping[str, str]) -> str | None:
    """Return what a request waits for as sbatch reads it (``afterok:12:13_4,aftercorr:15``).

    Parameters
    ----------
    request
        The request.
    ids
        Stage of the same chain to the id of its job.
    """
    parents = [*request.dependency, *(ids[stage] for stage in request.after)]
    each = [*request.corresponding, *(ids[stage] for stage in request.after_each)]
    parts = [":".join(["afterok", *parents])] if parents else []
    parts += [":".join(["aftercorr", *each])] if each else []
    return ",".join(parts) or None


def squeue_argv(
    *, ids: Sequence[str] = (), name: str | None = None, user: str = "", cluster: str | None = None
) -> tuple[str, ...]:
    """Return the command that asks the controller about jobs, also those ended lately.

    There is a line for each task of an array.
    """
    return (
        "squeue",
        "--noheader",
        "--states=all",
        "--array",
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


def is_transient(text: str) -> bool:
    """Return whether an error of a query may be gone when it is asked again."""
    return _has(text, _TRANSIENT)


def perhaps_accepted(text: str) -> bool:
    """Return whether sbatch failed in a way that does not say if Slurm has the job."""
    return _has(text, _PERHAPS_ACCEPTED)


def is_queue_full(text: str) -> bool:
    """Return whether sbatch waits, with its job in hand, for the controller to have room."""
    return _has(text, _QUEUE_FULL)


def is_submit_limit(text: str) -> bool:
    """Return whether sbatch was refused since this user has too many jobs in the queue."""
    return _SUBMIT_LIMIT.search(text) is not None


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
