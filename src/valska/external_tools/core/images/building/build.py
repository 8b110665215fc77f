"""Building an image from its definition into the store, with a record of what went in."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import rfc8785

import valska
from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.images import apptainer as programs
from valska.external_tools.core.images.building.base import (
    Base,
    own_base,
    own_reference,
    replacement_base,
)
from valska.external_tools.core.images.building.environment import (
    build_environment,
    find_ca_bundle,
    needs_fakeroot,
    workspace,
)
from valska.external_tools.core.images.building.transcript import (
    Progress,
    explain_failure,
    run_logged,
)
from valska.external_tools.core.images.definition import (
    Definition,
    check_arguments,
    read_definition,
    rebase,
)
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.site import mount_spec
from valska.external_tools.core.utils import (
    sha256_bytes,
    sha256_file,
    utc_now_compact,
    utc_now_iso,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build, and with what.

    Parameters
    ----------
    definition
        The definition file.
    store
        Where the image goes.
    base
        Another base than the definition's: a path or a URI.
    build_arguments
        Values for the names in the definition's ``%arguments``.
    apptainer
        The program.
    ca_bundle
        Certificates to trust; those of the environment (``PIP_CERT``, ``SSL_CERT_FILE``, …), if
        not given.
    binds
        Further paths that the build sees, ``source[:destination[:ro]]``.
    options
        Further options for ``apptainer build``.
    environ
        The caller's environment.
    """

    definition: Path
    store: ImageStore
    base: str | None = None
    build_arguments: Mapping[str, str] = field(default_factory=dict)
    apptainer: str = "apptainer"
    ca_bundle: Path | None = None
    binds: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True, slots=True)
class BuildDraft:
    """A build before anything is written: what a dry run shows.

    Parameters
    ----------
    request
        What was asked for.
    definition
        The definition as read.
    base
        What it is built on.
    files
        What ``%files`` copies in, each with its digest.
    apptainer_version
        Of the program that will build it.
    ca_bundle
        Certificates that the build trusts.
    existing
        An image in the store that is made of the same.
    """

    request: BuildRequest
    definition: Definition
    base: Base
    files: tuple[Mapping[str, str | None], ...]
    apptainer_version: str
    ca_bundle: Path | None = None
    existing: ImageRecord | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """Build arguments: those given over the definition's defaults."""
        return {**self.definition.arguments, **self.request.build_arguments}

    @property
    def lock(self) -> Mapping[str, str] | None:
        """Name and digest of the hashed requirements among the files."""
        for entry in self.files:
            source, digest = entry["source"], entry["sha256"]
            if source and digest and source.endswith(".lock"):
                return {"name": Path(source).name, "sha256": digest}
        return None

    @property
    def recipe_sha256(self) -> str | None:
        """Digest of all that goes into the build, or None if a part has no digest."""
        parts = [self.base.sha256, *(entry["sha256"] for entry in self.files)]
        if None in parts:
            return None
        recipe = {
            "definition": self.definition.sha256,
            "files": [dict(entry) for entry in self.files],
            "base": self.base.sha256,
            "arguments": self.arguments,
        }
        return sha256_bytes(rfc8785.dumps(recipe))

    def command(
        self, sif: Path, definition: Path, temporary: Path | None = None
    ) -> tuple[str, ...]:
        """Return the command that builds.

        Parameters
        ----------
        sif
            The image to write.
        definition
            The definition, on the base that it is to have.
        temporary
            What the build sees as ``/tmp``.
        """
        request = self.request
        mounts = [mount_spec(bind) for bind in request.binds]
        if temporary is not None:
            source = _csv(f"source={temporary}")
            mounts.insert(0, f"type=bind,{source},destination=/tmp")
        return (
            request.apptainer,
            "build",
            *(["--fakeroot"] if needs_fakeroot() else []),
            *(word for mount in mounts for word in ("--mount", mount)),
            *(
                word
                for name, value in request.build_arguments.items()
                for word in ("--build-arg", _csv(f"{name}={value}"))
            ),
            *request.options,
            os.fspath(sif),
            os.fspath(definition),
        )


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


def draft_build(request: BuildRequest, *, run: Run = run) -> BuildDraft:
    """Read and check all that goes into a build; write nothing.

    Raises
    ------
    UsageError
        If the definition, a build argument or the base cannot be used.
    PrerequisiteError
        If Apptainer, the base or the CA bundle is missing.
    """
    definition = read_definition(request.definition)
    arguments = dict(request.build_arguments)
    for name, value in arguments.items():
        if any(not c.isprintable() for c in value):
            raise UsageError(f"build argument {name} has a control character")
    check_arguments(definition, arguments)
    files = _files(definition, arguments)
    draft = BuildDraft(
        request=request,
        definition=definition,
        base=_base(request, definition, arguments),
        files=files,
        apptainer_version=programs.apptainer_version(request.apptainer, run=run),
        ca_bundle=find_ca_bundle(request.ca_bundle, request.environ),
    )
    recipe = draft.recipe_sha256
    existing = request.store.newest(recipe_sha256=recipe) if recipe else None
    return replace(draft, existing=existing)


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
        if _files(draft.definition, dict(draft.request.build_arguments)) != draft.files:
            raise ValskaError(
                "a file that the definition copies in was altered while the image was built",
                "Build it again.",
            )
        record = store.add(sif, _record(draft, sif, run), sources)
    return BuildResult(record, store.sif(record.sha256), built=True, log=log_file)


def _base(request: BuildRequest, definition: Definition, arguments: dict[str, str]) -> Base:
    if request.base is None:
        base = own_base(definition, arguments)
    else:
        base = replacement_base(request.base, own_reference(definition, arguments))
    if base.sha256 is None and base.kind != "sandbox":
        log.warning(
            "the base %s is not named by its digest: another build can differ", base.reference
        )
    return base


def _files(
    definition: Definition, arguments: dict[str, str]
) -> tuple[Mapping[str, str | None], ...]:
    found: list[Mapping[str, str | None]] = []
    for source, destination in definition.pairs(arguments):
        path = definition.path.parent / source
        if not path.exists() and not any(c in source for c in "*?["):
            raise UsageError(
                f"{definition.path.name} copies {source}, which is not there",
                "It is looked for beside the definition.",
            )
        digest = sha256_file(path) if path.is_file() else None
        found.append({"source": source, "destination": destination, "sha256": digest})
    return tuple(found)


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


def _csv(text: str) -> str:
    """Quote a value for an option that is cut at commas."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",') else text
