"""Bundling: from a resolved request to a sealed bundle, whole or not at all."""

from __future__ import annotations

import glob
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import valska
from valska.external_tools.core import manifest as manifests
from valska.external_tools.core.contents import (
    described_request,
    file_entries,
    image_sha256,
    input_roles,
    note_image,
    software_sha256,
    stage_inputs,
    write_file,
    write_image_files,
    write_scripts,
    write_site,
)
from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.jobscript import Identity
from valska.external_tools.core.plans import check_perturbed, check_plan
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.readme import render_readme
from valska.external_tools.core.run_directory import (
    Bundle,
    RunDirectoryError,
    TakenError,
    build_run_dir,
    check_name,
    check_place,
    ensure_run_dir,
    refuse_inside,
)
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.seal import write_seal
from valska.external_tools.core.site import Site
from valska.external_tools.core.staging import COPY_LIMIT_BYTES, StagingMode
from valska.external_tools.core.tool import Input, RunPlan, RunSpec, Tool, read_file
from valska.external_tools.core.trees import borrow
from valska.external_tools.core.utils import fsync_directory, random_hex, utc_now_iso

if TYPE_CHECKING:
    from valska.external_tools.core.conda import CondaEnvironment

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BundledImage:
    """An image as a bundle needs it.

    Parameters
    ----------
    path
        Where the SIF is now.
    sha256, size
        Of the SIF; size in bytes.
    facts
        What the manifest says of it: ``definition_sha256``, ``lock_sha256``,
        ``apptainer_version``, ``base``, ``build_arguments``.
    files
        File name to (role, content): definition, lock and image record, as far as known.
    """

    path: Path
    sha256: str
    size: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """Everything that a bundle is made from, resolved.

    Parameters
    ----------
    tool
        The tool.
    spec
        What to run.
    runner
        How to run it.
    image
        The image; for the container runner.
    environment
        The environment; for the conda runner.
    site
        What goes into ``site.env``; its image and references are filled in here.
    output
        The bundle's directory; below `results_root`, if not given.
    results_root
        Root of all results.
    unique
        Append the UTC time to the directory.
    staging
        How inputs are staged; by size, if not given.
    copy_limit
        Bytes above which an input is referenced by default.
    embed_image
        Put the SIF itself into the bundle.
    parent
        Bundle id of the bundle that this one reproduces.
    """

    tool: Tool
    spec: RunSpec
    runner: RunnerKind = RunnerKind.CONTAINER
    image: BundledImage | None = None
    environment: CondaEnvironment | None = None
    site: Site = field(default_factory=Site)
    output: Path | None = None
    results_root: Path | None = None
    unique: bool = False
    staging: StagingMode | None = None
    copy_limit: int = COPY_LIMIT_BYTES
    embed_image: bool = False
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A bundle before anything is written: what a dry run shows."""

    request: BundleRequest
    inputs: tuple[Input, ...]
    plan: RunPlan
    path: Path


def draft(request: BundleRequest) -> Draft:
    """Find the inputs, make the plan and choose the place; write nothing.

    Raises
    ------
    UsageError
        If the configuration or an input is wrong, or no place is given.
    PrerequisiteError
        If the container runner has no image, or the conda runner no environment.
    ValskaError
        If the tool's plan contradicts itself.
    """
    check_name(request.spec.run_id, "run id")
    require_software(request)
    inputs = request.tool.discover(request.spec, read_file)
    plan = request.tool.plan(request.spec, inputs, read_file)
    check_plan(request.tool, plan)
    check_perturbed(request.tool, request.spec, plan, read_file)
    return Draft(request, inputs, plan, _place(request, plan).absolute())


def require_software(request: BundleRequest) -> None:
    """Refuse a request without what its runner runs.

    Raises
    ------
    PrerequisiteError
        If the container runner has no image, or the conda runner no environment.
    """
    if request.runner is RunnerKind.CONTAINER and request.image is None:
        raise PrerequisiteError(
            f"no image for {request.tool.name}",
            f"Build one with `valska build containers/{request.tool.definition}`, "
            "or name one with --image.",
        )
    if request.runner is RunnerKind.CONDA and request.environment is None:
        raise PrerequisiteError(f"no conda environment for {request.tool.name}")


def create(drafted: Draft, *, run: Run = run) -> Bundle:
    """Make the bundle: in a hidden directory beside its place, then renamed.

    Raises
    ------
    RunDirectoryError
        If its place is taken or cannot be made.
    UsageError
        If an input cannot be staged or a value cannot stand in a script.
    ValskaError
        If it cannot be written.
    """
    path = drafted.path
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise _taken(path)
    refuse_inside(path)
    note_image(drafted.request, path)
    ensure_run_dir(path.parent, exist_ok=True)
    warn_of_leftovers(path)
    partial = Bundle(path.with_name(f".{path.name}.{random_hex(6)}.partial"))
    try:
        ensure_run_dir(partial.path)
        _fill(partial, drafted, run)
        put_in_place(partial.path, path)
    except OSError as error:
        raise ValskaError(
            f"cannot make {path}: {error.strerror or error}",
            "Check the disk's free space and permissions.",
        ) from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r} is not UTF-8", "Rename it.") from error
    finally:
        shutil.rmtree(partial.path, ignore_errors=True)
    return Bundle(path)


def _place(request: BundleRequest, plan: RunPlan) -> Path:
    if request.output is not None:
        return request.output
    if request.results_root is None:
        raise UsageError(
            "no place for the bundle",
            "Name it with -o DIR, or set results_root (--results-root or the configuration).",
        )
    return build_run_dir(
        request.results_root,
        request.tool.name,
        plan.taxonomy,
        request.spec.run_id,
        unique=request.unique,
    )


def warn_of_leftovers(path: Path) -> None:
    """Name what a killed command left beside the place of a bundle or a sweep."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        log.warning("%s is left of a bundling that was killed, if none runs now", partial)


def _taken(path: Path) -> RunDirectoryError:
    return TakenError(
        f"{path} exists already",
        "Choose another run id or -o DIR, or add --unique for a time stamp.",
    )


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a directory that is whole to its final name.

    Raises
    ------
    TakenError
        If that was taken meanwhile.
    """
    try:
        partial.rename(path)
    except OSError as error:
        if path.exists():
            raise _taken(path) from error
        raise
    fsync_directory(path.parent)


def _fill(bundle: Bundle, drafted: Draft, run: Run) -> None:
    request, plan = drafted.request, drafted.plan
    for directory in (bundle.config, bundle.inputs, bundle.containers):
        directory.mkdir()
    for directory in (bundle.records, bundle.logs, bundle.outputs):
        directory.mkdir()
    roles = {}
    for name, data in plan.configs.items():
        roles[write_file(bundle, bundle.config / check_place(name), data)] = "config"
    inputs = stage_inputs(bundle, drafted.inputs, request)
    roles |= input_roles(inputs)
    roles |= write_image_files(bundle, request)
    borrowed = borrow(plan.borrowed)
    identity = Identity(
        tool=request.tool.name,
        run_id=request.spec.run_id,
        bundle_id=_bundle_id(request, plan, inputs, borrowed),
        instance=random_hex(16),
        valska_version=valska.__version__,
    )
    roles |= write_scripts(bundle, request, identity, plan.stages, inputs, borrowed=borrowed)
    readme = render_readme(identity, plan, request.runner, image_sha256(request))
    roles[write_file(bundle, bundle.readme, readme.encode())] = "readme"
    files = file_entries(bundle, roles)
    manifests.write_manifest(
        bundle.path,
        tool=request.tool.name,
        run_id=request.spec.run_id,
        results_root=request.results_root,
        recorded_run_dir=drafted.path,
        created_utc=utc_now_iso(),
        extra_fields={
            "bundle_id": identity.bundle_id,
            "instance": identity.instance,
            **described_request(request, plan.stages, plan.taxonomy, run),
            "inputs": [asdict(entry) for entry in inputs],
            "borrowed": [asdict(entry) for entry in borrowed],
            "files": files,
            request.tool.name: dict(plan.section),
        },
    )
    write_seal(bundle, {entry["path"]: entry["sha256"] for entry in files})
    write_site(bundle.site_env, request, inputs, borrowed)


def _bundle_id(
    request: BundleRequest,
    plan: RunPlan,
    inputs: Sequence[manifests.InputEntry],
    borrowed: Sequence[manifests.BorrowedEntry],
) -> str:
    return manifests.bundle_id(
        request.tool.name,
        plan.configs,
        plan.stages,
        {
            **{entry.name: entry.sha256 for entry in inputs},
            **{entry.path: entry.sha256 for entry in borrowed},
        },
        software_sha256(request),
    )
