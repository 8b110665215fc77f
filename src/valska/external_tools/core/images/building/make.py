"""Building an image from its definition into the store, with a record of what went in."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import valska
from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images import apptainer as programs
from valska.external_tools.core.images.building.draft import BuildDraft, copied_files
from valska.external_tools.core.images.building.environment import (
    build_environment,
    needs_fakeroot,
    workspace,
)
from valska.external_tools.core.images.building.transcript import (
    Progress,
    explain_failure,
    run_logged,
)
from valska.external_tools.core.images.definition import rebase
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.utils import sha256_file, utc_now_compact, utc_now_iso


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
    store, existing = draft.request.store, draft.existing
    if existing is not None and not force:
        return BuildResult(existing, store.sif(existing.sha256), built=False)
    with store.workspace() as out, workspace(draft.request.environ) as work:
        sif = out / "image.sif"
        stamp = f"{utc_now_compact()}-{out.name.rpartition('-')[2]}"
        log_file = store.logs / f"{draft.definition.path.stem}-{stamp}.log"
        sources = _sources(draft)
        _make(draft, sif, work, log_file, run, progress)
        if copied_files(draft.definition, dict(draft.request.build_arguments)) != draft.files:
            raise ValskaError(
                "a file that the definition copies in was altered while the image was built",
                "Build it again.",
            )
        record = store.add(sif, _record(draft, sif, run), sources)
    return BuildResult(record, store.sif(record.sha256), built=True, log=log_file)


def _sources(draft: BuildDraft) -> dict[str, bytes]:
    definition, lock = draft.definition, draft.lock
    sources = {definition.path.name: definition.text.encode()}
    for entry in draft.files:
        source = entry["source"] or ""
        if lock is not None and Path(source).name == lock["name"]:
            sources[lock["name"]] = (definition.path.parent / source).read_bytes()
    return sources


def _make(
    draft: BuildDraft,
    sif: Path,
    work: Path,
    log_file: Path,
    run: Run,
    progress: Progress | None,
) -> None:
    request, arguments = draft.request, draft.arguments
    epoch = arguments.get("source_date_epoch")
    path = work / draft.definition.path.name
    path.write_text(_text(draft, work, run))
    done = run_logged(
        draft.command(sif, path, work / "tmp"),
        log_file,
        cwd=draft.definition.path.absolute().parent,
        env=build_environment(request.environ, work, draft.ca_bundle, epoch),
        run=run,
        progress=progress,
    )
    if done.returncode != 0 or not sif.is_file():
        raise explain_failure(log_file, draft.base.reference)


def _text(draft: BuildDraft, work: Path, run: Run) -> str:
    base = draft.base
    if base.kind == "tar":
        base = replace(base, source=os.fspath(_unpack(Path(base.source), work / "base", run)))
    if base is draft.base and base.original is None:
        return draft.definition.text
    return rebase(draft.definition, base.bootstrap, base.source, base.labels)


def _unpack(tar: Path, directory: Path, run: Run) -> Path:
    directory.mkdir()
    owners = "--same-owner" if os.geteuid() == 0 and not needs_fakeroot() else "--no-same-owner"
    flags = ["--extract", "--numeric-owner", owners, "--exclude=./dev/*", "--exclude=dev/*"]
    done = run(["tar", *flags, "-C", os.fspath(directory), "-f", os.fspath(tar)])
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise PrerequisiteError(
            f"the base {tar} cannot be unpacked: {lines[-1] if lines else 'tar failed'}",
            "Check the file, and the free space of the temporary directory ($TMPDIR).",
        )
    return directory


def _record(draft: BuildDraft, sif: Path, run: Run) -> ImageRecord:
    program = draft.request.apptainer
    return ImageRecord(
        sha256=sha256_file(sif),
        size=sif.stat().st_size,
        rootfs_sha256=programs.rootfs_sha256(program, sif, run=run),
        name=draft.definition.path.stem,
        created_utc=utc_now_iso(),
        origin="built",
        definition={"name": draft.definition.path.name, "sha256": draft.definition.sha256},
        lock=draft.lock,
        files=draft.files,
        base=draft.base.facts,
        build_arguments=draft.request.build_arguments,
        recipe_sha256=draft.recipe_sha256,
        apptainer_version=draft.apptainer_version,
        valska_version=valska.__version__,
        packages=programs.image_packages(program, sif, run=run),
        labels=programs.own_labels(programs.inspect(program, sif, run=run)),
        build_host={
            "system": platform.system(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "root": os.geteuid() == 0,
            "fakeroot": needs_fakeroot() or os.geteuid() != 0,
        },
    )
