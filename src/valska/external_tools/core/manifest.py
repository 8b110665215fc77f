"""The manifest: the intent of a run, written once and sealed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import valska
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.run_directory import COMMON, Bundle
from valska.external_tools.core.schema import SchemaError, validate
from valska.external_tools.core.tool import Launch, Resume, Stage
from valska.external_tools.core.utils import (
    load_json,
    sha256_bytes,
    utc_now_iso,
    write_json_atomic,
)

SCHEMA = "manifest-1"
SCHEMA_VERSION = "1.0"
POINT_SCHEMA = "point-1"
BASE_FIELDS = ("tool", "created_utc", "valska_version", "run_id", "run_dir", "results_root")


class ManifestError(ValskaError):
    """A manifest is invalid."""

    exit_code = 5


class MissingManifestError(ManifestError):
    """There is no manifest."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestBase:
    """The fields that every manifest has, of whatever tool."""

    tool: str
    created_utc: str
    valska_version: str
    run_id: str
    run_dir: str
    results_root: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEntry(Stage):
    """A stage as the manifest has it: with its directives and its script's name."""

    directives: Mapping[str, str]
    script: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputEntry:
    """A staged input: logical name, place in the bundle, digest, size in bytes."""

    name: str
    path: str
    sha256: str
    size: int
    mode: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A sealed file: place in the bundle, digest, size in bytes, role."""

    path: str
    sha256: str
    size: int
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BorrowedEntry:
    """A borrowed directory: place in the bundle, where it lies, tree digest, files and bytes."""

    path: str
    source: str
    sha256: str
    files: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(ManifestBase):
    """A whole manifest of a bundle, or of a point of a sweep, read and checked.

    `shared` names, for a point, the stages that shared work does for it, with its label.
    """

    schema_version: str
    bundle_id: str
    instance: str
    spec: Mapping[str, Any]
    stages: tuple[StageEntry, ...]
    runner: str
    image: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None
    inputs: tuple[InputEntry, ...]
    files: tuple[FileEntry, ...]
    git: Mapping[str, Any] | None
    parent: str | None
    section: Mapping[str, Any]
    shared: Mapping[str, str] = field(default_factory=dict)
    borrowed: tuple[BorrowedEntry, ...] = ()

    def stage(self, name: str) -> StageEntry:
        """Return a stage by name.

        Raises
        ------
        UsageError
            If there is none of that name.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise UsageError(f"there is no stage {name!r}", f"The stages: {names}.")

    def outside(self) -> dict[str, str]:
        """Return what lies outside, place to real path when it was made: inputs, directories."""
        inputs = {entry.path: entry.source for entry in self.inputs if entry.mode == "reference"}
        return inputs | {entry.path: entry.source for entry in self.borrowed}


FIELDS = frozenset(Manifest.__dataclass_fields__) - {"section"}
"""Names of the manifest's own fields; no tool's section can have one of them."""


def bundle_id(
    tool: str,
    configs: Mapping[str, bytes],
    stages: tuple[Stage, ...],
    inputs: Mapping[str, str],
    software: str | None,
) -> str:
    """Return the digest of what determines the science of a run.

    It is the SHA-256 of the RFC 8785 canonical JSON of the tool, the digests of its rendered
    configurations, command and ranks per stage, the inputs, and the image or environment. Run
    id, paths, staging mode, directives, time, user and host are not in it.

    Parameters
    ----------
    tool
        Name of the tool.
    configs
        Name below ``config/`` to content.
    stages
        The stages.
    inputs
        Logical name to SHA-256.
    software
        SHA-256 of the image, or of the environment's package list; None if it is not known.

    Raises
    ------
    UsageError
        If a name or an argument is not UTF-8.
    """
    digests = {name: sha256_bytes(data) for name, data in configs.items()}
    return sha256_bytes(_canonical(_science(tool, digests, stages, inputs, software)))


def _science(
    tool: str,
    digests: Mapping[str, str],
    stages: tuple[Stage, ...],
    inputs: Mapping[str, str],
    software: str | None,
) -> dict[str, Any]:
    return {
        "tool": tool,
        "configs": dict(digests),
        "stages": {
            stage.name: {"argv": list(stage.argv), "ranks": stage.ranks} for stage in stages
        },
        "inputs": dict(inputs),
        "software": software,
    }


def _canonical(value: Any) -> bytes:
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise UsageError(
            f"a command or a name in this run cannot be written down: {error}", "Use UTF-8 only."
        ) from error


class Science:
    """What determines the science of many runs that differ in their configurations only.

    Parameters
    ----------
    tool, stages, inputs, software
        See `bundle_id`.

    Raises
    ------
    UsageError
        If a name or an argument is not UTF-8.
    """

    __slots__ = ("_head", "_tail", "_templates")

    def __init__(
        self,
        tool: str,
        stages: tuple[Stage, ...],
        inputs: Mapping[str, str],
        software: str | None,
    ) -> None:
        science = _science(tool, {}, stages, inputs, software)
        configs = b'{"configs":{'
        whole = _canonical(science)
        # Its members are sorted by name, and none comes before this one.
        assert whole.startswith(configs + b"}")  # noqa: S101
        self._head, self._tail = configs, whole[len(configs) :]
        self._templates: dict[tuple[str, ...], tuple[tuple[str, bytes], ...]] = {}

    def bundle_id(self, digests: Mapping[str, str]) -> str:
        """Return the bundle id of the run with these configurations, as `bundle_id` does.

        Parameters
        ----------
        digests
            Name below ``config/`` to SHA-256.
        """
        names = tuple(digests)
        template = self._templates.get(names)
        if template is None:
            order = sorted(names, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
            template = tuple((name, _canonical(name) + b':"') for name in order)
            self._templates[names] = template
        members = b",".join([key + digests[name].encode() + b'"' for name, key in template])
        return sha256_bytes(self._head + members + self._tail)


def write_manifest(
    run_dir: Path,
    *,
    tool: str,
    run_id: str,
    results_root: Path | None,
    extra_fields: Mapping[str, Any] | None = None,
    recorded_run_dir: Path | None = None,
    created_utc: str | None = None,
) -> Path:
    """Write ``manifest.json`` with the required fields and more.

    Parameters
    ----------
    run_dir
        Directory to write into.
    tool, run_id, results_root
        See `ManifestBase`.
    extra_fields
        Further fields; they cannot replace a required one.
    recorded_run_dir
        What to record as ``run_dir``, where that is not `run_dir` (a bundle is built beside its
        final place).
    created_utc
        ISO 8601 time; now, if not given.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    ManifestError
        If the result would not be valid.
    """
    extra = dict(extra_fields or {})
    clash = sorted({*BASE_FIELDS, "schema_version"} & extra.keys())
    if clash:
        raise ManifestError(f"extra fields cannot replace {', '.join(clash)}")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "tool": tool,
        "created_utc": created_utc or utc_now_iso(),
        "valska_version": valska.__version__,
        "run_id": run_id,
        "run_dir": os.fspath((recorded_run_dir or run_dir).absolute()),
        "results_root": None if results_root is None else os.fspath(results_root.absolute()),
        **extra,
    }
    validate_manifest(manifest)
    path = Bundle(run_dir).manifest
    write_json_atomic(path, manifest)
    return path


def load_manifest(run_dir: Path) -> dict[str, Any]:
    """Read and check the manifest of a run directory.

    Raises
    ------
    MissingManifestError
        If there is none.
    ManifestError
        If it cannot be read or is not valid.
    """
    manifest = _load_own(run_dir)
    validate_manifest(manifest)
    return manifest


def load_point(run_dir: Path, sweep: Path) -> dict[str, Any]:
    """Read and check the manifest of a point of a sweep, whole: with what all points share.

    Raises
    ------
    MissingManifestError, ManifestError
        See `load_manifest`.
    """
    point = _load_own(run_dir)
    _check_version(point)
    _check(point, POINT_SCHEMA)
    manifest = merge_point(_load(sweep / COMMON), point)
    validate_manifest(manifest)
    return manifest


def _load_own(run_dir: Path) -> dict[str, Any]:
    path = Bundle(run_dir).manifest
    if not path.is_file():
        raise MissingManifestError(
            f"no manifest in {run_dir}", "Name the directory that `valska bundle` made."
        )
    return _load(path)


def merge_point(common: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole manifest of a point, from what all points share and what it has alone.

    Files that all share are named as in a bundle, though they lie in the sweep's directory. Of
    the shared inputs only those are in it that the point reads.
    """
    used = point["inputs"]
    inputs = [entry for entry in common["inputs"] if used.get(entry["name"]) == entry["path"]]
    spare = {entry["path"] for entry in common["inputs"]} - set(used.values())
    files = [entry for entry in common["files"] if entry["path"] not in spare]
    spec = common["spec"]
    stage = point.get("stage")
    own = {name: point[name] for name in ("run_id", "bundle_id", "shared")}
    return {
        **common,
        **own,
        "run_dir": _place_in(common["run_dir"], "points" if stage is None else "shared", point),
        "spec": {
            **spec,
            "overrides": {**spec["overrides"], **point["values"]},
            "perturbations": {**spec.get("perturbations", {}), **point["perturbations"]},
        },
        "stages": [s for s in common["stages"] if stage in (None, s["name"])],
        "inputs": inputs,
        "files": sorted([*point["files"], *files], key=lambda entry: str(entry["path"])),
        common["tool"]: point.get(common["tool"], {}),
    }


def _place_in(run_dir: str, folder: str, point: Mapping[str, Any]) -> str:
    return os.path.join(run_dir, folder, point["label"])  # noqa: PTH118 - of another machine


def common_manifest(sweep: Path) -> Manifest:
    """Return what all points of a sweep share, with its own id as the run id and no bundle id.

    Raises
    ------
    ManifestError
        If it cannot be read or is not valid.
    """
    data = _load(sweep / COMMON)
    data = {"run_id": data.get("sweep_id"), **data, "bundle_id": "0" * 64}
    validate_manifest(data)
    return _typed({**data, "bundle_id": ""})


def _load(path: Path) -> dict[str, Any]:
    try:
        return load_json(path)
    except ValskaError as error:
        raise ManifestError(error.message, "Restore the bundle from its origin.") from error


def validate_manifest(manifest: Mapping[str, Any]) -> None:
    """Check a manifest's version and fields.

    Unknown fields are allowed: a later minor version may add some.

    Raises
    ------
    ManifestError
        With every fault; or if its major version is another.
    """
    _check_version(manifest)
    _check(manifest, SCHEMA)


def _check_version(manifest: Mapping[str, Any]) -> None:
    writer = manifest.get("valska_version", "an unknown version")
    version = str(manifest.get("schema_version", SCHEMA_VERSION))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ManifestError(
            f"the manifest has schema version {version} (written by valska {writer}); "
            f"valska {valska.__version__} reads version {SCHEMA_VERSION}",
            f"Use valska {writer}, or make the bundle again.",
        )


def _check(manifest: Mapping[str, Any], schema: str) -> None:
    writer = manifest.get("valska_version", "an unknown version")
    try:
        validate(manifest, schema, f"the manifest (written by valska {writer})")
    except SchemaError as error:
        raise ManifestError(error.message, "Restore it from its origin.") from error


def read_manifest(bundle: Bundle) -> Manifest:
    """Read the manifest of a bundle, or of a point of a sweep, into its types.

    Raises
    ------
    ManifestError
        See `load_manifest`; or if it is not a bundle's manifest.
    """
    if bundle.common is None:
        data = load_manifest(bundle.path)
    else:
        data = load_point(bundle.path, bundle.common)
    if "bundle_id" not in data:
        raise ManifestError(f"the manifest in {bundle.path} is not that of a bundle")
    return _typed(data)


def _typed(data: Mapping[str, Any]) -> Manifest:
    known = {
        "schema_version": data["schema_version"],
        **{name: data[name] for name in BASE_FIELDS},
        **{
            name: data[name]
            for name in ("bundle_id", "instance", "spec", "runner", "image", "git", "parent")
        },
    }
    return Manifest(
        **known,
        environment=data.get("environment"),
        stages=tuple(_stage_entry(stage) for stage in data["stages"]),
        inputs=tuple(
            InputEntry(**{key: entry[key] for key in InputEntry.__dataclass_fields__})
            for entry in data["inputs"]
        ),
        files=tuple(
            FileEntry(**{key: entry[key] for key in FileEntry.__dataclass_fields__})
            for entry in data["files"]
        ),
        section=data.get(data["tool"], {}),
        shared=data.get("shared", {}),
        borrowed=tuple(
            BorrowedEntry(**{key: entry[key] for key in BorrowedEntry.__dataclass_fields__})
            for entry in data.get("borrowed", ())
        ),
    )


def _stage_entry(data: Mapping[str, Any]) -> StageEntry:
    resume = data.get("resume")
    return StageEntry(
        name=data["name"],
        argv=tuple(data["argv"]),
        after=tuple(data["after"]),
        outputs=tuple(data["outputs"]),
        env=data["env"],
        ranks=data["ranks"],
        probe=tuple(data.get("probe", ())),
        launch=Launch(data["launch"]),
        gpus=data["gpus"],
        lends=tuple(data.get("lends", ())),
        resume=Resume(resume["pattern"], resume["option"]) if resume else None,
        directives=data["directives"],
        script=data["script"],
    )
