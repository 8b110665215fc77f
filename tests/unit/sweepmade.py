"""Sweeps as valska makes them, small and real, and arrays as if they had been sent."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handmade import record_json
from toy import Toy, data_file

from valska.external_tools.core.bundling import BundleRequest
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.sweep.document import SweepManifest, read_sweep_manifest
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.sweep.planning.points import Point
from valska.external_tools.core.sweep.writing.making import SweepRequest, create_sweep, draft_sweep
from valska.external_tools.core.tool import RunPlan, RunSpec, Stage
from valska.external_tools.core.utils import sha256_bytes, sha256_file

TOKEN = "0a1b2c3d"
STAGES: Mapping[str, Mapping[str, Any]] = {
    "pre": {"lends": ["matrices"], "outputs": ["matrices/m.bin"]},
    "fit": {"after": ["pre"], "directives": {"time": "10", "signal": "B:TERM@60"}},
    "null": {"after": ["pre"]},
}
WORK = f"pre-{sha256_bytes(b'work')[:12]}"
"""Label of the work that points share."""


@dataclass(frozen=True)
class SweepToy(Toy):
    """Has one key, ``x``; the points that it is told share the stage ``pre``."""

    sharing: Sequence[str] = field(default_factory=tuple)

    def plan(self, spec, inputs, read):
        key = "work" if spec.run_id in self.sharing else f"work of {spec.run_id}"
        return RunPlan(
            self.planned,
            {"run.yaml": f"x: {spec.overrides.get('x')}\n".encode()},
            self.taxonomy,
            shares={"pre": key} if self.sharing else {},
        )


def make_sweep(
    path: Path,
    labels: Iterable[str],
    stages: Mapping[str, Mapping[str, Any]] = STAGES,
    sharing: Sequence[str] = (),
) -> Sweep:
    """Make a sweep; the points `sharing` share the stage ``pre``, see `WORK`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = data_file(path.parent)
    planned = tuple(
        Stage(
            name,
            ("true",),
            after=tuple(s.get("after", ())),
            lends=tuple(s.get("lends", ())),
            outputs=tuple(s.get("outputs", ())),
            resume=s.get("resume"),
        )
        for name, s in stages.items()
    )
    directives = {name: dict(s.get("directives", {})) for name, s in stages.items()}
    base = BundleRequest(
        tool=SweepToy(planned, {"data.txt": source}, sharing=sharing),
        spec=RunSpec("toy", "s1", source, directives=directives),
        runner=RunnerKind.HOST,
        output=path,
    )
    points = tuple(Point(label, {"x": label}) for label in labels)
    made = create_sweep(draft_sweep(SweepRequest(base=base, points=points)))
    source.unlink()
    return made.sweep


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
