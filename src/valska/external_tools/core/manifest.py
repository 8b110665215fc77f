"""The manifest: the intent of a run, written once and sealed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import valska
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.run_directory import Bundle
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
class Manifest(ManifestBase):
    """A whole manifest of a bundle, read and checked."""

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
        raise UsageError(f"this bundle has no stage {name!r}", f"Its stages: {names}.")


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
    import rfc8785

    science: dict[str, Any] = {
        "tool": tool,
        "configs": {name: sha256_bytes(data) for name, data in configs.items()},
        "stages": {
            stage.name: {"argv": list(stage.argv), "ranks": stage.ranks} for stage in stages
        },
        "inputs": dict(inputs),
        "software": software,
    }
    try:
        return sha256_bytes(rfc8785.dumps(science))
    except rfc8785.CanonicalizationError as error:
        raise UsageError(
            f"a command or a name in this run cannot be written down: {error}", "Use UTF-8 only."
        ) from error


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
    path = Bundle(run_dir).manifest
    if not path.is_file():
        raise MissingManifestError(
            f"no manifest in {run_dir}", "Name the directory that `valska bundle` made."
        )
    try:
        manifest = load_json(path)
    except ValskaError as error:
        raise ManifestError(error.message, "Restore the bundle from its origin.") from error
    validate_manifest(manifest)
    return manifest


def validate_manifest(manifest: Mapping[str, Any]) -> None:
    """Check a manifest's version and fields.

    Unknown fields are allowed: a later minor version may add some.

    Raises
    ------
    ManifestError
        With every fault; or if its major version is another.
    """
    writer = manifest.get("valska_version", "an unknown version")
    version = str(manifest.get("schema_version", SCHEMA_VERSION))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ManifestError(
            f"the manifest has schema version {version} (written by valska {writer}); "
            f"valska {valska.__version__} reads version {SCHEMA_VERSION}",
            f"Use valska {writer}, or make the bundle again.",
        )
    try:
        validate(manifest, SCHEMA, f"the manifest (written by valska {writer})")
    except SchemaError as error:
        raise ManifestError(error.message, "Restore it from its origin.") from error


def read_manifest(bundle: Bundle) -> Manifest:
    """Read the manifest of a bundle into its types.

    Raises
    ------
    ManifestError
        See `load_manifest`; or if it is not a bundle's manifest.
    """
    data = load_manifest(bundle.path)
    if "bundle_id" not in data:
        raise ManifestError(f"the manifest in {bundle.path} is not that of a bundle")
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
