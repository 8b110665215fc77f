"""A sweep of many points sent to a stand-in for Slurm, and its status from a recorded answer."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measuring import (
    ENVIRONMENT,
    PROGRAMS,
    VALSKA,
    Figure,
    Measured,
    answer,
    figure,
    ratio,
    run_pairs,
    timed,
)

FAKES = Path(__file__).with_name("fakeslurm")
LARGEST_ARRAY = 1001
"""As the stand-in for scontrol says."""
STATUS_S = 2.0

_RECORD = {
    "schema_version": "1.0",
    "stage": "",
    "state": "",
    "job": {"scheduler": "slurm", "id": "", "task": "", "restart": 0, "name": ""},
    "pid": 4711,
    "bundle_id": "0" * 64,
    "instance": "0" * 32,
    "seal": "0" * 64,
    "valska_version": "1.0",
    "started_utc": "2026-01-02T03:04:05Z",
    "ended_utc": "2026-01-02T04:04:05Z",
    "elapsed_s": 3600,
    "exit_code": 0,
    "signal": None,
    "reason": None,
    "host": {
        "name": "n1", "kernel": "6.1.0", "cpu": "a processor", "cpus": 8, "memory_kib": 65536,
        "gpus": ["a GPU"],
    },
    "slurm": {"job_partition": "gpu", "job_account": "science"},
    "runner": {"kind": "host", "version": None, "command": ["python", "driver.py"]},
    "image": None,
    "environment": None,
    "site_env_sha256": None,
    "inputs_checked": 7,
    "outputs": [{"path": f"outputs/{n}/data-.txt", "sha256": "0" * 64, "size": 9} for n in "ab"],
    "missing_outputs": [],
}  # fmt: skip


def submitting(sweep: Path, points: int) -> Iterator[Figure]:
    """Count the calls of sbatch: one for each slice and stage."""
    stages = len(list(sweep.glob("submit_*.sh")))
    env = environment(sweep)
    for name in ("calls", "queue", "accounts"):
        (fake(sweep) / name).touch()
    used = timed([VALSKA, "submit", sweep, "--scheduler", "slurm"], env=env)
    calls = len((fake(sweep) / "calls").read_text().splitlines())
    most = -(-points // LARGEST_ARRAY) * stages
    yield Figure(f"calls of sbatch for {points:,} points, {stages} stages", calls, "", most)
    yield Figure(f"submitting {points:,} points", used.wall, "s", None, cpu=used.cpu)


def tracking(sweep: Path, count: int) -> Iterator[Figure]:
    """Time the status of a sweep most of which has completed."""
    expected = let_run(sweep)
    env = environment(sweep)
    command = [VALSKA, "status", sweep]
    check(json.loads(answer([*command, "--json"], env=env)), expected)

    def pair(_: int) -> Measured:
        floor = [sys.executable, PROGRAMS / "status_floor.py", sweep, fake(sweep) / "accounts"]
        return timed(floor), timed(command, env=env)

    pairs = run_pairs(pair, count)
    tasks = sum(expected.values())
    shown = f"status of {tasks:,} tasks"
    yield figure(shown, pairs, lambda _, used: used, unit="s", limit=STATUS_S)
    yield figure(f"{shown} / listing their records", pairs, ratio)
    memory = max(used.memory for _, used in pairs)
    yield Figure(f"memory for the {shown}", memory, "MB", None, pairs=len(pairs))


def fake(sweep: Path) -> Path:
    """Return the directory of the stand-ins for Slurm's programs."""
    return sweep.with_name("slurm")


def environment(sweep: Path) -> dict[str, str]:
    """Return an environment in which Slurm's programs are the stand-ins."""
    fake(sweep).mkdir(exist_ok=True)
    path = f"{FAKES}{os.pathsep}{ENVIRONMENT['PATH']}"
    return {**ENVIRONMENT, "PATH": path, "FAKE_SLURM": str(fake(sweep))}


@dataclass(frozen=True)
class Task:
    """A task of an array."""

    job: str
    index: int
    name: str
    stage: str
    place: Path

    @property
    def state(self) -> str:
        """What became of it: 1 in 100 failed, and 2 in 100 of the last stage still wait."""
        if self.stage == "signal_fit" and self.index % 100 == 7:
            return "failed"
        if self.stage == "no_signal" and self.index % 50 == 3:
            return "pending"
        return "completed"


def let_run(sweep: Path) -> Counter[str]:
    """Write what jobs and Slurm's accounts would hold; return the number of tasks by state."""
    states: Counter[str] = Counter()
    folder = fake(sweep)
    with (folder / "accounts").open("w") as accounts, (folder / "queue").open("w") as queue:
        for task in tasks_of(sweep):
            states[task.state] += 1
            if task.state == "pending":
                line = f"{task.job}_{task.index}|PENDING|Priority|0:00|12:00:00|{task.name}\n"
                queue.write(line)
                continue
            word, code = ("FAILED", 3) if task.state == "failed" else ("COMPLETED", 0)
            accounts.write(f"{task.job}_{task.index}|{word}|{code}:0|None|3600|720|{task.name}\n")
            put_record(task, code)
    return states


def tasks_of(sweep: Path) -> Iterator[Task]:
    """Yield what was sent."""
    for array in json.loads((sweep / "jobs.json").read_text())["arrays"]:
        listed = (sweep / array["list"]).read_text().splitlines()
        for index, line in enumerate(listed):
            place = sweep / line.split("  ")[1].removesuffix("/SHA256SUMS")
            yield Task(array["job_id"], index, array["name"], array["stage"], place)


def put_record(task: Task, code: int) -> None:
    """Write the record and the log of a task that has ended."""
    job = {"scheduler": "slurm", "id": task.job, "task": str(task.index), "restart": 0}
    record = {
        **_RECORD,
        "stage": task.stage,
        "state": task.state,
        "job": {**job, "name": task.name},
        "exit_code": code,
        "reason": f"exit code {code}" if code else None,
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
    stem = f"{task.stage}-{task.job}_{task.index}"
    for folder, name, text in (
        ("records", f"{stem}-r0.json", "{\n" + ",\n".join(lines) + "\n}\n"),
        ("logs", f"{stem}.log", "a line\n"),
    ):
        (task.place / folder).mkdir(exist_ok=True)
        (task.place / folder / name).write_text(text)


def check(status: dict[str, dict[str, dict[str, int]]], expected: Counter[str]) -> None:
    """Require that the status says what was written."""
    found: Counter[str] = Counter()
    for counts in status["counts"].values():
        found.update(counts)
    if found != expected:
        raise SystemExit(f"valska status found {dict(found)}, not {dict(expected)}")
