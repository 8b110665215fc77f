"""What a run wrote: the outputs of its completed stages, by what their jobs wrote down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from valska.external_tools.core.comparison.verdict import OutputFile, RunFiles
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.outputs import completed_records, verify_outputs
from valska.external_tools.core.records import read_records
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import Finding, FindingKind, seal_of
from valska.external_tools.core.sweep.layout import Sweep

COMPLETED = "completed"
NEVER_RUN = "not run"
OTHER_SEAL = "completed under another seal"
"""How far a stage came that ran before a sealed file was altered and sealed again."""

NO_LONGER_THERE = "no longer there"


@dataclass(frozen=True, slots=True)
class Written:
    """What a run wrote, and how far it came.

    Parameters
    ----------
    files
        Its outputs. One that is no longer there, or not what its job recorded, has its digest
        only.
    states
        Stage to ``completed``, or the word for what its newest record says.
    notes
        What is wrong with outputs and records.
    """

    files: RunFiles
    states: dict[str, str]
    notes: tuple[str, ...]


def read_written(bundle: Bundle, manifest: Manifest, fast: bool = False) -> Written:
    """Read what a bundle, or a point of a sweep, wrote; every file is read and checked.

    Parameters
    ----------
    bundle
        The bundle.
    manifest
        Its manifest.
    fast
        Look at presence and sizes only, not at content.

    Raises
    ------
    ManifestError
        If the manifest of shared work cannot be read.
    """
    parts = [read_unit(unit, of_unit, fast) for unit, of_unit in _units(bundle, manifest)]
    files = {path: file for one in parts for path, file in one.files.files.items()}
    states = {name: state for one in parts for name, state in one.states.items()}
    return Written(
        RunFiles(bundle.outputs, manifest.section, dict(sorted(files.items()))),
        {stage.name: states[stage.name] for stage in manifest.stages},
        tuple(note for one in parts for note in one.notes),
    )


def read_unit(unit: Bundle, manifest: Manifest, fast: bool = False) -> Written:
    """Read what a bundle, a point or shared work wrote in its own directory.

    Parameters
    ----------
    unit, fast
        See `read_written`.
    manifest
        Its manifest, with those stages alone that it does itself.
    """
    completed, findings = verify_outputs(unit, manifest, fast)
    bad = {finding.path for finding in findings}
    outputs = unit.outputs
    files: dict[str, OutputFile] = {}
    for record in completed:
        for output in record.outputs:
            path = output.path.removeprefix(f"{outputs.name}/")
            place = None if output.path in bad else outputs / path
            files[path] = OutputFile(path, output.size, output.sha256, place)
    notes = [str(finding) for finding in findings if finding.kind is not FindingKind.MISSING]
    return Written(
        RunFiles(outputs, manifest.section, dict(sorted(files.items()))),
        read_states(unit, manifest),
        (*notes, *_gone(findings)),
    )


def without(files: RunFiles, paths: set[str]) -> RunFiles:
    """Return what a run wrote but for some outputs."""
    return replace(files, files={k: v for k, v in files.files.items() if k not in paths})


def _units(bundle: Bundle, manifest: Manifest) -> Iterator[tuple[Bundle, Manifest]]:
    """Yield the run, and the shared work that stands for stages of a point."""
    own = tuple(stage for stage in manifest.stages if stage.name not in manifest.shared)
    yield bundle, replace(manifest, stages=own)
    if bundle.common is not None:
        for label in dict.fromkeys(manifest.shared.values()):
            unit = Sweep(bundle.common).shared_unit(label)
            yield unit, read_manifest(unit)


def read_states(unit: Bundle, manifest: Manifest) -> dict[str, str]:
    """Return how far the stages of a unit came: see `Written`; outputs are not looked at.

    Parameters
    ----------
    unit, manifest
        See `read_unit`.
    """
    records, seal = read_records(unit), seal_of(unit)
    completed = completed_records(records, manifest)
    done = {one.stage: COMPLETED if one.seal == seal else OTHER_SEAL for one in completed}
    states = {}
    for stage in manifest.stages:
        newest = records.latest(stage.name)
        state = newest.state.value if newest else NEVER_RUN
        states[stage.name] = done.get(stage.name, state)
    return states


def _gone(findings: tuple[Finding, ...]) -> list[str]:
    gone = [finding.path for finding in findings if finding.kind is FindingKind.MISSING]
    if not gone:
        return []
    if len(gone) == 1:
        return [f"{NO_LONGER_THERE}: {gone[0]}; its digest is recorded"]
    return [f"{NO_LONGER_THERE}: {gone[0]} and {len(gone) - 1} more; their digests are recorded"]
