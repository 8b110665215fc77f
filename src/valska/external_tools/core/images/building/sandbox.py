"""A definition built by Apptainer into a directory."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.building.base import Base
from valska.external_tools.core.images.building.draft import BuildDraft
from valska.external_tools.core.images.building.environment import (
    build_environment,
    needs_fakeroot,
    wheels_in,
)
from valska.external_tools.core.images.building.ownership import own_tree
from valska.external_tools.core.images.building.staging import stage_files
from valska.external_tools.core.images.building.transcript import (
    Progress,
    explain_failure,
    run_logged,
)
from valska.external_tools.core.images.definition import Definition, rebase, replace_source
from valska.external_tools.core.images.locking.document import read_lock
from valska.external_tools.core.process import Run

_BASE_LABEL = re.compile(r"(?m)^\s*org\.opencontainers\.image\.base\.(name|digest)[ \t]+(.*?)\s*$")


def build_sandbox(
    draft: BuildDraft, work: Path, log: Path, *, run: Run, progress: Progress | None = None
) -> Path:
    """Build a definition into a directory, all of which is this user's then.

    Parameters
    ----------
    draft
        The build.
    work
        The workspace.
    log
        File for what the build prints.
    run
        Runs programs.
    progress
        Told every line of it.

    Returns
    -------
    Path
        The root of the file system.

    Raises
    ------
    PrerequisiteError
        If the base cannot be got, or Apptainer cannot build here.
    ValskaError
        If the build or the definition's test fails; the message names the log.
    """
    root, definition = work / "root", work / draft.definition.path.name
    definition.write_text(_text(draft, work, run), encoding="utf-8")
    done = run_logged(
        draft.command(root, definition, work / "tmp"),
        log,
        cwd=stage_files(draft.definition, draft.request.build_arguments, work / "files"),
        env=_environment(draft, work),
        run=run,
        progress=progress,
    )
    if done.returncode != 0 or not root.is_dir():
        raise explain_failure(log, draft.base.reference)
    own_tree(root, run)
    return root


def shown_definition(draft: BuildDraft) -> str:
    """Return the text that an image shows as its definition, in which no path of this machine is.

    A local base that replaces the definition's own is named by its digest.
    """
    base, definition = draft.base, draft.definition
    text = definition.text
    if base.original is not None:
        source = f"sha256:{base.sha256 or 'unknown'}" if base.is_local else _public(base)
        text = rebase(definition, base.bootstrap, source, base.labels)
    return "".join(
        line if line.lstrip().startswith("#") else definition.fill(line, draft.arguments)
        for line in text.splitlines(keepends=True)
    )


def _environment(draft: BuildDraft, work: Path) -> dict[str, str]:
    request = draft.request
    if request.offline:
        from valska.external_tools.core.kit.offline import lay_out_wheels

        lay_out_wheels(draft, wheels_in(work))
    return build_environment(
        request.environ, work, draft.ca_bundle, str(draft.epoch), offline=request.offline
    )


def _public(base: Base) -> str:
    return base.reference.removeprefix(f"{base.bootstrap}:").removeprefix("//")


def _text(draft: BuildDraft, work: Path, run: Run) -> str:
    base = _stored(draft, work) or draft.base
    if base.kind == "tar":
        base = replace(base, source=os.fspath(_unpack(Path(base.source), work / "base", run)))
    if base is draft.base and base.original is None:
        return _own_text(base, draft.definition)
    labels = dict(_BASE_LABEL.findall(draft.definition.text)) if not base.original else base.labels
    return rebase(draft.definition, base.bootstrap, base.source, labels)


def _own_text(base: Base, definition: Definition) -> str:
    """Return the text, in which a file beside the definition is named by its whole path."""
    if base.is_local or base.kind.endswith("-archive"):
        return replace_source(definition, base.source)
    return definition.text


def _stored(draft: BuildDraft, work: Path) -> Base | None:
    """Return the base as the store has it, if it does, by a name that Apptainer does not cut."""
    from valska.external_tools.core.kit.supplies import Supplies

    base = draft.base
    if base.bootstrap != "docker" or base.sha256 is None:
        return None
    lock = read_lock(draft.lock_path) if draft.lock_path else None
    supplies = Supplies(draft.request.store.root)
    archive = supplies.base(base.sha256, lock.platform if lock else None)
    if archive is None:
        return None
    link = work / "base.oci.tar"
    link.symlink_to(archive.absolute())
    return replace(base, bootstrap="oci-archive", source=os.fspath(link))


def _unpack(tar: Path, directory: Path, run: Run) -> Path:
    directory.mkdir()
    owners = "--same-owner" if os.geteuid() == 0 and not needs_fakeroot() else "--no-same-owner"
    flags = ["--extract", "--numeric-owner", "--same-permissions", owners]
    flags += ["--exclude=./dev/*", "--exclude=dev/*"]
    done = run(["tar", *flags, "-C", os.fspath(directory), "-f", os.fspath(tar)])
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise PrerequisiteError(
            f"the base {tar} cannot be unpacked: {lines[-1] if lines else 'tar failed'}",
            "Check the file, and the free space of the temporary directory ($TMPDIR).",
        )
    own_tree(directory, run)
    return directory
