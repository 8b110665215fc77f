"""comparison.json: a comparison as a document that can be checked and kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from valska.external_tools.core.comparison.runs import Comparison
from valska.external_tools.core.comparison.sweeps import (
    SweepComparison,
    SweepIdentity,
    UnitComparison,
)
from valska.external_tools.core.comparison.verdict import (
    Largest,
    OutputComparison,
    OutputFile,
    Part,
)
from valska.external_tools.core.schema import validate

SCHEMA = "comparison-1"
SCHEMA_VERSION = "1.1"
FILE_NAME = "comparison.json"


def to_json(comparison: Comparison | SweepComparison) -> dict[str, Any]:
    """Return a comparison as JSON types, checked against its schema."""
    whole = _sweep(comparison) if isinstance(comparison, SweepComparison) else _run(comparison)
    tolerances = comparison.tolerances
    data = {
        "schema_version": SCHEMA_VERSION,
        "valska_version": comparison.valska_version,
        "created_utc": comparison.created_utc,
        "verdict": comparison.verdict.value,
        "tool": comparison.tool,
        "tolerances": {
            "rtol": tolerances.relative,
            "rtol_given": tolerances.rtol is not None,
            "atol": tolerances.atol,
            "sigma": tolerances.sigma,
        },
        **whole,
        "intent": [{**asdict(one), "kind": one.kind.value} for one in comparison.intent],
        "notes": list(comparison.notes),
    }
    validate(data, SCHEMA, "the comparison")
    return data


def _run(comparison: Comparison) -> dict[str, Any]:
    return {
        "kind": "run",
        "reference": asdict(comparison.reference),
        "new": asdict(comparison.new),
        "stages": [asdict(stage) for stage in comparison.stages],
        "outputs": [_output(one) for one in comparison.outputs],
    }


def _sweep(comparison: SweepComparison) -> dict[str, Any]:
    shared = ("values", "perturbations", "shared")
    return {
        "kind": "sweep",
        "reference": _identity(comparison.reference),
        "new": _identity(comparison.new),
        "stages": [],
        "outputs": [],
        "points": [
            {**_unit(one), **{name: dict(getattr(one, name)) for name in shared}}
            for one in comparison.points
        ],
        "shared": [_unit(one) for one in comparison.shared],
        "left_out": list(comparison.left_out),
    }


def _identity(one: SweepIdentity) -> dict[str, Any]:
    known = asdict(one)
    return {"place": known.pop("place"), "run_id": known.pop("sweep_id"), "bundle_id": None} | known


def _unit(one: UnitComparison) -> dict[str, Any]:
    return {
        "label": one.label,
        "place": one.place,
        "verdict": one.verdict.value,
        "reference": asdict(one.reference),
        "new": asdict(one.new) if one.new else None,
        "stages": [asdict(stage) for stage in one.stages],
        "outputs": [_output(output) for output in one.outputs],
        "notes": list(one.notes),
    }


def _output(one: OutputComparison) -> dict[str, Any]:
    return {
        "path": one.path,
        "verdict": one.verdict.value,
        "method": one.method,
        "reference": _file(one.reference),
        "new": _file(one.new),
        "parts": [_part(part) for part in one.parts],
        "covers": list(one.covers),
        "notes": list(one.notes),
    }


def _file(file: OutputFile | None) -> dict[str, Any] | None:
    if file is None:
        return None
    return {
        "path": file.path,
        "size": file.size,
        "sha256": file.sha256,
        "there": file.file is not None,
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "verdict": part.verdict.value,
        "counted": part.counted,
        "detail": part.detail,
        "differing": part.differing,
        "total": part.total,
        "largest_absolute": _largest(part.absolute),
        "largest_relative": _largest(part.relative),
        "sigma": part.sigma,
    }


def _largest(one: Largest | None) -> dict[str, Any] | None:
    return None if one is None else {**asdict(one), "index": list(one.index)}
