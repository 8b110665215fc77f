"""Building an image from its definition into the store, with a record of what went in."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import valska
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images import apptainer as programs
from valska.external_tools.core.images.building.draft import BuildDraft, copied_files
from valska.external_tools.core.images.building.environment import needs_fakeroot, workspace
from valska.external_tools.core.images.building.mksquashfs import Mksquashfs, find_mksquashfs
from valska.external_tools.core.images.building.packing import Packed, pack_image
from valska.external_tools.core.images.building.sandbox import build_sandbox, shown_definition
from valska.external_tools.core.images.building.transcript import Progress
from valska.external_tools.core.images.listing import SUFFIX as LISTING_SUFFIX
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.sbom import SUFFIX as SBOM_SUFFIX
from valska.external_tools.core.images.sbom import describe_sbom, make_sbom
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.utils import utc_now_compact, utc_now_iso


@dataclass(frozen=True, slots=True)
class BuildResult:
    """An image in the store.

    Parameters
    ----------
    record
        Its record.
    path
        The SIF.
    built
        Whether it was built now; otherwise it was there.
    log
        What the build printed.
    """

    record: ImageRecord
    path: Path
    built: bool
    log: Path | None = None


def build(
    draft: BuildDraft, *, force: bool = False, run: Run = run, progress: Progress | None = None
) -> BuildResult:
    """Build an image and take it into the store.

    Of two builds of the same, one works; the other waits, and finds what the first has made.

    Parameters
    ----------
    draft
        See `draft_build`.
    force
        Build it although the store has an image made of the same.
    run
        Runs programs.
    progress
        Told every line that the build prints.

    Raises
    ------
    PrerequisiteError
        If the base cannot be got, the store cannot be written, or Apptainer cannot build here.
    ValskaError
        If the build or the definition's test fails; the message names the log.
    """
    store, recipe = draft.request.store, draft.recipe_sha256
    if draft.existing is not None and not force:
        return _there(draft, draft.existing)
    what = f"building {draft.definition.path.stem}"
    with store.holding(f"build-{recipe or draft.definition.sha256}", what):
        existing = store.newest(recipe_sha256=recipe) if recipe and not force else None
        if existing is not None:
            return _there(draft, existing)
        return _build(draft, run, progress)


def make_image(
    draft: BuildDraft, out: Path, *, run: Run = run, progress: Progress | None = None
) -> tuple[Packed, ImageRecord, Path]:
    """Build an image into a directory, as ``image.sif``; return it, its record, and the log.

    Parameters
    ----------
    draft
        The build.
    out
        A directory of this process alone.
    run
        Runs programs.
    progress
        Told every line that the build prints.

    Raises
    ------
    PrerequisiteError, ValskaError
        See `build`.
    """
    request = draft.request
    if request.offline:
        require_offline(draft)
    mksquashfs = find_mksquashfs(request.apptainer, run=run)
    stamp = f"{utc_now_compact()}-{out.name.rpartition('-')[2]}"
    log = request.store.logs / f"{draft.definition.path.stem}-{stamp}.log"
    with workspace(request.environ) as work:
        root = build_sandbox(draft, work, log, run=run, progress=progress)
        _require_unaltered(draft)
        packed = pack_image(
            root,
            out / "image.sif",
            definition=shown_definition(draft),
            time=draft.epoch,
            mksquashfs=mksquashfs,
            ask=_asking(request.apptainer, root, run),
            run=run,
        )
    _note_removed(log, packed.removed)
    return packed, _record(draft, packed, mksquashfs), log


def require_offline(draft: BuildDraft) -> None:
    """Refuse a build without a network for which something is not in the store.

    Raises
    ------
    PrerequisiteError
        Naming everything that is missing.
    """
    from valska.external_tools.core.kit.offline import require_parts

    require_parts(draft)


def _there(draft: BuildDraft, record: ImageRecord) -> BuildResult:
    return BuildResult(record, draft.request.store.sif(record.sha256), built=False)


def _build(draft: BuildDraft, run: Run, progress: Progress | None) -> BuildResult:
    store, sources = draft.request.store, _sources(draft)
    with store.workspace() as out:
        packed, record, log = make_image(draft, out, run=run, progress=progress)
        sbom = make_sbom(record, packed.packages)
        name = f"{record.name}{SBOM_SUFFIX}"
        files = {name: sbom, f"{record.name}{LISTING_SUFFIX}": packed.listing.to_bytes()}
        record = replace(record, sbom=describe_sbom(name, sbom))
        kept = store.add(packed.sif, record, {**sources, **files})
    return BuildResult(kept, store.sif(kept.sha256), built=True, log=log)


def _sources(draft: BuildDraft) -> dict[str, bytes]:
    definition, lock = draft.definition, draft.lock
    sources = {definition.path.name: definition.text.encode()}
    if lock is not None and draft.lock_path is not None:
        sources[lock["name"]] = draft.lock_path.read_bytes()
    return sources


def _require_unaltered(draft: BuildDraft) -> None:
    if copied_files(draft.definition, dict(draft.request.build_arguments)) != draft.files:
        raise ValskaError(
            "a file that the definition copies in was altered while the image was built",
            "Build it again.",
        )


def _asking(apptainer: str, root: Path, run: Run) -> Callable[[Sequence[str]], str | None]:
    return lambda argv: programs.ask(apptainer, root, tuple(argv), run=run)


def _note_removed(log: Path, removed: Sequence[str]) -> None:
    lines = [
        f"valska: not packed, since it differs from build to build: /{name}" for name in removed
    ]
    with log.open("a", errors="surrogateescape") as file:
        file.writelines(f"{line}\n" for line in lines)


def _record(draft: BuildDraft, packed: Packed, mksquashfs: Mksquashfs) -> ImageRecord:
    return ImageRecord(
        sha256=packed.sha256,
        size=packed.size,
        rootfs_sha256=packed.rootfs_sha256,
        tree_sha256=packed.listing.sha256,
        name=draft.definition.path.stem,
        created_utc=utc_now_iso(),
        origin="built",
        definition={"name": draft.definition.path.name, "sha256": draft.definition.sha256},
        lock=draft.lock,
        files=draft.files,
        base=draft.base.facts,
        build_arguments=draft.request.build_arguments,
        recipe_sha256=draft.recipe_sha256,
        source_date_epoch=draft.epoch,
        apptainer_version=draft.apptainer_version,
        valska_version=valska.__version__,
        squashfs=mksquashfs.facts,
        packages=packed.packages.to_json(),
        labels=packed.labels,
        build_host={
            "system": platform.system(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "root": os.geteuid() == 0,
            "fakeroot": needs_fakeroot() or os.geteuid() != 0,
        },
    )
