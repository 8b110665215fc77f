"""Whether a bundle or a sweep in an archive is as it was made, and its outputs as recorded."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from valska.external_tools.core.archive.contents import Contents, in_bundle, units_of
from valska.external_tools.core.archive.document import ArchiveDocument
from valska.external_tools.core.archive.findings import Findings
from valska.external_tools.core.archive.places import BUNDLE
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.manifest import validate_manifest
from valska.external_tools.core.seal import FindingKind, is_sealable
from valska.external_tools.core.sweep.document import check_sweep_document

_UNSEALED = re.compile(
    r"SHA256SUMS|site\.env|jobs(?:_[0-9TZ-]+)?\.json|records|logs|outputs(?:\.\d+)?"
)
_SWEEP_UNSEALED = re.compile(
    r"SHA256SUMS|sweep_manifest\.json|site\.env|jobs(?:_[0-9TZ-]+)?\.json|logs|arrays|points|shared"
)
_OUTSIDE = "../../"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")

Json = Mapping[str, Any]


@dataclass(slots=True)
class Judged:
    """How many units were looked at, stage to outputs that were compared, unit to its records."""

    units: int = 0
    outputs: Counter[str] = field(default_factory=Counter)
    records: Mapping[str, list[str]] = field(default_factory=dict)


def judge_bundle(found: Findings, document: ArchiveDocument) -> Judged:
    """Check the bundle in an archive.

    Parameters
    ----------
    found
        Gets what is wrong.
    document
        What the archive says of itself.
    """
    judged = Judged(1, records=found.contents.by_folder("records"))
    manifest = _read(found, f"{BUNDLE}/manifest.json", validate_manifest)
    listed = _sums(found, BUNDLE)
    if manifest is None or listed is None:
        return judged
    if "bundle_id" not in manifest:
        found.altered(f"{BUNDLE}/manifest.json", "it is not that of a bundle")
        return judged
    _compare_identity(found, document, manifest, "run_id", manifest.get("bundle_id"))
    _check_sealed(found, document, manifest["files"], listed, "manifest.json")
    _check_unexpected(found, listed, _UNSEALED)
    _check_outside(found, document, manifest)
    seal = _seal(found.contents, BUNDLE)
    _check_records(found, judged, BUNDLE, manifest["stages"], seal, document)
    return judged


def judge_sweep(found: Findings, document: ArchiveDocument) -> Judged:
    """Check the sweep in an archive; see `judge_bundle`."""
    sweep = _read(found, f"{BUNDLE}/sweep_manifest.json", check_sweep_document)
    common = _read(found, f"{BUNDLE}/common.json", _check_common)
    listed = _sums(found, BUNDLE)
    judged = Judged(records=found.contents.by_folder("records"))
    if sweep is None or common is None or listed is None:
        return judged
    seal = _seal(found.contents, BUNDLE)
    if seal != sweep["common_seal"]:
        found.altered(f"{BUNDLE}/SHA256SUMS", "sweep_manifest.json has another digest of it")
    _compare_identity(found, document, common, "sweep_id", None)
    _check_sealed(found, document, common["files"], listed, "common.json")
    _check_unexpected(found, listed, _SWEEP_UNSEALED)
    _check_outside(found, document, common)
    _check_presence(found, document, sweep)
    wanted = set(document.units) if document.units is not None else None
    for kind in ("points", "shared"):
        for entry in sweep[kind]:
            place = f"{kind}/{entry['label']}"
            if wanted is None or place in wanted:
                _check_unit(found, document, judged, in_bundle(place), entry, common["stages"])
    return judged


def _check_common(data: Json) -> None:
    validate_manifest({"run_id": data.get("sweep_id"), **data, "bundle_id": "0" * 64})


def _read(found: Findings, name: str, check: Callable[[Json], None]) -> dict[str, Any] | None:
    if name not in found.contents.documents:
        if name not in found.contents.entries:
            found.add(FindingKind.MISSING, name)
        return None
    try:
        data = found.contents.json(name)
        check(data)
    except ValskaError as error:
        found.altered(name, error.message)
        return None
    return data


def _sums(found: Findings, unit: str, *, of_sweep: bool = False) -> dict[str, str] | None:
    name = f"{unit}/SHA256SUMS"
    data = found.contents.documents.get(name)
    if data is None:
        if name not in found.contents.entries:
            found.add(FindingKind.MISSING, name)
        return None
    try:
        return _parse_sums(data, unit=of_sweep)
    except VerificationError as error:
        found.altered(name, error.message)
        return None


def _parse_sums(data: bytes, *, unit: bool) -> dict[str, str]:
    try:
        lines = data.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise VerificationError("it is not UTF-8") from error
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if not match or not is_sealable(match[2], unit=unit) or match[2] in digests:
            raise VerificationError(f"line {number} is not usable")
        digests[match[2]] = match[1]
    return digests


def _seal(contents: Contents, unit: str) -> str:
    return hashlib.sha256(contents.documents[f"{unit}/SHA256SUMS"]).hexdigest()


def _compare_identity(
    found: Findings, document: ArchiveDocument, manifest: Json, run_id: str, bundle_id: Any
) -> None:
    """Compare what the archive says of itself with the manifest."""
    image = manifest.get("image")
    said = {
        "tool": (document.tool, manifest["tool"]),
        "run_id": (document.run_id, manifest.get(run_id)),
        "created_utc": (document.created_utc, manifest["created_utc"]),
        "bundle_id": (document.bundle_id, bundle_id),
        "seal": (document.seal, _seal(found.contents, BUNDLE)),
        "image": (
            document.image.sha256 if document.image else None,
            image["sha256"] if image else None,
        ),
    }
    wrong = [name for name, (one, other) in said.items() if one != other]
    if wrong:
        found.altered("archive.json", f"the manifest has another {', '.join(wrong)}")


def _check_sealed(
    found: Findings,
    document: ArchiveDocument,
    files: Iterable[Json],
    listed: Mapping[str, str],
    manifest: str,
) -> None:
    declared = {file["path"]: file for file in files}
    left_out = {one.path: one.sha256 for one in document.left_out}
    for path in sorted((declared.keys() | listed.keys()) - {manifest}):
        said = declared.get(path, {}).get("sha256")
        if said != listed.get(path):
            found.altered(in_bundle(path), f"{manifest} and SHA256SUMS disagree")
        elif path not in left_out:
            found.compare(in_bundle(path), listed[path], declared[path]["size"])
        elif left_out[path] != said:
            found.altered("archive.json", f"it says that another {path} was left out")
    if manifest in listed:
        found.compare(in_bundle(manifest), listed[manifest])
    else:
        found.altered(f"{BUNDLE}/SHA256SUMS", f"{manifest} is not in it")


def _check_unexpected(
    found: Findings, listed: Mapping[str, str], unsealed: re.Pattern[str]
) -> None:
    prefix = f"{BUNDLE}/"
    for name, entry in found.contents.entries.items():
        path = name.removeprefix(prefix)
        if path == name or unsealed.fullmatch(path.partition("/")[0]):
            continue
        if entry.kind is not Kind.DIRECTORY and path not in listed:
            found.add(FindingKind.UNEXPECTED, name, "not sealed")


def _check_outside(found: Findings, document: ArchiveDocument, manifest: Json) -> None:
    """Compare what lay outside of the bundle, where it is packed, with the manifest."""
    inputs = {one["path"]: one for one in manifest["inputs"] if one["mode"] == "reference"}
    borrowed = {one["path"]: one for one in manifest.get("borrowed", ())}
    for place, packed in document.references.items():
        if packed is None:
            continue
        if place in inputs:
            entry = inputs[place]
            found.compare(packed, entry["sha256"], entry["size"], f"the input {place}")
        elif place in borrowed:
            _check_tree(found, packed, borrowed[place])
        else:
            found.altered("archive.json", f"no manifest refers to {place}")
    for place in (inputs.keys() | borrowed.keys()) - document.references.keys():
        found.altered("archive.json", f"{place} is not in it")


def _check_tree(found: Findings, packed: str, entry: Json) -> None:
    prefix = f"{packed}/"
    files = {
        name.removeprefix(prefix): one
        for name, one in found.contents.files()
        if name.startswith(prefix)
    }
    size = sum(one.size for one in files.values())
    if (len(files), size) != (entry["files"], entry["size"]):
        detail = f"{len(files)} files, {size} bytes, not {entry['files']} and {entry['size']}"
        found.altered(packed, detail)
    elif not found.fast:
        names = sorted(files, key=str.encode)
        text = "".join(f"{files[name].sha256}  {name}\n" for name in names)
        if hashlib.sha256(text.encode()).hexdigest() != entry["sha256"]:
            found.altered(packed, "its files are not those that were borrowed")


def _check_presence(found: Findings, document: ArchiveDocument, sweep: Json) -> None:
    known = set(units_of(sweep))
    for place in document.units or ():
        if place not in known:
            found.altered("archive.json", f"the sweep has no {place}")
    if document.units is not None:
        known &= set(document.units)
    present = set()
    for name in found.contents.entries:
        parts = name.removeprefix(f"{BUNDLE}/").split("/", 2)
        if len(parts) > 1 and parts[0] in ("points", "shared"):
            present.add(f"{parts[0]}/{parts[1]}")
    for place in sorted(present - known):
        found.add(FindingKind.UNEXPECTED, in_bundle(place), "sweep_manifest.json does not name it")


def _check_unit(
    found: Findings,
    document: ArchiveDocument,
    judged: Judged,
    unit: str,
    entry: Json,
    stages: Iterable[Json],
) -> None:
    judged.units += 1
    manifest = _read(found, f"{unit}/manifest.json", _check_point)
    listed = _sums(found, unit, of_sweep=True)
    if manifest is None or listed is None:
        return
    seal = _seal(found.contents, unit)
    if seal != entry["seal"]:
        found.altered(f"{unit}/SHA256SUMS", "sweep_manifest.json has another seal of it")
    same = ("label", "bundle_id", "values", "perturbations", "stage")
    wrong = [name for name in same if name in entry and manifest.get(name) != entry[name]]
    if wrong:
        detail = f"sweep_manifest.json has another {', '.join(wrong)}"
        found.altered(f"{unit}/manifest.json", detail)
    _check_unit_files(found, unit, manifest, listed)
    mine = [one for one in stages if manifest.get("stage") in (None, one["name"])]
    _check_records(found, judged, unit, mine, seal, document)


def _check_point(data: Json) -> None:
    from valska.external_tools.core.schema import validate

    validate(data, "point-1", "it")


def _check_unit_files(
    found: Findings, unit: str, manifest: Json, listed: Mapping[str, str]
) -> None:
    declared = {file["path"]: file for file in manifest["files"]}
    shared = {f"{_OUTSIDE}shared/{one}/manifest.json" for one in manifest["shared"].values()}
    needed = {f"{_OUTSIDE}SHA256SUMS", *shared}
    outside = {path for path in listed if path.startswith(_OUTSIDE)}
    if outside != needed:
        found.altered(f"{unit}/SHA256SUMS", "it does not name what the unit relies on")
    for path in outside & needed:
        found.compare(in_bundle(path.removeprefix(_OUTSIDE)), listed[path])
    for path in sorted((declared.keys() | listed.keys()) - outside - {"manifest.json"}):
        if declared.get(path, {}).get("sha256") != listed.get(path):
            found.altered(f"{unit}/{path}", "manifest.json and SHA256SUMS disagree")
        else:
            found.compare(f"{unit}/{path}", listed[path], declared[path]["size"])
    if "manifest.json" in listed:
        found.compare(f"{unit}/manifest.json", listed["manifest.json"])
    else:
        found.altered(f"{unit}/SHA256SUMS", "manifest.json is not in it")


def _check_records(
    found: Findings,
    judged: Judged,
    unit: str,
    stages: Iterable[Json],
    seal: str,
    document: ArchiveDocument,
) -> None:
    """Compare the outputs of every completed stage with its newest record."""
    newest: dict[str, tuple[tuple[str, bool, int, str], str, Json]] = {}
    for name in judged.records.get(unit, ()):
        record = _record(found, name) if name in found.contents.documents else None
        if record is None or (record["state"] == "refused" and not record.get("set_aside")):
            continue
        age = (record["started_utc"], record["state"] != "running", record["job"]["restart"], name)
        if record["stage"] not in newest or age > newest[record["stage"]][0]:
            newest[record["stage"]] = (age, name, record)
    for stage in stages:
        _, name, record = newest.get(stage["name"], (None, "", {}))
        if record.get("state") == "completed":
            _check_outputs(found, judged, unit, name, record, seal, document)


def _record(found: Findings, name: str) -> Json | None:
    try:
        return found.contents.json(name, "stage-record-1")
    except VerificationError as error:
        found.add(FindingKind.UNREADABLE, name, error.message)
        return None


def _check_outputs(
    found: Findings,
    judged: Judged,
    unit: str,
    name: str,
    record: Json,
    seal: str,
    document: ArchiveDocument,
) -> None:
    if record["seal"] != seal:
        found.altered(name, f"it ran under the seal {record['seal'][:12]}…")
    if not document.outputs:
        return
    judged.outputs[record["stage"]] += len(record["outputs"])
    for output in record["outputs"]:
        path = output["path"]
        if not path.startswith("outputs/") or {"", ".", ".."} & set(path.split("/")):
            found.altered(name, f"it names {path!r} as an output")
        else:
            found.compare(f"{unit}/{path}", output["sha256"], output["size"])
