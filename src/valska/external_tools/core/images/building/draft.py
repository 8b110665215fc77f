"""A build before anything is written: what is asked for, read and checked."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rfc8785

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.images import apptainer as programs
from valska.external_tools.core.images.building.base import (
    Base,
    own_base,
    own_reference,
    replacement_base,
)
from valska.external_tools.core.images.building.environment import find_ca_bundle, needs_fakeroot
from valska.external_tools.core.images.definition import (
    Definition,
    check_arguments,
    read_definition,
)
from valska.external_tools.core.images.locking.document import SUFFIX, read_lock
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.site import mount_spec
from valska.external_tools.core.utils import sha256_bytes, sha256_file

EPOCH = "source_date_epoch"
"""Build argument that names the time of an image's files."""

EARLIEST_EPOCH = 315532800
LATEST_EPOCH = 2**32 - 1
FORM = 1
"""Of what is packed; another number when the same parts give other bytes."""

log = logging.getLogger(__name__)

WAYS = frozenset(("--no-https", "--nohttps", "--disable-cache", "--no-cleanup", "--docker-login"))
"""Options of ``apptainer build`` that change how an image comes about, and not what is in it."""


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
    offline
        Take what comes from elsewhere out of the store, and ask no network.
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
    offline: bool = False
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
    epoch
        Seconds since 1970; no file of the image is newer.
    existing
        An image in the store that is made of the same.
    """

    request: BuildRequest
    definition: Definition
    base: Base
    files: tuple[Mapping[str, str | None], ...]
    apptainer_version: str
    ca_bundle: Path | None = None
    epoch: int = EARLIEST_EPOCH
    existing: ImageRecord | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """Build arguments: those given over the definition's defaults."""
        return {**self.definition.arguments, **self.request.build_arguments}

    @property
    def lock_path(self) -> Path | None:
        """The hashed requirements among the files, or the lock beside the definition."""
        directory = self.definition.path.parent
        for entry in self.files:
            source = entry["source"] or ""
            if source.endswith(SUFFIX) and entry["sha256"]:
                return directory / source
        beside = self.definition.path.with_suffix(SUFFIX)
        return beside if beside.is_file() else None

    @property
    def lock(self) -> Mapping[str, str] | None:
        """Name and digest of the lock."""
        path = self.lock_path
        return {"name": path.name, "sha256": sha256_file(path)} if path else None

    @property
    def recipe_sha256(self) -> str | None:
        """Digest of all that goes into the build, or None if a part has no digest."""
        parts = [self.base.sha256, *(entry["sha256"] for entry in self.files)]
        if None in parts:
            return None
        recipe: dict[str, Any] = {
            "form": FORM,
            "definition": self.definition.sha256,
            "files": [dict(entry) for entry in self.files],
            "base": self.base.sha256,
            "arguments": self.arguments,
            "epoch": self.epoch,
        }
        if options := [word for word in self.request.options if word not in WAYS]:
            recipe["options"] = options
        return sha256_bytes(rfc8785.dumps(recipe))

    def command(
        self, root: Path, definition: Path, temporary: Path | None = None
    ) -> tuple[str, ...]:
        """Return the command that builds into a directory.

        Parameters
        ----------
        root
            The directory to make.
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
            "--sandbox",
            *(["--fakeroot"] if needs_fakeroot() else []),
            *(word for mount in mounts for word in ("--mount", mount)),
            *(
                word
                for name, value in request.build_arguments.items()
                for word in ("--build-arg", _csv(f"{name}={value}"))
            ),
            *request.options,
            os.fspath(root),
            os.fspath(definition),
        )


def draft_build(request: BuildRequest, *, run: Run = run) -> BuildDraft:
    """Read and check all that goes into a build; write nothing.

    Raises
    ------
    UsageError
        If the definition, a build argument or the base cannot be used.
    ConfigError
        If a bind has no form that can be used.
    PrerequisiteError
        If Apptainer, the base, the CA bundle or a path to bind is missing.
    """
    definition = read_definition(request.definition)
    arguments = dict(request.build_arguments)
    for name, value in arguments.items():
        if any(not c.isprintable() for c in value):
            raise UsageError(f"build argument {name} has a control character")
    check_arguments(definition, arguments)
    _check_binds(request.binds)
    files = copied_files(definition, arguments)
    draft = BuildDraft(
        request=request,
        definition=definition,
        base=_base(request, definition, arguments),
        files=files,
        apptainer_version=programs.apptainer_version(request.apptainer, run=run),
        ca_bundle=find_ca_bundle(request.ca_bundle, request.environ),
    )
    draft = replace(draft, epoch=_epoch(draft))
    recipe = draft.recipe_sha256
    existing = request.store.newest(recipe_sha256=recipe) if recipe else None
    return replace(draft, existing=existing)


def _check_binds(binds: Iterable[str]) -> None:
    for bind in binds:
        mount_spec(bind)
        source = bind.partition(":")[0]
        if not os.path.exists(source):  # noqa: PTH110 - of a name that is too long, pathlib raises
            raise PrerequisiteError(
                f"there is no {source} to bind",
                "Check --bind, or build_binds in the configuration.",
            )


def _epoch(draft: BuildDraft) -> int:
    """Return the time that no file is to be newer than: given, locked, declared, or the caller's.

    A fixed day, before which no ZIP file can be dated, stands in where nothing names one.
    """
    lock = read_lock(draft.lock_path) if draft.lock_path else None
    values = (
        draft.request.build_arguments.get(EPOCH),
        lock.source_date_epoch if lock else None,
        draft.definition.arguments.get(EPOCH),
        draft.request.environ.get("SOURCE_DATE_EPOCH"),
    )
    named = next((value for value in values if value not in (None, "")), EARLIEST_EPOCH)
    try:
        epoch = int(named or 0)
    except ValueError:
        epoch = -1
    if not 0 <= epoch <= LATEST_EPOCH:
        raise UsageError(
            f"{named!r} is no time for the files of an image",
            f"Give {EPOCH} in seconds since 1970: date +%s.",
        )
    if epoch > time.time():
        raise UsageError(
            f"{epoch} is in the future: files would have the times at which they are made",
            f"Give another {EPOCH}, or set this machine's clock.",
        )
    return epoch


def copied_files(
    definition: Definition, arguments: dict[str, str]
) -> tuple[Mapping[str, str | None], ...]:
    """Return what ``%files`` copies from the host, each with its digest.

    Raises
    ------
    UsageError
        If a file is not there.
    """
    found: list[Mapping[str, str | None]] = []
    for source, destination in definition.pairs(arguments):
        path = definition.path.parent / source
        if not path.exists() and not any(c in source for c in "*?["):
            make = f"Make it: valska lock {shlex.quote(str(definition.path))}"
            raise UsageError(
                f"{definition.path.name} copies {source}, which is not there",
                make if source.endswith(".lock") else "It is looked for beside the definition.",
            )
        digest = sha256_file(path) if path.is_file() else None
        found.append({"source": source, "destination": destination, "sha256": digest})
    return tuple(found)


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


def _csv(text: str) -> str:
    """Quote a value for an option that is cut at commas."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",') else text
