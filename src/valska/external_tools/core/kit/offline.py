"""Building without a network: what is missing for it, and what is here handed over."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images.definition import shipped_definitions
from valska.external_tools.core.images.locking.document import Lock
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.recipe import PULLED, Draft, Recipe, recipe_of
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.kit.wheels import fits, requirements, uncovered


class Request(Protocol):
    """As much of what was asked of a build as is asked for here."""

    @property
    def store(self) -> ImageStore: ...  # noqa: D102


class RequestedDraft(Draft, Protocol):
    """A draft that knows the store."""

    @property
    def request(self) -> Request: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a build without a network needs and does not find.

    Parameters
    ----------
    kind
        ``base``, ``wheel`` or ``packages``.
    name
        The base's reference, ``name==version``, or the name of a lock.
    why
        What is wrong, if it is not just not here: then no kit can bring it.
    """

    kind: str
    name: str
    why: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" ({self.why})" if self.why else "")


def missing_parts(draft: RequestedDraft) -> tuple[Missing, ...]:
    """Return all that a build without a network needs and the store does not have.

    Nothing is asked for and nothing is written.

    Raises
    ------
    UsageError
        If the lock cannot be read.
    VerificationError
        If the base in the store is not the one that is pinned.
    """
    recipe, supplies = recipe_of(draft), Supplies(draft.request.store.root)
    return (*_missing_base(recipe, supplies), *_missing_wheels(recipe, supplies))


def require_parts(draft: RequestedDraft) -> None:
    """Refuse a build without a network for which something is missing.

    Raises
    ------
    PrerequisiteError
        Naming everything at once, with the command that fetches it.
    UsageError, VerificationError
        See `missing_parts`.
    """
    missing = missing_parts(draft)
    if not missing:
        return
    names = "; ".join(map(str, missing))
    why = next((one.why for one in missing if one.why), None)
    command = f"valska fetch {_named(draft.definition.path)} --for build -o kit.tar"
    raise PrerequisiteError(
        f"to build {draft.definition.path.name} without a network, the store "
        f"{draft.request.store.root} lacks: {names}",
        "No kit can bring that. Build it where there is a network."
        if why
        else f"Where there is one: {command}. Then, here: valska load kit.tar",
    )


def lay_out_wheels(draft: RequestedDraft, directory: Path) -> int:
    """Put the packages of the lock that the store has into a directory, for ``--find-links``.

    Parameters
    ----------
    draft
        The build.
    directory
        It is made.

    Returns
    -------
    int
        How many.

    Raises
    ------
    ValskaError
        If the directory cannot be written.
    UsageError
        If the lock cannot be read.
    """
    supplies = Supplies(draft.request.store.root)
    found = _wheels(recipe_of(draft).lock(), supplies)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in found:
            shutil.copyfile(path, directory / path.name)
    except OSError as error:
        raise ValskaError(f"cannot write {directory}: {error.strerror}") from error
    return len(found)


def _missing_base(recipe: Recipe, supplies: Supplies) -> Iterator[Missing]:
    base = recipe.base
    if not recipe.needs_base:
        return
    if base.kind != PULLED:
        yield Missing("base", base.reference, f"valska does not fetch bases of {base.kind}")
    elif base.sha256 is None:
        yield Missing("base", base.reference, "it is not named by its digest: `valska lock`")
    elif supplies.base(base.sha256, recipe.lock().platform) is None:
        yield Missing("base", base.reference)


def _missing_wheels(recipe: Recipe, supplies: Supplies) -> Iterator[Missing]:
    lock, path = recipe.lock(), recipe.lock_path
    wanted = requirements(lock.pins)
    if not wanted or path is None:
        return
    if lock.python is None or lock.platform is None:
        why = "it does not say for which Python and platform it is: `valska lock`"
        yield Missing("packages", path.name, why)
        return
    names = {file.parent.name: file.name for file in _wheels(lock, supplies)}
    for one in uncovered(wanted, names, lock.python, lock.platform):
        yield Missing("wheel", one.name, None if one.hashes else "it has no hash in the lock")


def _wheels(lock: Lock, supplies: Supplies) -> tuple[Path, ...]:
    digests = (digest for one in requirements(lock.pins) for digest in one.hashes)
    found = supplies.wheels(digests)
    if lock.python is None or lock.platform is None:
        return found
    python, platform = lock.python, lock.platform
    return tuple(path for path in found if fits(path.name, python, platform))


def _named(path: Path) -> str:
    """Return how to name a definition on another machine."""
    shipped = shipped_definitions().get(path.stem)
    if shipped is not None and shipped.read_bytes() == path.read_bytes():
        return path.stem
    return shlex.quote(path.name)
