"""Whether a sweep is still what was made: common files once, then each unit by its own seal."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.manifest import (
    POINT_SCHEMA,
    FileEntry,
    Manifest,
    ManifestError,
)
from valska.external_tools.core.outputs import verify_outputs
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.schema import validate
from valska.external_tools.core.seal import (
    Finding,
    FindingKind,
    check_file,
    check_listed,
    check_outside,
    read_sums,
    seal_of,
    sums_fault,
)
from valska.external_tools.core.sweep.document import (
    PointEntry,
    SharedEntry,
    SweepManifest,
    read_common,
    read_sweep_manifest,
)
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import load_json, sha256_file

AT_ONCE = 8
"""Units that are looked at together: a file system of a network answers late, not slowly."""

_OUTSIDE = "../../"
_COMMON_SUMS = f"{_OUTSIDE}SHA256SUMS"
_UNSEALED = re.compile(
    r"SHA256SUMS|sweep_manifest\.json|site\.env|jobs(_[0-9TZ-]+)?\.json|\.submit\.lock|logs|arrays"
    r"|points|shared|\.(sweep_manifest\.json|site\.env|jobs[0-9TZ_-]*\.json)"
    r"\.[0-9a-f]{12}\.tmp"
)
_UNIT_UNSEALED = re.compile(r"SHA256SUMS|records|logs|outputs(\.\d+)?")

_FOLDERS = {"config", "inputs", "containers"}
_FILE = tuple(FileEntry.__dataclass_fields__)

Entry = PointEntry | SharedEntry


@dataclass(frozen=True, slots=True)
class SweepVerification:
    """What a verification found.

    Parameters
    ----------
    findings
        Sorted by path, which is relative to the sweep; empty if all is as it was made.
    units
        How many points and how much shared work were looked at.
    outputs
        Stage to the number of outputs that were compared with a record.
    """

    findings: tuple[Finding, ...]
    units: int = 0
    outputs: Mapping[str, int] = field(default_factory=dict)


def verify_sweep(
    sweep: Sweep, fast: bool = False, labels: Iterable[str] | None = None
) -> SweepVerification:
    """Compare a sweep with its seals, its manifest, and its jobs' records.

    Parameters
    ----------
    sweep
        The sweep.
    fast
        Compare presence and sizes only, not content; the small files that hold a unit together
        (its manifest and ``SHA256SUMS``) are read all the same.
    labels
        Only these points, with what they share; all, if not given.

    Raises
    ------
    UsageError
        If there is no such point.
    """
    try:
        manifest = read_sweep_manifest(sweep)
    except ManifestError as error:
        return SweepVerification((_altered(sweep.manifest.name, error.message),))
    entries = _chosen(manifest, labels)
    try:
        common = read_common(sweep)
        listed = read_sums(sweep.bundle)
    except ManifestError as error:
        return SweepVerification((_altered(sweep.common.name, error.message),))
    except VerificationError as error:
        return SweepVerification((sums_fault(sweep.bundle, error),))
    found = [*_common(sweep, manifest, common, listed, fast)]
    if labels is None:
        found += _presence(sweep, manifest)
    check = _Units(sweep, manifest, common, fast)
    outputs: Counter[str] = Counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for findings, compared in pool.map(check, entries):
            found += findings
            outputs.update(compared)
    ordered = sorted(found, key=lambda finding: (finding.path, finding.kind))
    return SweepVerification(tuple(ordered), len(entries), dict(outputs))


def _chosen(manifest: SweepManifest, labels: Iterable[str] | None) -> list[Entry]:
    if labels is None:
        return [*manifest.points, *manifest.shared]
    wanted = set(labels)
    lent = [entry for entry in manifest.shared if entry.label in wanted]
    points = [manifest.point(label) for label in wanted - {entry.label for entry in lent}]
    used = {label for point in points for label in point.shared.values()}
    return [*points, *(e for e in manifest.shared if e.label in used or e in lent)]


def _common(
    sweep: Sweep, manifest: SweepManifest, common: Manifest, listed: Mapping[str, str], fast: bool
) -> Iterator[Finding]:
    sums = sweep.bundle.sums
    if sha256_file(sums) != manifest.common_seal:
        yield _altered(sums.name, f"{sweep.manifest.name} has another digest of it")
    yield from _disagreements(common.files, listed, sweep.common.name)
    sizes = {entry.path: entry.size for entry in common.files}
    yield from check_listed(sweep.path, listed, sizes, fast)
    yield from _unexpected(sweep.path, listed, _UNSEALED)
    yield from check_outside(sweep.bundle, common, fast)


def _presence(sweep: Sweep, manifest: SweepManifest) -> Iterator[Finding]:
    """Find directories of units that the sweep's manifest does not name."""
    known = {entry.place for entry in _chosen(manifest, None)}
    for folder in (sweep.points, sweep.shared):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    place = f"{folder.name}/{entry.name}"
                    if place not in known and not entry.name.startswith("."):
                        detail = f"{sweep.manifest.name} does not name it"
                        yield Finding(FindingKind.UNEXPECTED, place, detail)


class _Units:
    """Checks one unit after the other, knowing what they have in common."""

    def __init__(self, sweep: Sweep, manifest: SweepManifest, common: Manifest, fast: bool) -> None:
        self._sweep = sweep
        self._common = common
        self._fast = fast
        self._outside = {_COMMON_SUMS: _digest(sweep.bundle.sums)}
        for entry in manifest.shared:
            unit = sweep.shared_unit(entry.label)
            self._outside[f"{_OUTSIDE}{entry.place}/{unit.manifest.name}"] = _digest(unit.manifest)

    def __call__(self, entry: Entry) -> tuple[list[Finding], Mapping[str, int]]:
        """Return a unit's findings, and how many outputs of each stage were compared."""
        unit = self._sweep.unit(entry.place)
        found = [*self._sealed(unit, entry)]
        compared: dict[str, int] = {}
        if not found:
            records, altered = verify_outputs(unit, self._common, fast=self._fast)
            compared = {record.stage: len(record.outputs) for record in records}
            found = [*altered]
        return [_below(entry.place, finding) for finding in found], compared

    def _sealed(self, unit: Bundle, entry: Entry) -> Iterator[Finding]:
        try:
            manifest, listed, seal = _documents(unit)
        except _BrokenError as error:
            yield error.finding
            return
        if seal != entry.seal:
            yield _altered(unit.sums.name, f"{self._sweep.manifest.name} has another seal of it")
        if wrong := _differences(entry, manifest):
            detail = f"{self._sweep.manifest.name} has another {', '.join(wrong)}"
            yield _altered(unit.manifest.name, detail)
        own = {path: digest for path, digest in listed.items() if not path.startswith(_OUTSIDE)}
        declared = [FileEntry(**{k: file[k] for k in _FILE}) for file in manifest["files"]]
        yield from _disagreements(declared, own, unit.manifest.name)
        sizes = {file.path: file.size for file in declared}
        for path, digest in own.items():
            finding = check_file(unit.path / path, path, digest, sizes.get(path), self._fast)
            if finding:
                yield finding
        yield from _unexpected(unit.path, own, _UNIT_UNSEALED)
        yield from self._outside_of(unit, entry, listed)

    def _outside_of(
        self, unit: Bundle, entry: Entry, listed: Mapping[str, str]
    ) -> Iterator[Finding]:
        """Compare what a unit's seal says of common files and of the work that it shares."""
        lent = entry.shared.values() if isinstance(entry, PointEntry) else ()
        needed = {_COMMON_SUMS, *(f"{_OUTSIDE}shared/{label}/manifest.json" for label in lent)}
        given = {path for path in listed if path.startswith(_OUTSIDE)}
        for path in sorted(needed | given):
            if path not in given:
                yield _altered(unit.sums.name, f"{path} is not in it")
            elif path not in needed or listed[path] != self._outside.get(path):
                yield _altered(unit.sums.name, f"it was sealed with another {path}")


class _BrokenError(Exception):
    """A unit whose own documents cannot be read."""

    def __init__(self, kind: FindingKind, path: str, detail: str = "") -> None:
        super().__init__(path)
        self.finding = Finding(kind, path, detail)


def _documents(unit: Bundle) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return a unit's manifest, what its ``SHA256SUMS`` lists, and its seal."""
    if not unit.path.is_dir():
        raise _BrokenError(FindingKind.MISSING, "")
    for path in (unit.manifest, unit.sums):
        if not path.exists():
            raise _BrokenError(FindingKind.MISSING, path.name)
    try:
        listed = read_sums(unit)
        seal = seal_of(unit)
    except VerificationError as error:
        raise _BrokenError(FindingKind.ALTERED, unit.sums.name, error.message) from error
    try:
        manifest = load_json(unit.manifest)
        validate(manifest, POINT_SCHEMA, "it")
    except ValskaError as error:
        raise _BrokenError(FindingKind.ALTERED, unit.manifest.name, error.message) from error
    return manifest, listed, seal


def _differences(entry: Entry, manifest: Mapping[str, Any]) -> list[str]:
    """Return the fields in which a unit's manifest is not what the sweep's says."""
    wanted: dict[str, Any] = {"label": entry.label, "bundle_id": entry.bundle_id}
    if isinstance(entry, PointEntry):
        wanted |= {"values": entry.values, "perturbations": entry.perturbations}
        wanted |= {"shared": entry.shared}
    else:
        wanted |= {"stage": entry.stage}
    return [name for name, value in wanted.items() if manifest.get(name) != value]


def _disagreements(
    files: Iterable[FileEntry], listed: Mapping[str, str], document: str
) -> Iterator[Finding]:
    """Compare the files that a document declares with those that ``SHA256SUMS`` lists."""
    declared = {file.path: file.sha256 for file in files}
    for path in sorted((declared.keys() | listed.keys()) - {document}):
        if declared.get(path) != listed.get(path):
            yield _altered(path, f"{document} and SHA256SUMS disagree")
    if document not in listed:
        yield _altered("SHA256SUMS", f"{document} is not in it")


def _unexpected(
    root: Path, listed: Mapping[str, str], unsealed: re.Pattern[str]
) -> Iterator[Finding]:
    folders = {parent for path in listed for parent in _parents(path)} | _FOLDERS
    for path, is_directory in _walk(os.fspath(root), "", unsealed):
        if path not in listed and not (is_directory and path in folders):
            yield Finding(FindingKind.UNEXPECTED, path, "not sealed")


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _walk(root: str, prefix: str, unsealed: re.Pattern[str]) -> Iterator[tuple[str, bool]]:
    try:
        with os.scandir(f"{root}/{prefix}") as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        if (not prefix and unsealed.fullmatch(entry.name)) or entry.name.startswith(".nfs"):
            continue
        path = f"{prefix}{entry.name}"
        is_directory = entry.is_dir(follow_symlinks=False)
        yield path, is_directory
        if is_directory:
            yield from _walk(root, f"{path}/", unsealed)


def _below(place: str, finding: Finding) -> Finding:
    return replace(finding, path=f"{place}/{finding.path}".rstrip("/"))


def _digest(file: Path) -> str | None:
    try:
        return sha256_file(file)
    except OSError:
        return None


def _altered(path: str, detail: str) -> Finding:
    return Finding(FindingKind.ALTERED, path, detail)
