"""Outputs: whether they are still what the jobs wrote down when they had written them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.records import (
    Records,
    RecordState,
    StageRecord,
    read_records,
)
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import (
    Expected,
    Finding,
    FindingKind,
    check_files,
    seal_of,
)


def verify_outputs(
    bundle: Bundle, manifest: Manifest, fast: bool = False
) -> tuple[tuple[StageRecord, ...], tuple[Finding, ...]]:
    """Compare the outputs of every completed stage with its newest record.

    Parameters
    ----------
    bundle
        The bundle.
    manifest
        Its manifest.
    fast
        Compare presence and sizes only, not content.

    Returns
    -------
    records : tuple of StageRecord
        The records that outputs were compared with. A stage that has not completed has none.
    findings : tuple of Finding
        Sorted by path; empty if all is as recorded.
    """
    records = read_records(bundle)
    completed = completed_records(records, manifest)
    found = [
        Finding(FindingKind.UNREADABLE, f"{bundle.records.name}/{one.path}", one.reason)
        for one in records.unreadable
    ]
    seal = seal_of(bundle)
    for record in completed:
        if record.seal != seal:
            place = f"{bundle.records.name}/{record.path}"
            detail = f"it ran under the seal {record.seal[:12]}…"
            found.append(Finding(FindingKind.ALTERED, place, detail))
        found += _compare(bundle, record, fast)
    return completed, tuple(sorted(found, key=lambda finding: (finding.path, finding.kind)))


def completed_records(records: Records, manifest: Manifest) -> tuple[StageRecord, ...]:
    """Return the newest record of every stage that has completed."""
    newest = [_newest(records.of(stage.name)) for stage in manifest.stages]
    return tuple(
        record for record in newest if record is not None and record.state is RecordState.COMPLETED
    )


def _newest(records: Sequence[StageRecord]) -> StageRecord | None:
    """Return the last attempt, but for those refused before they touched the outputs."""
    counting = [
        record
        for record in records
        if record.state is not RecordState.REFUSED or record.data.get("set_aside")
    ]
    return counting[-1] if counting else None


def _compare(bundle: Bundle, record: StageRecord, fast: bool) -> Iterator[Finding]:
    root = os.path.realpath(bundle.outputs)
    folders: dict[str, str] = {}
    inside = []
    for output in record.outputs:
        file = _real(f"{bundle.path}/{output.path}", folders)
        if file.startswith(f"{root}/"):
            inside.append(Expected(output.path, file, output.sha256, output.size))
        else:
            yield Finding(FindingKind.ALTERED, output.path, "it leads out of outputs/")
    yield from check_files(inside, fast)


def _real(path: str, folders: dict[str, str]) -> str:
    """Return where a path leads; `folders` keeps where those of earlier ones do."""
    folder, _, name = path.rpartition("/")
    if (real := folders.get(folder)) is None:
        real = folders[folder] = os.path.realpath(folder)
    file = f"{real}/{name}"
    plain = name not in ("", ".", "..") and not os.path.islink(file)  # noqa: PTH114
    return file if plain else os.path.realpath(path)
