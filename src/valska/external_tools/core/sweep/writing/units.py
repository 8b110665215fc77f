"""Units of a sweep on disk: many small files, written quickly and whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.manifest import POINT_SCHEMA, SCHEMA_VERSION, ManifestError
from valska.external_tools.core.schema import SchemaError, judge, validate
from valska.external_tools.core.sweep.planning.drafting import Config
from valska.external_tools.core.sweep.planning.points import Point
from valska.external_tools.core.sweep.planning.spool import Spool
from valska.external_tools.core.tool import Input

CONFIG = "config"
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
COMMON_SUMS = f"../../{SUMS}"
"""A unit's own list names the sweep's, so that its seal covers what all units share."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class Unit(NamedTuple):
    """What a unit's files hold.

    Parameters
    ----------
    label
        Name of its directory.
    bundle_id
        Digest of its science.
    point
        What it sets.
    configs
        Its configurations.
    inputs
        What it reads.
    section
        The tool's section.
    shared
        Stage to the label of the shared work that does it.
    stage
        For shared work: the stage that it is.
    """

    label: str
    bundle_id: str
    point: Point
    configs: tuple[Config, ...]
    inputs: tuple[Input, ...]
    section: Mapping[str, Any]
    shared: Mapping[str, str]
    stage: str | None = None


class Sealed(NamedTuple):
    """A unit as written: its seal and the SHA-256 of its manifest."""

    seal: str
    manifest_sha256: str


class UnitWriter:
    """Writes units below one directory.

    Parameters
    ----------
    tool
        Name of the tool.
    common_seal
        SHA-256 of the sweep's ``SHA256SUMS``.
    spool
        Holds the configurations.
    """

    def __init__(self, tool: str, common_seal: str, spool: Spool) -> None:
        self._tool = tool
        self._spool = spool
        self._common = f"{common_seal}  {COMMON_SUMS}\n"
        self._is_valid = judge(POINT_SCHEMA)
        self._inputs: tuple[tuple[Input, ...], dict[str, str], str] = ((), {}, "{}")
        self._section: tuple[Mapping[str, Any], str] = ({}, "{}")
        self._paths: dict[str, str] = {}
        self._folders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def write(self, parent: str, unit: Unit, manifests: Mapping[str, str]) -> Sealed:
        """Write a unit.

        Parameters
        ----------
        parent
            Directory to make it in.
        unit
            What to write.
        manifests
            Label of shared work to the SHA-256 of its manifest.

        Raises
        ------
        ManifestError
            If its manifest would not be valid.
        UsageError
            If a value is not UTF-8.
        OSError
            If a file cannot be written.
        """
        folder = f"{parent}/{unit.label}"
        os.mkdir(folder)  # noqa: PTH102 - the inner loop
        for name in self._folders_of(unit.configs):
            os.mkdir(f"{folder}/{name}")  # noqa: PTH102
        lines = [self._common]
        for label in sorted(set(unit.shared.values())):
            lines.append(f"{manifests[label]}  ../../shared/{label}/{MANIFEST}\n")
        for config in sorted(unit.configs, key=_name):
            data = self._spool.read(config.place, config.size)
            _write(f"{folder}/{CONFIG}/{config.name}", data)
            lines.append(f"{config.sha256}  {CONFIG}/{config.name}\n")
        manifest = self.manifest(unit)
        digest = hashlib.sha256(manifest).hexdigest()
        lines.append(f"{digest}  {MANIFEST}\n")
        sums = "".join(lines).encode()
        _write(f"{folder}/{MANIFEST}", manifest)
        _write(f"{folder}/{SUMS}", sums)
        return Sealed(hashlib.sha256(sums).hexdigest(), digest)

    def manifest(self, unit: Unit) -> bytes:
        """Return a unit's manifest as it is written, checked against its schema."""
        used, used_text = self._inputs_of(unit.inputs)
        files = [
            {"path": f"{CONFIG}/{c.name}", "sha256": c.sha256, "size": c.size, "role": "config"}
            for c in unit.configs
        ]
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "label": unit.label,
            "run_id": unit.label,
            "bundle_id": unit.bundle_id,
            "values": unit.point.values,
            "perturbations": unit.point.perturbations,
            "inputs": used,
            "files": files,
            "shared": unit.shared,
            self._tool: unit.section,
        }
        if unit.stage is not None:
            document["stage"] = unit.stage
        if not self._is_valid(document):
            _refuse(document)
        try:
            return _text(document, self._known(unit, used_text)).encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{error.object!r} is not UTF-8", "Rename it.") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise ValskaError(f"the manifest cannot be written: {error}") from error

    def _known(self, unit: Unit, used_text: str) -> dict[str, str]:
        """Return the texts of those fields that need not be encoded for each unit."""
        if unit.section is not self._section[0]:
            self._section = (unit.section, _encode(unit.section))
        return {
            "label": f'"{unit.label}"',
            "run_id": f'"{unit.label}"',
            "bundle_id": f'"{unit.bundle_id}"',
            "inputs": used_text,
            "files": f"[{', '.join(map(self._file_text, unit.configs))}]",
            self._tool: self._section[1],
        }

    def _file_text(self, config: Config) -> str:
        path = self._paths.get(config.name)
        if path is None:
            path = self._paths[config.name] = _encode(f"{CONFIG}/{config.name}")
        return (
            f'{{"path": {path}, "sha256": "{config.sha256}", '
            f'"size": {config.size}, "role": "config"}}'
        )

    def _inputs_of(self, inputs: tuple[Input, ...]) -> tuple[dict[str, str], str]:
        if inputs is not self._inputs[0]:
            used = {item.name: f"inputs/{item.target}" for item in inputs}
            self._inputs = (inputs, used, _encode(used))
        return self._inputs[1:]

    def _folders_of(self, configs: Sequence[Config]) -> tuple[str, ...]:
        names = tuple([config.name for config in configs])
        known = self._folders.get(names)
        if known is None:
            found = {CONFIG}
            for name in names:
                parts = f"{CONFIG}/{name}".split("/")[:-1]
                found |= {"/".join(parts[: n + 1]) for n in range(len(parts))}
            known = self._folders[names] = tuple(sorted(found))
        return known


def _text(document: Mapping[str, Any], known: Mapping[str, str]) -> str:
    lines = [
        f'  "{name}": {known[name] if name in known else _encode(value) if value != {} else "{}"}'
        for name, value in document.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _name(config: Config) -> bytes:
    return config.name.encode()


def _refuse(document: Mapping[str, Any]) -> None:
    try:
        validate(document, POINT_SCHEMA, "the point's manifest")
    except SchemaError as error:
        raise ManifestError(error.message) from error


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    finally:
        os.close(descriptor)


def sync_file_system(directory: Path) -> None:
    """Write all that waits for the disk of a directory to it: one call for any number of files.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    import ctypes

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "syncfs"):
            os.sync()
        elif library.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(directory))
    finally:
        os.close(descriptor)
