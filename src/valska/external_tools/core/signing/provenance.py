"""How the bundle or sweep in an archive came about, as SLSA provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from valska.external_tools.core.archive.contents import Contents, in_bundle
from valska.external_tools.core.archive.document import ArchiveDocument, ArchiveKind
from valska.external_tools.core.archive.places import BUNDLE
from valska.external_tools.core.errors import VerificationError

BUILD_TYPE = "urn:valska:run:1"
"""The form of the parameters; another number if a reader of this one cannot read another."""

MOST_OUTPUTS = 500
"""Of a run with more, the archive's own manifest alone has the digests."""

_BUILDER = "urn:valska:runs"
_NAMED = ("readme", "input", "image")
"""Roles of sealed files that are no dependencies, or are named as inputs and image."""
_IMAGE_FACTS = ("base", "build_arguments", "apptainer_version")

Json = dict[str, Any]


def provenance(contents: Contents, document: ArchiveDocument) -> Json:
    """Return the predicate of an archive.

    Parameters
    ----------
    contents
        What is in it, without faults.
    document
        What it says of itself.

    Raises
    ------
    VerificationError
        If a manifest or a record in it cannot be read.
    """
    try:
        if document.kind is ArchiveKind.BUNDLE:
            return _bundle(contents, document)
        return _sweep(contents, document)
    except (KeyError, TypeError) as error:
        raise VerificationError(f"its manifest lacks something: {error}") from error


def _bundle(contents: Contents, document: ArchiveDocument) -> Json:
    manifest = contents.json(in_bundle("manifest.json"))
    records = _newest(contents, _records(contents).get(BUNDLE, ()))
    return {
        "buildDefinition": _definition(
            contents,
            document,
            manifest,
            "manifest.json",
            inside={"runs": {stage: _run(name, one) for stage, (name, one) in records.items()}},
        ),
        "runDetails": {
            **_details(manifest["instance"], [one for _, one in records.values()]),
            **_byproducts(one for _, one in records.values()),
        },
    }


def _sweep(contents: Contents, document: ArchiveDocument) -> Json:
    common = contents.json(in_bundle("common.json"))
    sweep = contents.json(in_bundle("sweep_manifest.json"))
    packed = None if document.units is None else set(document.units)
    points = [one for one in sweep["points"] if _is_in(f"points/{one['label']}", packed)]
    shared = [one for one in sweep["shared"] if _is_in(f"shared/{one['label']}", packed)]
    units = [f"points/{one['label']}" for one in points]
    units += [f"shared/{one['label']}" for one in shared]
    names = _records(contents)
    newest = [_newest(contents, names.get(in_bundle(unit), ())) for unit in units]
    records = [one for found in newest for _, one in found.values()]
    return {
        "buildDefinition": _definition(
            contents,
            document,
            common,
            "common.json",
            outside={"points": {one["label"]: _point(one) for one in points}},
            inside={"runs": _tally(records)},
        ),
        "runDetails": _details(sweep["instance"], records),
    }


def _is_in(unit: str, packed: set[str] | None) -> bool:
    return packed is None or unit in packed


def _point(entry: Json) -> Json:
    return {name: entry[name] for name in ("bundle_id", "seal", "values", "perturbations")}


def _definition(
    contents: Contents,
    document: ArchiveDocument,
    manifest: Json,
    name: str,
    *,
    inside: Json,
    outside: Mapping[str, Any] | None = None,
) -> Json:
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {**_parameters(manifest), **(outside or {})},
        "internalParameters": {"valska_version": manifest["valska_version"], **inside},
        "resolvedDependencies": [
            *_software(document, manifest),
            *_inputs(manifest),
            *_sealed(contents, manifest, name),
        ],
    }


def _parameters(manifest: Json) -> Json:
    """Return what the user of valska asked for."""
    same = ("name", "argv", "ranks", "launch", "gpus", "env", "after", "directives")
    return {
        "tool": manifest["tool"],
        "parameters": manifest["spec"],
        "runner": manifest["runner"],
        "stages": [
            {key: stage[key] for key in same if key in stage} for stage in manifest["stages"]
        ],
        "parent": manifest.get("parent"),
    }


def _software(document: ArchiveDocument, manifest: Json) -> Iterator[Json]:
    if image := document.image:
        found: Json = {"name": "image", "digest": {"sha256": image.sha256}}
        if image.published:
            found["uri"] = image.published[0]
        about = {name: manifest["image"].get(name) for name in _IMAGE_FACTS}
        if about := {name: fact for name, fact in about.items() if fact}:
            found["annotations"] = about
        yield found
    environment = manifest.get("environment") or {}
    if digest := environment.get("explicit_sha256"):
        yield {"name": "environment", "digest": {"sha256": digest}}
    if git := manifest.get("git"):
        yield {
            "name": "source checkout",
            "digest": {"gitCommit": git["commit"]},
            "annotations": {"dirty": git.get("dirty")},
        }


def _inputs(manifest: Json) -> Iterator[Json]:
    for entry in manifest["inputs"]:
        yield {
            "name": entry["path"],
            "digest": {"sha256": entry["sha256"]},
            "annotations": {"role": "input", "input": entry["name"], "mode": entry["mode"]},
        }
    for entry in manifest.get("borrowed", ()):
        # Not of a file: of the list of its files, as sha256sum writes it.
        yield {
            "name": entry["path"],
            "digest": {"valska-tree-sha256": entry["sha256"]},
            "annotations": {"role": "borrowed directory"},
        }


def _sealed(contents: Contents, manifest: Json, name: str) -> Iterator[Json]:
    """Yield the manifest, and the sealed files that decide what runs: definition, lock, others."""
    own = contents.file(in_bundle(name))
    if own is None:
        raise VerificationError(f"{name} is not in it")
    yield _resource(name, own.sha256, "manifest")
    for entry in manifest["files"]:
        if entry["role"] not in _NAMED:
            yield _resource(entry["path"], entry["sha256"], entry["role"])


def _resource(name: str, sha256: str | None, role: str) -> Json:
    return {"name": name, "digest": {"sha256": sha256}, "annotations": {"role": role}}


def _records(contents: Contents) -> dict[str, list[str]]:
    """Return the names of the records of each bundle or unit of a sweep."""
    found: dict[str, list[str]] = {}
    for name in sorted(contents.documents):
        unit, separator, _ = name.rpartition("/records/")
        if separator:
            found.setdefault(unit, []).append(name)
    return found


def _newest(contents: Contents, names: Iterable[str]) -> dict[str, tuple[str, Json]]:
    """Return stage to the newest record that is not of a refused attempt, with its name."""
    found: dict[str, tuple[tuple[Any, ...], str, Json]] = {}
    for name in names:
        record = contents.json(name, "stage-record-1")
        if record["state"] == "refused" and not record.get("set_aside"):
            continue
        ended = record["state"] != "running"
        age = (record["started_utc"], ended, record["job"]["restart"], name)
        if record["stage"] not in found or age > found[record["stage"]][0]:
            found[record["stage"]] = (age, name.removeprefix(f"{BUNDLE}/"), record)
    return {stage: found[stage][1:] for stage in sorted(found)}


def _run(name: str, record: Json) -> Json:
    same = ("state", "exit_code", "signal", "started_utc", "ended_utc", "runner")
    return {
        "record": name,
        "job": record["job"],
        "host": record["host"]["name"],
        **{key: record[key] for key in same},
    }


def _tally(records: Iterable[Json]) -> Json:
    """Return stage to state to number of units."""
    states: dict[str, Counter[str]] = {}
    for record in records:
        states.setdefault(record["stage"], Counter())[record["state"]] += 1
    return {stage: dict(sorted(states[stage].items())) for stage in sorted(states)}


def _details(instance: str, records: list[Json]) -> Json:
    metadata: Json = {"invocationId": instance}
    if records:
        metadata["startedOn"] = min(one["started_utc"] for one in records)
        ends = [one["ended_utc"] for one in records]
        if all(ends):
            metadata["finishedOn"] = max(ends)
    return {"builder": _builder(records), "metadata": metadata}


def _builder(records: list[Json]) -> Json:
    """Return what ran it: the scheduler, its cluster if all ran on one, and versions."""
    schedulers = {one["job"]["scheduler"] for one in records}
    clusters = {one["slurm"].get("SLURM_CLUSTER_NAME") for one in records}
    names = [schedulers.pop() if len(schedulers) == 1 else "several"] if records else ["nothing"]
    if len(clusters) == 1 and (cluster := clusters.pop()):
        names.append(quote(cluster, safe=""))
    version = {}
    for name, found in (
        ("valska", {one["valska_version"] for one in records}),
        ("apptainer", {_apptainer(one) for one in records} - {None}),
    ):
        if found:
            version[name] = ", ".join(sorted(map(str, found)))
    builder: Json = {"id": ":".join([_BUILDER, *names])}
    return {**builder, "version": version} if version else builder


def _apptainer(record: Json) -> str | None:
    runner = record["runner"]
    version: str | None = runner["version"] if runner["kind"] == "container" else None
    return version


def _byproducts(records: Iterable[Json]) -> Json:
    """Return what the completed stages wrote, unless it is too much to list."""
    outputs = [
        _resource(output["path"], output["sha256"], "output")
        for record in records
        if record["state"] == "completed"
        for output in record["outputs"]
        if output["sha256"]
    ]
    return {"byproducts": outputs} if 0 < len(outputs) <= MOST_OUTPUTS else {}
