"""Sweeps made by hand: valid manifests and seals, and arrays as if they had been sent."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from handmade import DIGEST, make_bundle, record_json

from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.document import (
    PointEntry,
    SharedEntry,
    SweepManifest,
    read_sweep_manifest,
    write_sweep_manifest,
)
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import sha256_bytes, sha256_file

TOKEN = "0a1b2c3d"
STAGES: Mapping[str, Mapping[str, Any]] = {
    "pre": {},
    "fit": {"after": ["pre"], "directives": {"time": "10", "signal": "B:TERM@60"}},
    "null": {"after": ["pre"]},
}


def make_sweep(
    path: Path,
    labels: Iterable[str],
    stages: Mapping[str, Mapping[str, Any]] = STAGES,
    shared: Mapping[str, Sequence[str]] | None = None,
) -> Sweep:
    """Make a sweep; `shared` has a label of shared work of stage ``pre`` and its points."""
    common = make_bundle(path, stages)
    document = json.loads(common.manifest.read_text())
    common.manifest.unlink()
    for key in ("run_id", "bundle_id"):
        del document[key]
    sweep = Sweep(path)
    sweep.common.write_text(json.dumps({**document, "sweep_id": "s1"}, indent=1))
    names = [sweep.common.name, *(entry["path"] for entry in document["files"])]
    sums = "".join(f"{sha256_file(path / name)}  {name}\n" for name in sorted(names))
    common.sums.write_text(sums)
    lent = {label: work for work, points in (shared or {}).items() for label in points}
    works = [_shared(sweep, work) for work in shared or {}]
    points = [_point(sweep, label, lent.get(label)) for label in labels]
    utc = "2026-01-02T03:04:05Z"
    manifest = SweepManifest(
        tool="handmade",
        sweep_id="s1",
        created_utc=utc,
        changed_utc=utc,
        instance="0" * 32,
        common_seal=sha256_file(common.sums),
        points=tuple(points),
        shared=tuple(works),
    )
    write_sweep_manifest(sweep, manifest)
    return sweep


def _point(sweep: Sweep, label: str, work: str | None) -> PointEntry:
    shared = {"pre": work} if work else {}
    seal = _unit(sweep, sweep.point(label), shared, work)
    return PointEntry(label, {"x": label}, {}, DIGEST, seal, shared)


def _shared(sweep: Sweep, label: str) -> SharedEntry:
    seal = _unit(sweep, sweep.shared_unit(label), {}, None, stage="pre")
    return SharedEntry(label, "pre", DIGEST, DIGEST, seal)


def _unit(
    sweep: Sweep, unit: Bundle, shared: Mapping[str, str], work: str | None, **more: Any
) -> str:
    unit.config.mkdir(parents=True)
    text = f"x: {unit.path.name}\n"
    (unit.config / "run.yaml").write_text(text)
    digest = sha256_bytes(text.encode())
    config = {"path": "config/run.yaml", "sha256": digest, "size": len(text), "role": "config"}
    manifest = {
        "schema_version": "1.0",
        "label": unit.path.name,
        "run_id": unit.path.name,
        "bundle_id": DIGEST,
        "values": {"x": unit.path.name},
        "perturbations": {},
        "inputs": {},
        "files": [config],
        "shared": dict(shared),
        **more,
    }
    unit.manifest.write_text(json.dumps(manifest, indent=1))
    listed = {"config/run.yaml": digest, "manifest.json": sha256_file(unit.manifest)}
    listed["../../SHA256SUMS"] = sha256_file(sweep.bundle.sums)
    if work:
        place = f"../../shared/{work}/manifest.json"
        listed[place] = sha256_file(unit.path / place)
    unit.sums.write_text("".join(f"{listed[path]}  {path}\n" for path in sorted(listed)))
    return sha256_file(unit.sums)


def send(
    sweep: Sweep,
    stage: str,
    job_id: str | None,
    places: Sequence[str],
    tasks: str = "",
    **more: Any,
) -> None:
    """Write down an array as if it had been sent: its list and its entry in jobs.json."""
    sweep.arrays.mkdir(exist_ok=True)
    path = sweep.bundle.jobs
    document = json.loads(path.read_text()) if path.exists() else _jobs(sweep)
    name = more.pop("list", f"arrays/{TOKEN}-{len(document['arrays'])}.sums")
    seals = {}
    for place in places:
        seals[place] = sha256_file(sweep.unit(place).sums)
    text = "".join(f"{seals[place]}  {place}/SHA256SUMS\n" for place in places)
    (sweep.path / name).write_text(text)
    array = {
        "stage": stage,
        "name": f"vk-{TOKEN}-{stage}.0",
        "job_id": job_id,
        "list": name,
        "list_sha256": sha256_bytes(text.encode()),
        "tasks": tasks or f"0-{len(places) - 1}",
        "count": len(places),
        "dependency": None,
        "token": TOKEN,
        "submitted_utc": "2026-01-02T03:04:05Z",
        "scheduler": "slurm",
        "cluster": None,
        "command": ["sbatch"],
        "cancelled_utc": None,
        "resume": False,
        **more,
    }
    document["arrays"].append(array)
    path.write_text(json.dumps(document))


def _jobs(sweep: Sweep) -> dict[str, Any]:
    return {
        "schema_version": "1.0",
        "sweep": "s1",
        "submitted_utc": "2026-01-02T03:04:05Z",
        "scheduler": "slurm",
        "cluster": None,
        "sbatch": "sbatch",
        "token": TOKEN,
        "arrays": [],
    }


def put_task_record(
    sweep: Sweep, place: str, stage: str, job: str, state: str, **changes: Any
) -> Path:
    """Write the record of a task (``17_4``), or of a job that somebody sent by hand."""
    job_id, _, task = job.partition("_")
    unit = sweep.unit(place)
    record = record_json(stage, job_id, state, task=task or None, **changes)
    record["seal"] = sha256_file(unit.sums)
    unit.records.mkdir(exist_ok=True)
    path = unit.records / f"{stage}-{job}-r{record['job']['restart']}.json"
    path.write_text(json.dumps(record, indent=1))
    return path


def manifest_of(sweep: Sweep) -> SweepManifest:
    return read_sweep_manifest(sweep)
