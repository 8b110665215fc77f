"""What bundles and sweeps both hold: staged inputs, image files, scripts, a description."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import valska
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.jobscript import Identity, all_directives, render_script
from valska.external_tools.core.manifest import BorrowedEntry, InputEntry
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.run_directory import Bundle, check_place
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.site import write_site_env
from valska.external_tools.core.staging import StagingMode, stage_input
from valska.external_tools.core.tool import Input, Stage
from valska.external_tools.core.utils import sha256_file, umask

if TYPE_CHECKING:
    from valska.external_tools.core.bundling import BundleRequest


def stage_inputs(
    bundle: Bundle, inputs: Iterable[Input], request: BundleRequest
) -> list[InputEntry]:
    """Stage inputs, a file with several names once.

    Raises
    ------
    UsageError
        If two files would have one name, or one cannot be staged.
    """
    staged: dict[str, tuple[Path, InputEntry]] = {}
    entries = []
    for item in inputs:
        source, entry = staged.get(item.target, (None, None))
        if entry is None:
            entry = stage_input(item, bundle.inputs, request.staging, request.copy_limit)
            staged[item.target] = (item.source, entry)
        elif source is None or not item.source.samefile(source):
            raise UsageError(f"inputs {entry.name} and {item.name} would both be {item.target}")
        entries.append(replace(entry, name=item.name))
    return entries


def input_roles(inputs: Iterable[InputEntry]) -> dict[str, str]:
    """Return the role of each staged file by its place."""
    return {
        entry.path: "placeholder" if entry.mode == StagingMode.REFERENCE else "input"
        for entry in inputs
    }


def referenced(inputs: Iterable[InputEntry]) -> list[InputEntry]:
    """Return the inputs that stay where they are, each file once."""
    return list({e.path: e for e in inputs if e.mode == StagingMode.REFERENCE}.values())


def write_file(bundle: Bundle, path: Path, data: bytes) -> str:
    """Write a file below a bundle's directory and return its place there."""
    place = check_place(os.fspath(path).removeprefix(f"{bundle.path}/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return place


def note_image(request: BundleRequest, path: Path) -> None:
    """Tell the store, before anything is made, that a bundle or sweep will need its image.

    Raises
    ------
    PrerequisiteError
        If the image has been cleared away meanwhile.
    """
    from valska.external_tools.core.images.store.uses import note_use

    image = request.image
    if request.runner is RunnerKind.CONTAINER and image is not None:
        note_use(image.path, image.sha256, path)


def write_image_files(bundle: Bundle, request: BundleRequest) -> dict[str, str]:
    """Write what is known of the image, and the image itself if it is embedded; return roles.

    Raises
    ------
    ValskaError
        If the image is not the one that was asked for.
    """
    image = request.image
    if request.runner is not RunnerKind.CONTAINER or image is None:
        return {}
    roles = {
        write_file(bundle, bundle.containers / name, data): role
        for name, (role, data) in image.files.items()
    }
    if request.embed_image:
        embedded = bundle.path / _embedded_path(request)
        item = Input("image", image.path, embedded.name)
        entry = stage_input(item, bundle.containers, StagingMode.COPY)
        if entry.sha256 != image.sha256:
            raise ValskaError(f"{image.path} is not the image {image.sha256[:12]}…", "Rebuild it.")
        roles[entry.path] = "image"
        _write_receipt(bundle, embedded, image.sha256)
    return roles


def _write_receipt(bundle: Bundle, embedded: Path, sha256: str) -> None:
    """Write what saves the tasks of an array from reading the whole image, each for itself."""
    from valska.external_tools.core.images.store import receipt_line

    bundle.logs.mkdir(exist_ok=True)
    receipt = bundle.logs / f"{embedded.name}.receipt"
    receipt.write_text(receipt_line(embedded, sha256), encoding="utf-8")


def write_scripts(
    bundle: Bundle,
    request: BundleRequest,
    identity: Identity,
    stages: Sequence[Stage],
    inputs: Iterable[InputEntry],
    *,
    borrowed: Sequence[BorrowedEntry] = (),
    sweep: bool = False,
) -> dict[str, str]:
    """Write the job script of every stage; return roles.

    Parameters
    ----------
    bundle
        Where to.
    request, identity, stages, inputs, borrowed
        What the scripts are made from.
    sweep
        See `render_script`.
    """
    roles = {}
    references = [(entry.path, entry.sha256) for entry in referenced(inputs)]
    for stage in stages:
        text = render_script(
            identity,
            stage,
            directives_of(request, stage, sweep=sweep),
            runner=request.runner,
            image_sha256=image_sha256(request),
            environment_sha256=environment_sha256(request),
            references=references,
            borrowed=[(entry.path, entry.sha256) for entry in borrowed],
            alone=len(stages) == 1,
            sweep=sweep,
            lent=[(one.name, place) for one in stages for place in one.lends],
        )
        script = bundle.script(stage.name)
        roles[write_file(bundle, script, text.encode())] = "script"
        script.chmod(0o777 & ~umask())
    return roles


def write_site(
    path: Path,
    request: BundleRequest,
    inputs: Iterable[InputEntry],
    borrowed: Iterable[BorrowedEntry] = (),
) -> None:
    """Write ``site.env``: the request's site, the image, and what lies elsewhere."""
    site = replace(
        request.site,
        image=request.image.path if request.image else None,
        references={entry.path: entry.source for entry in referenced(inputs)}
        | {entry.path: entry.source for entry in borrowed},
    )
    write_site_env(path, site)


def described_request(
    request: BundleRequest,
    stages: Iterable[Stage],
    taxonomy: Mapping[str, str],
    run: Run,
    *,
    sweep: bool = False,
) -> dict[str, Any]:
    """Return the fields of the manifest that follow from the request and the stages."""
    return {
        "spec": {
            "source": request.spec.source.name,
            "taxonomy": dict(taxonomy),
            "overrides": dict(request.spec.overrides),
            "perturbations": dict(request.spec.perturbations),
            "options": dict(request.spec.options),
        },
        "stages": [_stage_json(request, stage, sweep) for stage in stages],
        "runner": request.runner.value,
        "image": _image_json(request),
        "environment": asdict(request.environment) if request.environment else None,
        "git": source_commit(run),
        "parent": request.parent,
    }


def file_entries(bundle: Bundle, roles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return path, SHA-256, size in bytes and role of files, sorted by path."""
    return [
        {
            "path": path,
            "sha256": sha256_file(bundle.path / path),
            "size": (bundle.path / path).stat().st_size,
            "role": roles[path],
        }
        for path in sorted(roles)
    ]


def _embedded_path(request: BundleRequest) -> str:
    return f"containers/{request.tool.name}.sif"


def software_sha256(request: BundleRequest) -> str | None:
    """Return what stands for the software in the bundle id; None on the host."""
    return image_sha256(request) or environment_sha256(request)


def image_sha256(request: BundleRequest) -> str | None:
    """Return the digest of the image, if there is one."""
    return request.image.sha256 if request.image else None


def environment_sha256(request: BundleRequest) -> str | None:
    """Return the digest of the environment's package list, if there is one."""
    return request.environment.explicit_sha256 if request.environment else None


def _stage_json(request: BundleRequest, stage: Stage, sweep: bool) -> dict[str, Any]:
    return {
        **{name: list(v) if isinstance(v, tuple) else v for name, v in asdict(stage).items()},
        "directives": directives_of(request, stage, sweep=sweep),
        "script": Bundle(Path()).script(stage.name).name,
    }


def directives_of(request: BundleRequest, stage: Stage, *, sweep: bool = False) -> dict[str, str]:
    """Return all directives of a stage's script."""
    mine = request.spec.directives.get(stage.name, {})
    return all_directives(request.tool.name, stage, mine, sweep=sweep)


def _image_json(request: BundleRequest) -> dict[str, Any] | None:
    image = request.image
    if image is None:
        return None
    embedded = _embedded_path(request) if request.embed_image else None
    return {"sha256": image.sha256, "size": image.size, "embedded": embedded, **image.facts}


def source_commit(run: Run = run) -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout that valska runs from, or None."""
    root = Path(valska.__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    done = run(["git", "-C", os.fspath(root), *command], timeout=30)
    commit = re.search(r"^# branch\.oid ([0-9a-f]+)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or commit is None:
        return None
    changed = any(not line.startswith("#") for line in done.stdout.splitlines())
    return {"commit": commit[1], "dirty": changed}
