"""What a kit for something has to hold, how large that is, and where it is now."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.images.registry.client import this_platform
from valska.external_tools.core.images.registry.options import Http, http_options
from valska.external_tools.core.kit.document import Kind
from valska.external_tools.core.kit.parts import (
    STORE,
    KitPlan,
    KitRequest,
    Part,
    Purpose,
    RemoteBase,
    small_part,
)
from valska.external_tools.core.kit.recipe import PULLED, Recipe, read_recipe
from valska.external_tools.core.kit.runparts import parts_to_run
from valska.external_tools.core.kit.supplies import SHORT, Supplies
from valska.external_tools.core.kit.targets import Target
from valska.external_tools.core.kit.wheels import (
    PackageFile,
    find_files,
    python_and_platform,
    requirements,
    uncovered,
)
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.utils import sha256_bytes

log = logging.getLogger(__name__)


def plan_kit(request: KitRequest, *, run: Run = run) -> KitPlan:
    """Find out what a kit has to hold; nothing is fetched but the list of an index.

    Raises
    ------
    PrerequisiteError
        If something that it has to hold is not here and cannot be fetched: everything at once.
    UsageError
        If the definition or its lock cannot be used.
    """
    parts: list[Part] = []
    notes: list[str] = []
    if request.purpose is not Purpose.BUILD:
        parts += parts_to_run(request, notes)
    if request.purpose is not Purpose.RUN:
        parts += _parts_to_build_or_note(request, notes, run)
    unique = {part.path: part for part in parts}
    ordered = tuple(unique[path] for path in sorted(unique))
    if not ordered:
        raise UsageError(
            f"a run of {request.target.name} needs nothing that is not in it: there is nothing "
            "to fetch",
            "Copy it.",
        )
    return KitPlan(
        target=request.target,
        purpose=request.purpose,
        platform=request.platform or _platform(request.target),
        parts=ordered,
        notes=tuple(notes),
    )


def _platform(target: Target) -> str:
    """Return the platform that a definition was locked for; without one, this machine's."""
    if target.definition is not None:
        with suppress(ValskaError):
            locked = read_recipe(target.definition, target.arguments).lock().platform
            return locked or this_platform()
    return this_platform()


def _parts_to_build_or_note(request: KitRequest, notes: list[str], run: Run) -> list[Part]:
    """Return what a build needs; where that cannot be and need not be, say why."""
    optional = request.target.kind != "definition" and request.purpose is Purpose.ALL
    if optional and request.target.definition is None and request.target.image is None:
        return []
    try:
        return _parts_to_build(request, notes, run)
    except ValskaError as error:
        if not optional or _is_network(error):
            raise
        notes.append(f"the image cannot be built from this kit: {error.message}")
        return []


def _is_network(error: ValskaError) -> bool:
    return isinstance(error, PrerequisiteError) and not isinstance(error, NotPinnedError)


class NotPinnedError(PrerequisiteError):
    """A definition cannot be built from a kit: not all of it is pinned, or it cannot be fetched."""


def _parts_to_build(request: KitRequest, notes: list[str], run: Run) -> list[Part]:
    if request.target.definition is None:
        raise NotPinnedError(f"{request.target.name} has no definition of its image")
    try:
        recipe = read_recipe(request.target.definition, request.target.arguments)
    except PrerequisiteError as error:
        raise NotPinnedError(error.message, error.hint) from error
    definitions = [*_definition_parts(recipe)]
    base = [*_base_part(recipe, request)]
    return [*base, *_wheel_parts(recipe, request, run), *definitions]


def _definition_parts(recipe: Recipe) -> Iterator[Part]:
    """Yield the definition and what it copies in, in a place named by the content of all."""
    files = dict(recipe.files())
    data = {name: path.read_bytes() for name, path in files.items()}
    sums = "".join(f"{sha256_bytes(data[name])}  {name}\n" for name in sorted(data))
    place = f"definitions/{sha256_bytes(sums.encode())[:SHORT]}"
    for name, path in files.items():
        yield small_part(Kind.DEFINITION, name, f"{place}/{name}", data[name], os.fspath(path))


def _base_part(recipe: Recipe, request: KitRequest) -> Iterator[Part]:
    base = recipe.base
    if not recipe.needs_base:
        raise NotPinnedError(
            f"its base {base.reference} is a file of this machine",
            "Copy it yourself, and build with --base.",
        )
    if base.kind != PULLED or base.sha256 is None:
        why = (
            "is of a kind that valska does not fetch"
            if base.kind != PULLED
            else ("is not named by its digest")
        )
        raise NotPinnedError(f"its base {base.reference} {why}", "Pin it with `valska lock`.")
    platform = request.platform or recipe.lock().platform or this_platform()
    here = Supplies(request.store.root).base(base.sha256, platform)
    remote = RemoteBase(reference=base.reference, digest=base.sha256, platform=platform)
    yield Part(
        kind=Kind.BASE,
        name=base.reference,
        path=f"bases/sha256/{base.sha256}.oci.tar",
        origin=STORE if here else base.reference.partition("://")[2].partition("/")[0],
        source=here or remote,
        size=here.stat().st_size if here else _size(remote, request.http),
    )


def _size(base: RemoteBase, http: Http | None) -> int | None:
    """Return the bytes of what a registry has for a base, or None if it does not say so now."""
    from valska.external_tools.core.images.registry.archive import parts_of
    from valska.external_tools.core.images.registry.client import manifest

    once = replace(http or http_options(), attempts=1)
    try:
        found = manifest(base.reference, platform=base.platform, http=once)
        return sum(int(part["size"]) for part in parts_of(found))
    except ValskaError as error:
        log.info("the size of %s is not known: %s", base.reference, error.message)
        return None


def _wheel_parts(recipe: Recipe, request: KitRequest, run: Run) -> Iterator[Part]:
    lock, path = recipe.lock(), recipe.lock_path
    if path is None or not requirements(lock.pins):
        return
    python, platform = python_and_platform(lock, path.name, request.platform)
    supplies = Supplies(request.store.root)
    digests = [d for one in requirements(lock.pins) for d in one.hashes]
    here = {place.parent.name: place for place in supplies.wheels(digests)}
    try:
        with tempfile.TemporaryDirectory(prefix="valska-fetch-") as scratch:
            files = find_files(
                lock.pins, python, platform, Path(scratch), environ=request.environ, run=run
            )
    except PrerequisiteError:
        names = {digest: place.name for digest, place in here.items()}
        if uncovered(requirements(lock.pins), names, python, platform):
            raise
        log.info("no index answers: the packages are those that the store has")
        files = tuple(PackageFile(name, digest, "") for digest, name in sorted(names.items()))
    for file in files:
        yield _wheel_part(file, here.get(file.sha256))


def _wheel_part(file: PackageFile, here: Path | None) -> Part:
    return Part(
        kind=Kind.WHEEL,
        name=file.name,
        path=f"wheels/sha256/{file.sha256}",
        origin=STORE if here else urlsplit(file.url).hostname or "this machine",
        source=here or file,
        sha256=file.sha256,
        size=here.stat().st_size if here else file.size,
    )
