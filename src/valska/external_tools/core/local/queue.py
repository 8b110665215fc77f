"""The local scheduler's state files: who runs the jobs of a submission, and how far they are.

A file holds few bytes for each task, since it is written anew again and again: tasks that ended
alike stand together (``0-8,11``), those that have not begun are the rest.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.identity import ProcessIdentity, read_identity
from valska.external_tools.core.local.job import Index, LocalJob, Progress, Queue
from valska.external_tools.core.ranges import read_ranges, write_ranges
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobState
from valska.external_tools.core.utils import load_json, write_atomic

SCHEMA_VERSION = "2.0"


def read_queue(path: Path) -> Queue | None:
    """Return the queue in a state file; None if there is no such file.

    Raises
    ------
    ValskaError
        If it cannot be read.
    """
    if not path.exists():
        return None
    data = load_json(path)
    try:
        return _from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise ValskaError(f"{path} is not a state file of the local scheduler: {error}") from error


def queue_paths(bundle: Bundle) -> list[Path]:
    """Return the state files of all submissions."""
    return sorted(bundle.logs.glob(bundle.local_queue("*").name))


def write_queue(path: Path, queue: Queue) -> None:
    """Replace a state file.

    Raises
    ------
    ValskaError
        If it cannot be written.
    """
    write_atomic(path, _encoded(queue))


def create_queue(path: Path, queue: Queue) -> bool:
    """Make a state file, whole, unless there is one; return whether it was made.

    Of a supervisor that starts and a submit that gives it up, only one can succeed.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.write_bytes(_encoded(queue))
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def encode_job(job: LocalJob) -> dict[str, Any]:
    """Return a job's fields for JSON."""
    return {
        "job_id": job.job_id,
        "name": job.name,
        "stage": job.stage,
        "script": job.script,
        "args": list(job.args),
        "dependency": list(job.dependency),
        "corresponding": list(job.corresponding),
        "limit_s": job.limit_s,
        "grace_s": job.grace_s,
        "cpus": job.cpus,
        "throttle": job.throttle,
        "tasks": write_ranges(job.tasks),
        "running": [_running(index, one) for index, one in job.progress.items() if one.process],
        "ended": _ended(job.progress),
    }


def decode_job(data: Mapping[str, Any], supervisor: ProcessIdentity | None = None) -> LocalJob:
    """Return a job from its JSON fields; its processes are on its supervisor's host.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a field is missing or of a wrong type.
    """
    fields = {key: data[key] for key in data if key not in ("running", "ended")}
    progress: dict[Index, Progress] = {}
    for indices, state, *rest in data["ended"]:
        one = Progress(JobState(state), None, *rest)
        progress.update(dict.fromkeys((None,) if indices is None else read_ranges(indices), one))
    if supervisor is not None:
        for index, pid, start, started_utc in data["running"]:
            process = ProcessIdentity(supervisor.host, supervisor.boot, pid, start)
            progress[index] = Progress(JobState.RUNNING, process, started_utc=started_utc)
    return LocalJob(
        **{
            **fields,
            "args": tuple(data["args"]),
            "dependency": tuple(data["dependency"]),
            "corresponding": tuple(data["corresponding"]),
            "tasks": tuple(read_ranges(data["tasks"])),
            "progress": progress,
        }
    )


def _running(index: Index, progress: Progress) -> list[Any]:
    process = progress.process
    assert process is not None  # noqa: S101 - the caller asked
    return [index, process.pid, process.start, progress.started_utc]


def _ended(progress: Mapping[Index, Progress]) -> list[list[Any]]:
    """Return which tasks ended in each way; those that ended alike share one `Progress`."""
    alike: dict[int, tuple[Progress, list[Index]]] = {}
    for index, one in progress.items():
        if one.process is None:
            alike.setdefault(id(one), (one, []))[1].append(index)
    return [
        [
            write_ranges(index for index in indices if index is not None) or None,
            one.state.value,
            one.exit_code,
            one.signal,
            one.reason,
            one.started_utc,
            one.ended_utc,
        ]
        for one, indices in alike.values()
    ]


def _encoded(queue: Queue) -> bytes:
    data = {
        "schema_version": SCHEMA_VERSION,
        "token": queue.token,
        "supervisor": queue.supervisor.as_json() if queue.supervisor else None,
        "jobs": [encode_job(job) for job in queue.jobs],
    }
    return (json.dumps(data, separators=(",", ":")) + "\n").encode()


def _from_json(data: Mapping[str, Any]) -> Queue:
    supervisor = read_identity(data["supervisor"]) if data["supervisor"] else None
    jobs = tuple(decode_job(job, supervisor) for job in data["jobs"])
    return Queue(data["token"], supervisor, jobs)
