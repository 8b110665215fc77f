"""Two runs of one tool: whether the new one gave the answer of the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import valska
from valska.external_tools.core.comparison.formats import BYTES, compare_bytes, compare_file
from valska.external_tools.core.comparison.intent import (
    Difference,
    Side,
    compare_intent,
    require_same_tool,
)
from valska.external_tools.core.comparison.verdict import (
    OutputComparison,
    OutputFile,
    RunFiles,
    Tolerances,
    Verdict,
    worst,
)
from valska.external_tools.core.comparison.written import (
    COMPLETED,
    NO_LONGER_THERE,
    Written,
    read_written,
    without,
)
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.records import RecordState
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import seal_of
from valska.external_tools.core.tool import Compares, load_tool
from valska.external_tools.core.utils import utc_now_iso

NO_OUTPUTS = "the reference has no outputs to compare with"

_SIDES = ("reference", "new run")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Which run was compared, so that it can be found and checked.

    Parameters
    ----------
    place
        Its directory, as it was named.
    run_id, bundle_id, instance, seal, created_utc, valska_version
        See the manifest.
    software
        SHA-256 of its image, or of its environment's package list; None on the host.
    """

    place: str
    run_id: str
    bundle_id: str
    instance: str
    seal: str
    created_utc: str
    valska_version: str
    software: str | None


@dataclass(frozen=True, slots=True)
class StageStates:
    """How far a stage came in either run; the reason, where it did not complete."""

    name: str
    reference: str
    new: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs, compared.

    Parameters
    ----------
    verdict
        On the new run.
    tool
        Name of the tool.
    tolerances
        What numbers were allowed to differ by.
    reference, new
        The runs.
    stages
        How far each came.
    outputs
        Every output, in the order of its path.
    intent
        What the two were not both to do.
    notes
        What else there is to say.
    created_utc, valska_version
        When and by which valska it was compared.
    """

    verdict: Verdict
    tool: str
    tolerances: Tolerances
    reference: RunIdentity
    new: RunIdentity
    stages: tuple[StageStates, ...]
    outputs: tuple[OutputComparison, ...]
    intent: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    created_utc: str
    valska_version: str


def compare_runs(
    reference: Bundle,
    new: Bundle,
    tolerances: Tolerances | None = None,
    *,
    reasons: Mapping[str, str] | None = None,
    now: str | None = None,
) -> Comparison:
    """Compare what two runs wrote; neither is changed.

    Parameters
    ----------
    reference, new
        The bundles, or points of sweeps.
    tolerances
        What numbers may differ by.
    reasons
        Stage to why it has not completed in the new run, as far as that is known.
    now
        Time of the comparison in ISO 8601.

    Raises
    ------
    ValskaError
        If the two are not runs of one tool, or one cannot be read.
    """
    allowed = tolerances or Tolerances()
    a, b = (Side(bundle, read_manifest(bundle)) for bundle in (reference, new))
    require_same_tool(a.manifest, b.manifest)
    old, fresh = (read_written(side.bundle, side.manifest) for side in (a, b))
    judged = judge(comparer_of(a.manifest.tool), old, fresh, allowed, reasons)
    return Comparison(
        verdict=judged.verdict,
        tool=a.manifest.tool,
        tolerances=allowed,
        reference=_identity(a),
        new=_identity(b),
        stages=judged.stages,
        outputs=judged.outputs,
        intent=compare_intent(a, b),
        notes=judged.notes,
        created_utc=now or utc_now_iso(),
        valska_version=valska.__version__,
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """What two runs, or parts of them, wrote, compared; see `Comparison`."""

    verdict: Verdict
    stages: tuple[StageStates, ...]
    outputs: tuple[OutputComparison, ...]
    notes: tuple[str, ...]


def judge(
    comparing: Compares | None,
    reference: Written,
    new: Written,
    tolerances: Tolerances,
    reasons: Mapping[str, str] | None = None,
) -> Judged:
    """Compare what two runs of a tool wrote.

    Parameters
    ----------
    comparing
        Knows the tool's outputs, see `comparer_of`.
    reference, new
        What they wrote.
    tolerances, reasons
        See `compare_runs`.
    """
    stages = tuple(_stages(reference, new, reasons or {}))
    outputs = _compare(comparing, reference, new, tolerances)
    missing = [Verdict.INCOMPLETE for one in stages if {one.reference, one.new} != {COMPLETED}]
    return Judged(
        worst([*missing, *(one.verdict for one in outputs)]),
        stages,
        outputs,
        tuple(_notes(reference, new)),
    )


def _stages(reference: Written, new: Written, reasons: Mapping[str, str]) -> Iterator[StageStates]:
    """Yield how far each stage came; one that was killed has a record that says that it runs."""
    for name in dict.fromkeys((*reference.states, *new.states)):
        old, fresh = (one.states.get(name, "not planned") for one in (reference, new))
        if fresh == RecordState.RUNNING and name in reasons:
            fresh = RecordState.FAILED.value
        yield StageStates(name, old, fresh, "" if fresh == COMPLETED else reasons.get(name, ""))


def _compare(
    comparing: Compares | None, reference: Written, new: Written, tolerances: Tolerances
) -> tuple[OutputComparison, ...]:
    """Compare bytes first, then what the tool knows, then the rest by its format."""
    found = {one.path: one for one in _same_bytes(reference.files, new.files)}
    mine, theirs = (without(one.files, set(found)) for one in (reference, new))
    whole = set(reference.states.values()) <= {COMPLETED}
    if comparing is not None:
        found |= {one.path: one for one in comparing.compare(mine, theirs, tolerances)}
    covered = {path for one in found.values() for path in (one.path, *one.covers)}
    for path in sorted({*mine.files, *theirs.files} - covered):
        found[path] = _one(path, mine.files.get(path), theirs.files.get(path), tolerances, whole)
    return tuple(found[path] for path in sorted(found))


def _same_bytes(reference: RunFiles, new: RunFiles) -> Iterator[OutputComparison]:
    for path, mine in reference.files.items():
        theirs = new.files.get(path)
        decided = compare_bytes(mine, theirs) if theirs else None
        if decided is not None:
            yield decided


def comparer_of(tool: str) -> Compares | None:
    """Return what knows the outputs of a tool; None if the tool does not, or is not here."""
    try:
        loaded = load_tool(tool)
    except UsageError:
        return None
    return loaded if isinstance(loaded, Compares) else None


def _one(
    path: str,
    reference: OutputFile | None,
    new: OutputFile | None,
    tolerances: Tolerances,
    whole: bool,
) -> OutputComparison:
    """Compare an output; `whole` is whether the reference completed, and so would have it."""
    if reference is not None and new is not None:
        return compare_file(reference, new, tolerances)
    note = "the new run did not write it" if new is None else "only the new run wrote it"
    return OutputComparison(
        path=path,
        verdict=Verdict.DIFFERENT if new is not None and whole else Verdict.INCOMPLETE,
        method=BYTES,
        notes=(note,),
        reference=reference,
        new=new,
    )


def _identity(side: Side) -> RunIdentity:
    manifest = side.manifest
    return RunIdentity(
        place=os.fspath(side.bundle.path),
        run_id=manifest.run_id,
        bundle_id=manifest.bundle_id,
        instance=manifest.instance,
        seal=seal_of(side.bundle),
        created_utc=manifest.created_utc,
        valska_version=manifest.valska_version,
        software=software_of(manifest),
    )


def software_of(manifest: Manifest) -> str | None:
    """Return what stands for the software in a bundle id; None on the host."""
    image, environment = manifest.image or {}, manifest.environment or {}
    found = image.get("sha256") or environment.get("explicit_sha256")
    return str(found) if found else None


def is_fault(note: str) -> bool:
    """Return whether a note of `judge` is about an output or a record that was altered."""
    side, _, told = note.partition(": ")
    return side in _SIDES and not told.startswith(NO_LONGER_THERE)


def _notes(reference: Written, new: Written) -> Iterator[str]:
    for name, one in zip(_SIDES, (reference, new), strict=True):
        yield from (f"{name}: {note}" for note in one.notes)
    if not reference.files.files:
        yield NO_OUTPUTS
