"""Locking a definition: what would be written, and writing it."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import valska
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.images.definition import Definition, read_definition
from valska.external_tools.core.images.locking.base import BasePin, base_python, pin_base
from valska.external_tools.core.images.locking.document import SUFFIX, Lock, read_lock
from valska.external_tools.core.images.locking.pins import (
    normal_name,
    pinned_versions,
    without_hashes,
)
from valska.external_tools.core.images.locking.requirements import (
    Resolution,
    check_platform,
    resolve_requirements,
    resolver,
)
from valska.external_tools.core.images.locking.rewriting import rewrite
from valska.external_tools.core.images.registry.client import this_platform
from valska.external_tools.core.images.registry.options import Http, http_options
from valska.external_tools.core.images.sections import VARIABLE
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.tool import read_file
from valska.external_tools.core.utils import sha256_bytes, write_atomic

DAY_S = 86400

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(?:/[a-z0-9]+)?")
_PYTHON = re.compile(r"3\.\d{1,2}(?:\.\d{1,3})?")
_INCLUDES = re.compile(
    r"^\s*(?:-[rce]\b|--requirement|--constraint|--editable|\S+\s*@\s*file:|\.)", re.M
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRequest:
    """What to lock, and how.

    Parameters
    ----------
    definition
        The definition file.
    upgrade
        Take what the base's tag names now, and the newest of every package.
    upgrade_base
        Take what the base's tag names now.
    upgrade_packages
        Take the newest of these packages.
    python, platform
        For which Python and where; those of the lock, else of the base and this machine.
    http
        How to ask registries.
    environ
        The caller's environment.
    clock
        Seconds since the epoch.
    """

    definition: Path
    upgrade: bool = False
    upgrade_base: bool = False
    upgrade_packages: tuple[str, ...] = ()
    python: str | None = None
    platform: str | None = None
    http: Http = field(default_factory=http_options)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Change:
    """Something that a lock or a definition would say otherwise."""

    file: str
    what: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        """Return one line about it."""
        if self.old is None:
            return f"{self.file}: {self.what} {self.new}"
        return f"{self.file}: {self.what} {self.old} -> {self.new or 'removed'}"


@dataclass(frozen=True, slots=True)
class LockDraft:
    """What locking a definition would write.

    Parameters
    ----------
    definition
        The definition as it is.
    path
        The lock's file.
    lock
        What it is to say.
    changes
        What is not so yet; none if the lock is current.
    texts
        Files to write, with their content.
    """

    definition: Definition
    path: Path
    lock: Lock
    changes: tuple[Change, ...]
    texts: Mapping[Path, str]


def lock_path(definition: Definition) -> Path:
    """Return the place of a definition's lock: the default of its build argument ``lock``, if any.

    Raises
    ------
    UsageError
        If that is not the name of a lock beside the definition.
    """
    name = definition.arguments.get("lock") or f"{definition.path.stem}{SUFFIX}"
    if Path(name).name != name or not name.endswith(SUFFIX) or name == SUFFIX:
        raise UsageError(
            f"{definition.path.name} names a lock that is not beside it: {name!r}",
            f"Let %arguments say lock={definition.path.stem}{SUFFIX}.",
        )
    return definition.path.with_name(name)


def draft_lock(request: LockRequest, *, run: Run = run) -> LockDraft:
    """Resolve what a definition leaves open; write nothing.

    Raises
    ------
    UsageError
        If the definition, its lock or its requirements cannot be used or met.
    PrerequisiteError
        If a registry or the package index does not answer.
    """
    _check_request(request)
    definition = read_definition(request.definition)
    path = lock_path(definition)
    old = read_lock(path) if path.exists() else Lock()
    _check_packages(request, old)
    platform = request.platform or old.platform or this_platform()
    pin = pin_base(
        definition,
        old.base,
        upgrade=request.upgrade or request.upgrade_base,
        platform=platform,
        http=request.http,
    )
    new = Lock(
        version=_version(),
        command=f"valska lock {definition.path.name}",
        base=pin.name if pin else None,
        base_digest=pin.digest if pin else None,
        platform=platform,
        python=request.python or old.python,
        source_date_epoch=_epoch(request, definition, old),
    )
    new = _with_pins(request, definition, path, old, new, pin, run)
    return _draft(definition, path, old, new, pin)


def write_lock(draft: LockDraft) -> None:
    """Write what a draft says: all of it, or nothing.

    Raises
    ------
    ValskaError
        If a file cannot be written; those before it are then as they were.
    """
    before: dict[Path, bytes | None] = {}
    try:
        for path, text in draft.texts.items():
            target = path.resolve()
            before[target] = target.read_bytes() if target.is_file() else None
            write_atomic(target, text.encode())
    except BaseException:
        for path, data in before.items():
            _restore(path, data)
        raise


def _restore(path: Path, data: bytes | None) -> None:
    with suppress(OSError, ValskaError):
        if data is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != data:
            write_atomic(path, data)


def _check_request(request: LockRequest) -> None:
    if request.python and not _PYTHON.fullmatch(request.python):
        raise UsageError(
            f"--python {request.python!r} is no version of Python", "Write --python 3.11."
        )
    if request.platform and not _PLATFORM.fullmatch(request.platform):
        raise UsageError(
            f"--platform {request.platform!r} is no platform", "Write --platform linux/amd64."
        )


def _check_packages(request: LockRequest, old: Lock) -> None:
    known = pinned_versions(old.pins)
    for name in request.upgrade_packages:
        if known and normal_name(name) not in known:
            raise UsageError(
                f"the lock has no package {name!r}",
                did_you_mean(normal_name(name), known) or f"It has: {', '.join(known)}.",
            )


def _version() -> str:
    """Return the version of valska without what tells two working copies apart."""
    match = re.match(r"\d+(?:\.\d+)*", valska.__version__)
    return match[0] if match else "0"


def _epoch(request: LockRequest, definition: Definition, old: Lock) -> int:
    if old.source_date_epoch is not None:
        return old.source_date_epoch
    for value in (
        definition.arguments.get("source_date_epoch", ""),
        request.environ.get("SOURCE_DATE_EPOCH", ""),
    ):
        if re.fullmatch(r"[0-9]{1,11}", value):
            return int(value)
    return int(request.clock()) // DAY_S * DAY_S


def _with_pins(
    request: LockRequest,
    definition: Definition,
    path: Path,
    old: Lock,
    new: Lock,
    pin: BasePin | None,
    run: Run,
) -> Lock:
    """Return the lock with pins for its requirements, if it has any."""
    source = path.with_suffix(".in")
    if not source.exists():
        if old.pins.strip() or _copies(definition, path.name):
            raise UsageError(
                f"{source.name}, which {path.name} is made from, is not there",
                f"Write the names of the packages into {source}, one in a line.",
            )
        return new
    content = read_file(source)
    platform = str(new.platform)
    check_platform(platform)
    python = _python(request, old, pin, platform)
    new = replace(new, python=python, requirements=(source.name, sha256_bytes(content)))
    if _is_current(request, old, new, content.decode(errors="replace")):
        return replace(new, resolver=old.resolver, pins_sha256=old.pins_sha256, pins=old.pins)
    pins = resolve_requirements(
        Resolution(
            requirements=source,
            pins=without_hashes(old.pins) if _is_edited(old) else old.pins,
            python=python,
            platform=platform,
            upgrade=request.upgrade,
            upgrade_packages=request.upgrade_packages,
            ca_bundle=request.http.ca_bundle,
            environ=request.environ,
        ),
        run=run,
    )
    kept = old.resolver if pins == old.pins else None
    digest = sha256_bytes(pins.encode())
    return replace(new, resolver=kept or resolver(), pins_sha256=digest, pins=pins)


def _copies(definition: Definition, name: str) -> bool:
    """Return whether a definition copies a file of a name into the image."""
    known = definition.arguments
    filled = (VARIABLE.sub(lambda m: known.get(m[1], m[0]), line) for line in definition.files)
    return any(name in line.split() for line in filled)


def _python(request: LockRequest, old: Lock, pin: BasePin | None, platform: str) -> str:
    """Return the version to resolve for: as asked, else that of a new base, else as it was."""
    if request.python:
        return request.python
    if old.python and (pin is None or pin.digest == old.base_digest):
        return old.python
    found = base_python(pin, platform, request.http) if pin else None
    if found or old.python:
        return str(found or old.python)
    raise UsageError(
        "nothing says which Python the image has: the base does not set PYTHON_VERSION",
        "Say it: --python 3.11 (the lock keeps it).",
    )


def _is_current(request: LockRequest, old: Lock, new: Lock, content: str) -> bool:
    """Return whether the pins are those of these requirements, and as they were made."""
    return (
        not (request.upgrade or request.upgrade_packages or _INCLUDES.search(content))
        and (old.requirements, old.python, old.platform)
        == (new.requirements, new.python, new.platform)
        and old.pins_sha256 is not None
        and not _is_edited(old)
    )


def _is_edited(old: Lock) -> bool:
    """Return whether the pins are certainly not as they were made."""
    return old.pins_sha256 not in (None, sha256_bytes(old.pins.encode()))


def _draft(
    definition: Definition, path: Path, old: Lock, new: Lock, pin: BasePin | None
) -> LockDraft:
    changes = list(_lock_changes(path, old, new))
    texts = {path: new.to_text()} if changes or not path.exists() else {}
    if pin is not None:
        text = rewrite(definition.text, pin.source, pin.labels)
        if text != definition.text:
            texts[definition.path] = text
            changes.extend(_line_changes(definition, text))
    return LockDraft(definition, path, new if texts.get(path) else old, tuple(changes), texts)


def _lock_changes(path: Path, old: Lock, new: Lock) -> Iterator[Change]:
    before, after = old.header, new.header
    for key in {**after, **before}:
        if key not in ("resolver", "pins") and before.get(key) != after.get(key):
            yield Change(path.name, key, before.get(key), after.get(key))
    was, is_now = pinned_versions(old.pins), pinned_versions(new.pins)
    for name in sorted({**was, **is_now}):
        if was.get(name) != is_now.get(name):
            yield Change(path.name, name, was.get(name), is_now.get(name))
    if was == is_now and _bare(old.pins) != _bare(new.pins):
        yield Change(path.name, "hashes or comments", "as they are", "as resolved")
    elif before and old.pins_sha256 != new.pins_sha256 and was == is_now:
        yield Change(path.name, "pins", before.get("pins"), after.get("pins"))


def _bare(pins: str) -> str:
    """Return pins without the comments that another program put before them."""
    return re.sub(r"\A(?:#.*\n)+", "", pins)


def _line_changes(definition: Definition, text: str) -> Iterator[Change]:
    """Return what differs between the lines of two definitions, by the word that begins them."""
    before, after = definition.text.split("\n"), text.split("\n")
    said = dict(_key_and_value(line) for line in before)
    for line in after:
        key, value = _key_and_value(line)
        if value and line not in before:
            yield Change(definition.path.name, key, said.get(key), value)


def _key_and_value(line: str) -> tuple[str, str]:
    key, _, value = line.strip().partition(" ")
    return key.rstrip(":"), value.strip()
