"""What an archive holds: each file's size and digest, and the small files that speak of others."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from valska.external_tools.core.archive.document import parse_json
from valska.external_tools.core.archive.places import BUNDLE, UNIT
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.schema import validate


@dataclass(slots=True)
class Entry:
    """An entry: what it is, bytes, SHA-256 (None if it was not read), target of a link."""

    kind: Kind
    size: int = 0
    sha256: str | None = None
    link: str = ""


@dataclass(frozen=True, slots=True)
class Amount:
    """How many files are in an archive, all of them, and how many bytes they have unpacked."""

    files: int
    bytes: int


@dataclass(slots=True)
class Contents:
    """Everything in an archive, by its path below the one directory in it.

    Parameters
    ----------
    entries
        Path to entry.
    documents
        Path to content, of the files that `is_document` names.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)

    def file(self, name: str) -> Entry | None:
        """Return a file, or what a link leads to; None if there is none."""
        entry = self.entries.get(name)
        if entry is not None and entry.kind is Kind.LINK:
            entry = self.entries.get(target_of(name, entry.link))
        return entry if entry is not None and entry.kind is Kind.FILE else None

    def files(self) -> Iterator[tuple[str, Entry]]:
        """Yield every file, and for a link to a file that file."""
        for name, entry in self.entries.items():
            if entry.kind is not Kind.DIRECTORY and (found := self.file(name)) is not None:
                yield name, found

    def amount(self) -> Amount:
        """Return how much there is."""
        sizes = [entry.size for _, entry in self.files()]
        return Amount(len(sizes), sum(sizes))

    def json(self, name: str, schema: str | None = None) -> dict[str, Any]:
        """Read a document.

        Raises
        ------
        VerificationError
            If it is no JSON object, or does not follow its schema.
        """
        data = parse_json(self.documents[name])
        if schema is not None:
            try:
                validate(data, schema, "it")
            except ValskaError as error:
                raise VerificationError(error.message) from error
        return data

    def by_folder(self, folder: str) -> dict[str, list[str]]:
        """Return the files in a folder of the bundle, or of each unit of a sweep.

        Parameters
        ----------
        folder
            Name of the folder, such as ``records``.

        Returns
        -------
        dict
            The folder's parent, a bundle or a unit, to its files, sorted.
        """
        found: dict[str, list[str]] = {}
        # A unit can have the folder's name as well.
        inside = re.compile(f"({UNIT})/{re.escape(folder)}/.+", re.DOTALL)
        for name in self.entries:
            match = inside.fullmatch(name)
            if match and self.file(name) is not None:
                found.setdefault(match[1], []).append(name)
        return {unit: sorted(names) for unit, names in found.items()}


def target_of(name: str, link: str) -> str:
    """Return the path that a link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def in_bundle(path: str) -> str:
    """Return the path in the archive of a path in the bundle."""
    return f"{BUNDLE}/{path}"


def units_of(data: Mapping[str, Any]) -> list[str]:
    """Return the places of all units that a sweep's manifest names."""
    points = [f"points/{entry['label']}" for entry in data["points"]]
    return points + [f"shared/{entry['label']}" for entry in data["shared"]]
