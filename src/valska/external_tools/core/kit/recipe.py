"""What a build takes from elsewhere: a base, and the packages of a lock; and what it copies in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Protocol

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.building.base import Base, own_base
from valska.external_tools.core.images.definition import Definition, read_definition
from valska.external_tools.core.images.locking.document import SUFFIX, Lock, read_lock

PULLED = "docker"
"""The kind of base that can be fetched: from a registry."""

_HERE = frozenset(
    (
        *("tar", "sif", "sandbox", "localimage", "scratch"),
        *("oci", "oci-archive", "docker-archive", "docker-daemon"),
    )
)
_PLAIN = re.compile(r"[A-Za-z0-9_+=-][A-Za-z0-9._+=-]*")


class Draft(Protocol):
    """As much of a build's draft as is asked for here."""

    @property
    def definition(self) -> Definition: ...  # noqa: D102

    @property
    def base(self) -> Base: ...  # noqa: D102

    @property
    def files(self) -> tuple[Mapping[str, str | None], ...]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Recipe:
    """A definition with what it takes from elsewhere.

    Parameters
    ----------
    definition
        The definition.
    base
        What it is built on.
    sources
        What ``%files`` copies from the host, as the definition names it.
    """

    definition: Definition
    base: Base
    sources: tuple[str, ...] = field(default=())

    @property
    def needs_base(self) -> bool:
        """Whether the base comes from elsewhere."""
        return self.base.kind not in _HERE

    @property
    def lock_path(self) -> Path | None:
        """The lock among the files that are copied in."""
        places = (self.definition.path.parent / name for name in self.sources)
        return next((path for path in places if path.name.endswith(SUFFIX)), None)

    def lock(self) -> Lock:
        """Read the lock; an empty one if there is none.

        Raises
        ------
        UsageError
            If it cannot be read.
        """
        return read_lock(self.lock_path) if self.lock_path else Lock()

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield name and place of the definition and of every file that it copies in.

        Raises
        ------
        UsageError
            If one is no file beside the definition.
        """
        path = self.definition.path
        for name in dict.fromkeys((path.name, *self.sources)):
            place = path.parent / name
            if not _PLAIN.fullmatch(name) or PurePath(name).name != name or not place.is_file():
                raise UsageError(
                    f"{path.name} copies {name}, which is no file beside it: a kit cannot hold it",
                    "Fetch the image itself (--for run), and take the rest yourself.",
                )
            yield name, place


def read_recipe(path: Path, arguments: Mapping[str, str] | None = None) -> Recipe:
    """Read a definition and what it takes from elsewhere.

    Raises
    ------
    UsageError
        If it cannot be used.
    PrerequisiteError
        If its base is a file and is not there.
    """
    definition = read_definition(path)
    given = dict(arguments or {})
    sources = tuple(source for source, _ in definition.pairs(given))
    return Recipe(definition, own_base(definition, given), sources)


def recipe_of(draft: Draft) -> Recipe:
    """Return what a build that was drafted takes from elsewhere."""
    return Recipe(draft.definition, draft.base, tuple(_sources(draft.files)))


def _sources(files: Iterable[Mapping[str, str | None]]) -> Iterator[str]:
    for entry in files:
        if entry["source"]:
            yield entry["source"]
