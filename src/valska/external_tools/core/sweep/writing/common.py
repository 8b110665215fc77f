"""What a sweep stores once: scripts, inputs, image files, and the common part of all manifests."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import valska
from valska.external_tools.core import contents
from valska.external_tools.core.jobscript import Identity
from valska.external_tools.core.manifest import SCHEMA_VERSION, BorrowedEntry
from valska.external_tools.core.process import Run
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.sweep.planning.drafting import SweepDraft
from valska.external_tools.core.sweep.writing.readme import render_sweep_readme
from valska.external_tools.core.trees import borrow
from valska.external_tools.core.utils import (
    random_hex,
    sha256_bytes,
    sha256_file,
    write_json_atomic,
)


class CommonPart(NamedTuple):
    """What of the common part its points have to know.

    Parameters
    ----------
    seal
        SHA-256 of the sweep's ``SHA256SUMS``.
    instance
        Tells this sweep from another.
    digests
        Name of an input below ``inputs/`` to its SHA-256.
    borrowed
        Directories that every point reads.
    """

    seal: str
    instance: str
    digests: dict[str, str]
    borrowed: tuple[BorrowedEntry, ...]


def write_common(sweep: Sweep, draft: SweepDraft, created_utc: str, run: Run) -> CommonPart:
    """Write all that a sweep stores once into its (empty) directory.

    Raises
    ------
    UsageError
        If an input cannot be staged or a value cannot stand in a script.
    ValskaError, OSError
        If it cannot be written.
    """
    base, bundle = draft.request.base, sweep.bundle
    for folder in (bundle.inputs, bundle.containers, bundle.logs):
        folder.mkdir()
    for folder in (sweep.points, sweep.shared, sweep.arrays):
        folder.mkdir()
    inputs = contents.stage_inputs(bundle, draft.inputs, base)
    borrowed = borrow(draft.borrowed)
    identity = Identity(
        tool=base.tool.name,
        run_id=draft.sweep_id,
        bundle_id="",
        instance=random_hex(16),
        valska_version=valska.__version__,
    )
    roles = contents.input_roles(inputs) | contents.write_image_files(bundle, base)
    roles |= contents.write_scripts(
        bundle, base, identity, draft.stages, inputs, borrowed=borrowed, sweep=True
    )
    text = render_sweep_readme(identity, draft.stages, base.runner, contents.image_sha256(base))
    roles[contents.write_file(bundle, bundle.readme, text.encode())] = "readme"
    files = contents.file_entries(bundle, roles)
    root = base.results_root
    document = {
        "schema_version": SCHEMA_VERSION,
        "tool": base.tool.name,
        "sweep_id": draft.sweep_id,
        "created_utc": created_utc,
        "valska_version": valska.__version__,
        "run_dir": str(draft.path),
        "results_root": None if root is None else str(root.absolute()),
        "instance": identity.instance,
        **contents.described_request(base, draft.stages, draft.taxonomy, run, sweep=True),
        "inputs": [asdict(entry) for entry in inputs],
        "borrowed": [asdict(entry) for entry in borrowed],
        "files": files,
    }
    write_json_atomic(sweep.common, document)
    digests = {str(entry["path"]): str(entry["sha256"]) for entry in files}
    seal = _write_sums(bundle.sums, {**digests, sweep.common.name: sha256_file(sweep.common)})
    contents.write_site(bundle.site_env, base, inputs, borrowed)
    targets = {entry.path.partition("/")[2]: entry.sha256 for entry in inputs}
    return CommonPart(seal, identity.instance, targets, borrowed)


def _write_sums(path: Path, digests: dict[str, str]) -> str:
    data = "".join(f"{digests[place]}  {place}\n" for place in sorted(digests)).encode()
    path.write_bytes(data)
    return sha256_bytes(data)
