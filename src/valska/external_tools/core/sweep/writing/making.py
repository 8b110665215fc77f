"""Sweeps: from a resolved request to a directory that is whole, and more points later."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import valska
from valska.external_tools.core.bundling import put_in_place, warn_of_leftovers
from valska.external_tools.core.contents import note_image
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.run_directory import TakenError, ensure_run_dir, refuse_inside
from valska.external_tools.core.sweep.document import (
    SweepManifest,
    read_common,
    read_sweep_manifest,
    write_sweep_manifest,
)
from valska.external_tools.core.sweep.layout import Sweep, is_sweep
from valska.external_tools.core.sweep.planning.drafting import (
    SweepDraft,
    SweepRequest,
    draft_sweep,
    shared_work,
)
from valska.external_tools.core.sweep.writing.assembly import Assembly, Sciences, Work
from valska.external_tools.core.sweep.writing.common import write_common
from valska.external_tools.core.sweep.writing.units import sync_file_system
from valska.external_tools.core.utils import random_hex, sha256_file, utc_now_iso

if TYPE_CHECKING:
    from valska.external_tools.core.sweep.planning.comparison import Standing

__all__ = [
    "Made",
    "SweepDraft",
    "SweepRequest",
    "add_points",
    "create_sweep",
    "draft_sweep",
    "preview",
]


@dataclass(frozen=True, slots=True)
class Made:
    """What came of making a sweep or adding to it.

    Parameters
    ----------
    sweep
        The sweep.
    manifest
        Its manifest as it is now.
    added
        Labels of points that were made.
    kept
        Labels of points that were asked for and are there already, equal.
    notes
        What the user should know.
    """

    sweep: Sweep
    manifest: SweepManifest
    added: tuple[str, ...]
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def create_sweep(draft: SweepDraft, *, run: Run = run) -> Made:
    """Make a sweep: in a hidden directory beside its place, then renamed.

    A sweep that is there and equal in everything is left as it is, so that a command that was
    killed can be run again.

    Raises
    ------
    TakenError
        If its place is taken by something else.
    UsageError
        If an input cannot be staged or a value cannot stand in a file.
    ValskaError
        If it cannot be written.
    """
    path = draft.path
    if is_sweep(path):
        return _same(draft)
    _require_free(path)
    note_image(draft.request.base, path)
    ensure_run_dir(path.parent, exist_ok=True)
    warn_of_leftovers(path)
    partial = Sweep(path.with_name(f".{path.name}.{random_hex(6)}.partial"))
    try:
        with _explained(path):
            ensure_run_dir(partial.path)
            manifest = _fill(partial, draft, run)
            sync_file_system(partial.path)
            put_in_place(partial.path, path)
    finally:
        shutil.rmtree(partial.path, ignore_errors=True)
    return Made(Sweep(path), manifest, tuple(p.label for p in manifest.points))


def add_points(draft: SweepDraft, *, run: Run = run) -> Made:
    """Add the points that a sweep does not have yet; make the sweep if there is none.

    What all points share stays as it is. A new point joins work that is shared already, and new
    points with the same work share it; one that only a point before has in common does it for
    itself.

    Raises
    ------
    UsageError
        If the draft's stages, image, inputs or settings are not those of the sweep; or a point
        has the name of another, or is in the sweep under another name.
    LockedError
        If another command works on the sweep.
    ValskaError
        If it cannot be written, or the sweep is not as it was made.
    """
    if not is_sweep(draft.path):
        return create_sweep(draft, run=run)
    from valska.external_tools.core.lock import directory_lock

    sweep = Sweep(draft.path)
    with directory_lock(sweep.bundle.submit_lock):
        manifest = _read_intact(sweep)
        standing = _compare(draft, manifest, read_common(sweep))
        if not standing.new:
            return Made(sweep, manifest, (), standing.kept, standing.notes)
        with _explained(sweep.path):
            changed = _add(sweep, draft, manifest, standing)
    added = tuple(d.point.label for d in standing.new)
    notes = (*standing.notes, *_notes(manifest, changed, set(added)))
    return Made(sweep, changed, added, standing.kept, notes)


def preview(draft: SweepDraft, *, add: bool) -> SweepDraft:
    """Return the draft with only those points that making it would make.

    Raises
    ------
    ValskaError
        As `create_sweep` (`add_points`, if `add`) would raise before it writes.
    """
    if not is_sweep(draft.path):
        _require_free(draft.path)
        return draft
    if not add:
        return replace(draft, points=(), notes=_same(draft).notes)
    sweep = Sweep(draft.path)
    common = read_common(sweep)
    standing = _compare(draft, _read_intact(sweep), common)
    kept = {stage.name: stage.directives for stage in common.stages}
    return replace(draft, points=standing.new, directives=kept, notes=standing.notes)


def _compare(draft: SweepDraft, manifest: SweepManifest, common: Manifest) -> Standing:
    from valska.external_tools.core.sweep.planning.comparison import compare

    return compare(draft, manifest, common)


def _require_free(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise TakenError(f"{path} exists already", "Choose another --sweep-id or -o DIR.")
    refuse_inside(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except TakenError as error:
        raise TakenError(error.message, "Choose another --sweep-id or -o DIR.") from error
    except OSError as error:
        raise ValskaError(
            f"cannot make {path}: {error.strerror or error}",
            "Check the disk's free space and permissions.",
        ) from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r} is not UTF-8", "Rename it.") from error


def _fill(sweep: Sweep, draft: SweepDraft, run: Run) -> SweepManifest:
    now = utc_now_iso()
    common = write_common(sweep, draft, now, run)
    sciences = Sciences(draft, common.digests, common.borrowed)
    work = Work(new=draft.shared)
    assembly = Assembly(draft, sciences, work, common.seal)
    shared = assembly.write_shared(sweep.shared, draft.points)
    manifest = SweepManifest(
        tool=draft.request.base.tool.name,
        sweep_id=draft.sweep_id,
        created_utc=now,
        changed_utc=now,
        instance=common.instance,
        common_seal=common.seal,
        points=assembly.write_points(sweep.points, draft.points),
        shared=shared,
    )
    write_sweep_manifest(sweep, manifest)
    read_common(sweep)
    return manifest


def _same(draft: SweepDraft) -> Made:
    """Return the sweep that is there if it is the one that was asked for."""
    sweep = Sweep(draft.path)
    manifest = read_sweep_manifest(sweep)
    hint = "Add points to it with --add, or choose another --sweep-id or -o DIR."
    try:
        standing = _compare(draft, manifest, read_common(sweep))
    except UsageError as error:
        raise TakenError(f"{sweep.path} exists already: {error.message}", hint) from error
    if standing.new or len(standing.kept) != len(manifest.points):
        raise TakenError(f"{sweep.path} exists already, with other points", hint)
    return Made(sweep, manifest, (), standing.kept, standing.notes)


def _read_intact(sweep: Sweep) -> SweepManifest:
    manifest = read_sweep_manifest(sweep)
    if sha256_file(sweep.bundle.sums) != manifest.common_seal:
        raise ValskaError(
            f"{sweep.bundle.sums} is not as it was made", "`valska verify` says what has changed."
        )
    return manifest


def _add(
    sweep: Sweep, draft: SweepDraft, manifest: SweepManifest, standing: Standing
) -> SweepManifest:
    from valska.external_tools.core.sweep.writing.adding import building_place, move_in

    there = frozenset(entry.label for entry in manifest.shared)
    work = Work(there, shared_work(standing.new) - there)
    assembly = Assembly(draft, standing.sciences, work, manifest.common_seal)
    assembly.find_shared(sweep)
    with building_place(sweep) as place:
        shared = assembly.write_shared(place / "shared", standing.new)
        points = assembly.write_points(place / "points", standing.new)
        sync_file_system(place)
        move_in(place, sweep)
    changed = replace(
        manifest,
        points=(*manifest.points, *points),
        shared=(*manifest.shared, *shared),
        changed_utc=utc_now_iso(),
        valska_version=valska.__version__,
    )
    write_sweep_manifest(sweep, changed)
    return changed


def _notes(before: SweepManifest, after: SweepManifest, added: Iterable[str]) -> Iterator[str]:
    """Name the points that do again what a point before does for itself."""
    alone = {label: point.label for point in before.points for label in point.alone.values()}
    new = set(added)
    for point in after.points:
        if point.label in new:
            for stage, label in {**point.alone, **point.shared}.items():
                if label in alone:
                    yield (
                        f"{point.label} does not use what {stage} of {alone[label]} writes, though "
                        "it is the same work: that point was made before and shares nothing"
                    )
