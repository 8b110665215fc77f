"""Bundles made by hand, small and real: valid manifest and seal, plain bash scripts."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import write_seal
from valska.external_tools.core.utils import sha256_file

FAKES = Path(__file__).parents[1] / "data/fakeslurm"
DIGEST = "0" * 64

# Writes its record as a job script does, and a line into outputs/ran for each start.
SCRIPT = """#!/bin/bash
cd "$(dirname "$0")" || exit 3
stage={stage} record=records/{stage}-$VALSKA_JOB_ID-r0.json
write() {{
    printf '{{"schema_version": "1.0", "stage": "%s", "state": "%s", "job": {{"scheduler": "local",
    "id": "%s", "task": null, "restart": 0, "name": "%s"}}, "pid": %d, "bundle_id": "{digest}",
    "instance": "{instance}", "seal": "%s", "valska_version": "1",
    "started_utc": "2026-01-02T03:04:05Z", "ended_utc": null, "elapsed_s": null, "exit_code": %s,
    "signal": %s, "reason": null, "host": {{"name": "%s", "kernel": "k", "cpu": "c", "cpus": 1,
    "memory_kib": 1, "gpus": []}}, "slurm": {{}}, "runner": {{"kind": "host", "version": null,
    "command": []}}, "image": null, "environment": null, "site_env_sha256": null,
    "inputs_checked": 0, "outputs": [], "missing_outputs": []}}' "$stage" "$1" "$VALSKA_JOB_ID" \\
        "$VALSKA_JOB_NAME" $$ "${{seal:-{digest}}}" "$2" "$3" "$HOSTNAME" >"$record.tmp"
    mv "$record.tmp" "$record"
}}
mkdir -p records outputs
seal=$1
trap 'kill "$child"; write signalled 143 "\\"TERM\\""; exit 143' TERM
echo "$stage" >>outputs/ran
write running null null
payload() {{
{body}
}}
payload &
child=$!
wait "$child"
code=$?
if ((code == 0)); then write completed 0 null; else write failed "$code" null; fi
exit "$code"
"""


def make_bundle(path: Path, stages: Mapping[str, Mapping[str, Any]]) -> Bundle:
    """Make a bundle; a stage has `after`, `directives` and `body`, all optional."""
    path.mkdir(parents=True)
    bundle = Bundle(path)
    files = []
    for name, stage in stages.items():
        script = bundle.script(name)
        body = stage.get("body", "true")
        text = SCRIPT.format(stage=name, body=body, digest=DIGEST, instance="0" * 32)
        script.write_text(text)
        size, digest = script.stat().st_size, sha256_file(script)
        files.append({"path": script.name, "sha256": digest, "size": size, "role": "script"})
    bundle.manifest.write_text(json.dumps(_manifest(path, stages, files)))
    write_seal(bundle, {entry["path"]: entry["sha256"] for entry in files})
    return bundle


def manifest_of(bundle: Bundle) -> Manifest:
    return read_manifest(bundle)


def _manifest(path: Path, stages: Mapping[str, Mapping[str, Any]], files: Any) -> dict[str, Any]:
    entries = [
        {
            "name": name,
            "argv": ["true"],
            "after": list(stage.get("after", ())),
            "outputs": [],
            "env": {},
            "ranks": 1,
            "launch": "mpiexec",
            "gpus": False,
            "lends": list(stage.get("lends", ())),
            "directives": dict(stage.get("directives", {})),
            "script": f"submit_{name}.sh",
        }
        for name, stage in stages.items()
    ]
    return {
        "schema_version": "1.0",
        "tool": "handmade",
        "created_utc": "2026-01-02T03:04:05Z",
        "valska_version": "1",
        "run_id": "run",
        "run_dir": str(path),
        "results_root": None,
        "bundle_id": DIGEST,
        "instance": "0" * 32,
        "spec": {"source": "x.yaml", "taxonomy": {}, "overrides": {}},
        "stages": entries,
        "runner": "host",
        "image": None,
        "inputs": [],
        "files": files,
        "git": None,
        "parent": None,
    }


def record_json(
    stage: str, job_id: str, state: str = "completed", **changes: Any
) -> dict[str, Any]:
    """Return a valid stage record."""
    job = {"scheduler": "slurm", "id": job_id, "task": None, "restart": 0, "name": None}
    job |= {key: changes.pop(key) for key in list(changes) if key in job}
    return {
        "schema_version": "1.0",
        "stage": stage,
        "state": state,
        "job": job,
        "bundle_id": DIGEST,
        "instance": "0" * 32,
        "seal": DIGEST,
        "valska_version": "1",
        "started_utc": "2026-01-02T03:04:05Z",
        "ended_utc": None if state == "running" else "2026-01-02T03:04:15Z",
        "elapsed_s": None if state == "running" else 10,
        "exit_code": {"running": None, "completed": 0, "signalled": 143}.get(state, 1),
        "signal": "TERM" if state == "signalled" else None,
        "reason": None,
        "host": {
            "name": "elsewhere", "kernel": "k", "cpu": "c", "cpus": 1, "memory_kib": 1, "gpus": []
        },
        "slurm": {},
        "runner": {"kind": "host", "version": None, "command": ["true"]},
        "image": None,
        "environment": None,
        "site_env_sha256": None,
        "inputs_checked": 0,
        "outputs": [],
        "missing_outputs": [],
        **changes,
    }  # fmt: skip


def put_record(bundle: Bundle, stage: str, job_id: str, state: str, **changes: Any) -> Path:
    """Write a stage record into a bundle."""
    bundle.records.mkdir(exist_ok=True)
    record = record_json(stage, job_id, state, **changes)
    path = bundle.records / f"{stage}-{job_id}-r{record['job']['restart']}.json"
    path.write_text(json.dumps(record))
    return path


def eventually(condition: Callable[[], Any], bound_s: float = 20.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    end = time.monotonic() + bound_s
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return found


class FakeSlurm:
    """The directory in which the programs of tests/data/fakeslurm keep what they know."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        (path / "queue").touch()

    @property
    def environment(self) -> dict[str, str]:
        path = f"{FAKES}:{os.environ['PATH']}"
        return {**os.environ, "FAKE_SLURM": str(self.path), "PATH": path}

    def fault(self, word: str) -> None:
        """Let the next sbatch do something else."""
        (self.path / "next").write_text(word)

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Return id to name and state."""
        lines = [line.split("|") for line in (self.path / "queue").read_text().splitlines()]
        return {line[0]: (line[5], line[1]) for line in lines}

    def set_state(self, job_id: str, state: str) -> None:
        lines = [line.split("|") for line in (self.path / "queue").read_text().splitlines()]
        for line in lines:
            if line[0] == job_id:
                line[1] = state
        (self.path / "queue").write_text("".join("|".join(line) + "\n" for line in lines))

    def forget_jobs(self) -> None:
        """Drop the ended jobs from the controller's memory."""
        text = (self.path / "queue").read_text().splitlines()
        kept = [line for line in text if line.split("|")[1] in ("PENDING", "RUNNING")]
        (self.path / "queue").write_text("".join(line + "\n" for line in kept))

    def dependencies(self) -> dict[str, str]:
        lines = (self.path / "dependencies").read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def calls(self) -> list[str]:
        path = self.path / "calls"
        return path.read_text().splitlines() if path.exists() else []
