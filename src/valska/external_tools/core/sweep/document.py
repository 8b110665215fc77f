"""The sweep's manifest: which points there are, and which work some of them share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import valska
from valska.external_tools.core.errors import UsageError, ValskaError, VerificationError
from valska.external_tools.core.manifest import (
    POINT_SCHEMA,
    Manifest,
    ManifestError,
    common_manifest,
)
from valska.external_tools.core.schema import SchemaError, validate
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import load_json, write_atomic

SCHEMA = "sweep-1"
SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class PointEntry:
    """A point as the sweep's manifest has it.

    Parameters
    ----------
    label
        Name of its directory below ``points/``.
    values
        Configuration key to value.
    perturbations
        Configuration key to fraction.
    bundle_id
        Digest of its science.
    seal
        SHA-256 of its ``SHA256SUMS``.
    shared
        Stage to the label of the shared work that does it for this point.
    alone
        Stage that the point does for itself to the label that this work would have if several
        points shared it.
    """

    label: str
    values: Mapping[str, Any]
    perturbations: Mapping[str, float]
    bundle_id: str
    seal: str
    shared: Mapping[str, str] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it lies in the sweep."""
        return f"points/{self.label}"


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """Work that several points share.

    Parameters
    ----------
    label
        Name of its directory below ``shared/``.
    stage
        The one stage that it is.
    key_sha256
        Digest of the key of all that determines the work.
    bundle_id, seal
        See `PointEntry`.
    """

    label: str
    stage: str
    key_sha256: str
    bundle_id: str
    seal: str

    @property
    def place(self) -> str:
        """Where it lies in the sweep."""
        return f"shared/{self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepManifest:
    """The manifest of a sweep, read and checked.

    Parameters
    ----------
    tool, sweep_id, created_utc, instance
        As when the sweep was made.
    changed_utc, valska_version
        When points were added last, and by which version.
    common_seal
        SHA-256 of the sweep's ``SHA256SUMS``.
    points
        In the order in which they were given.
    shared
        Work that several points share.
    """

    tool: str
    sweep_id: str
    created_utc: str
    changed_utc: str
    instance: str
    common_seal: str
    points: tuple[PointEntry, ...]
    shared: tuple[SharedEntry, ...] = ()
    valska_version: str = valska.__version__

    def by_label(self) -> dict[str, PointEntry]:
        """Return the points by label."""
        return {point.label: point for point in self.points}

    def point(self, label: str) -> PointEntry:
        """Return a point by label.

        Raises
        ------
        UsageError
            If there is none of that label.
        """
        for point in self.points:
            if point.label == label:
                return point
        raise UsageError(
            f"this sweep has no point {label!r}",
            did_you_mean(label, [point.label for point in self.points])
            or "`valska status` lists its points.",
        )


def read_sweep_manifest(sweep: Sweep) -> SweepManifest:
    """Read the manifest of a sweep into its types.

    Raises
    ------
    ManifestError
        If it cannot be read, is not valid, has another major version, or names a unit twice or
        shared work that it does not have.
    """
    try:
        data = load_json(sweep.manifest)
    except ValskaError as error:
        raise ManifestError(error.message, "Restore the sweep from its origin.") from error
    check_sweep_document(data)
    points = tuple(map(_point_entry, data["points"]))
    shared = tuple(
        SharedEntry(**{name: entry[name] for name in SharedEntry.__dataclass_fields__})
        for entry in data["shared"]
    )
    _refuse_twice([point.label for point in points])
    _refuse_twice([entry.label for entry in shared])
    _refuse_unknown_work(points, shared)
    return SweepManifest(
        points=points,
        shared=shared,
        **{name: data[name] for name in _PLAIN},
    )


def write_sweep_manifest(sweep: Sweep, manifest: SweepManifest) -> None:
    """Write or replace the manifest of a sweep, whole or not at all; one point a line.

    Raises
    ------
    ManifestError
        If it would not be valid.
    ValskaError
        If it cannot be written.
    """
    head = {"schema_version": SCHEMA_VERSION, **{name: getattr(manifest, name) for name in _PLAIN}}
    points = [_point_json(point) for point in manifest.points]
    shared = [asdict(entry) for entry in manifest.shared]
    check_sweep_document({**head, "points": points, "shared": shared})
    lines = [f"  {_text(name)}: {_text(value)}," for name, value in head.items()]
    text = "\n".join(
        [
            "{",
            *lines,
            f'  "points": {_one_a_line(points)},',
            f'  "shared": {_one_a_line(shared)}',
            "}\n",
        ]
    )
    write_atomic(sweep.manifest, text.encode())


def check_sweep_document(data: Mapping[str, Any]) -> None:
    """Check the JSON of a sweep's manifest: its version, then its fields.

    Raises
    ------
    ManifestError
        With every fault; or if its major version is another.
    """
    writer = data.get("valska_version", "an unknown version")
    version = str(data.get("schema_version", SCHEMA_VERSION))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ManifestError(
            f"the sweep has schema version {version} (written by valska {writer}); "
            f"valska {valska.__version__} reads version {SCHEMA_VERSION}",
            f"Use valska {writer}, or make the sweep again.",
        )
    try:
        validate(data, SCHEMA, f"the sweep's manifest (written by valska {writer})")
    except SchemaError as error:
        raise ManifestError(error.message, "Restore it from its origin.") from error


def read_common(sweep: Sweep) -> Manifest:
    """Return what all points have in common as a manifest: stages, inputs, image and so on.

    Its run id is the sweep's, its bundle id empty (each point has one), and it has no values.

    Raises
    ------
    ManifestError
        If it cannot be read or is not valid.
    """
    return common_manifest(sweep.path)


_PLAIN = (
    "tool",
    "sweep_id",
    "created_utc",
    "changed_utc",
    "valska_version",
    "instance",
    "common_seal",
)


def read_unit_document(sweep: Sweep, place: str) -> dict[str, Any]:
    """Return what the own manifest of a point, or of shared work, holds.

    Raises
    ------
    VerificationError
        If it is not valid.
    ValskaError
        If it cannot be read.
    """
    data = load_json(sweep.unit(place).manifest)
    try:
        validate(data, POINT_SCHEMA, f"the manifest of {place}")
    except SchemaError as error:
        raise VerificationError(error.message, "Take the sweep from its origin.") from error
    return data


def _point_entry(data: Mapping[str, Any]) -> PointEntry:
    return PointEntry(
        data["label"],
        data["values"],
        data["perturbations"],
        data["bundle_id"],
        data["seal"],
        data["shared"],
        data.get("alone", {}),
    )


def _point_json(point: PointEntry) -> dict[str, Any]:
    data = {
        "label": point.label,
        "values": point.values,
        "perturbations": point.perturbations,
        "bundle_id": point.bundle_id,
        "seal": point.seal,
        "shared": point.shared,
    }
    return {**data, "alone": point.alone} if point.alone else data


def _one_a_line(entries: Iterable[Mapping[str, Any]]) -> str:
    lines = ",\n".join(f"    {_text(entry)}" for entry in entries)
    return f"[\n{lines}\n  ]" if lines else "[]"


_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _refuse_unknown_work(points: Iterable[PointEntry], shared: Iterable[SharedEntry]) -> None:
    stages = {entry.label: entry.stage for entry in shared}
    for point in points:
        for stage, label in point.shared.items():
            if stages.get(label) != stage:
                raise ManifestError(
                    f"the sweep's manifest has no shared work {label!r} of stage {stage}, "
                    f"which point {point.label!r} needs",
                    "Restore it from its origin.",
                )


def _refuse_twice(labels: list[str]) -> None:
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ManifestError(
            f"the sweep's manifest names {twice!r} twice", "Restore it from its origin."
        )
