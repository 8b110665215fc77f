"""How much an archive would hold, told before anything is packed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.core.archive.contents import Amount, Contents, Entry
from valska.external_tools.core.archive.errors import ArchiveError
from valska.external_tools.core.archive.members import Member
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.places import is_document
from valska.external_tools.core.archive.selection import Selection
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.archive.writing import (
    checked_payload,
    describe,
    titled,
    with_tags,
)
from valska.external_tools.core.errors import VerificationError

_SOME_DIGEST = "0" * 64


def amount_to_write(
    selection: Selection, description: Description, allowed_secrets: Collection[str] = ()
) -> Amount:
    """Return how much `write_archive` would pack, if everything is as it was made.

    Only what speaks of other files is read, and what is searched for secrets.

    Parameters
    ----------
    selection, description, allowed_secrets
        See `write_archive`.

    Raises
    ------
    SecretsError
        If something looks like a secret.
    UsageError
        If nothing does where it is allowed.
    NotPackableError
        If a name would not be the same for all readers.
    ArchiveError
        If something cannot be read.
    """
    whole = titled(description, selection)
    members = with_tags(checked_payload(selection, whole, allowed_secrets), selection, whole)
    entries = {one.name: Entry(one.kind, one.size, _SOME_DIGEST, one.link) for one in members}
    contents = Contents(entries, dict(_documents(members)))
    _take_recorded(contents)

    def append(name: str, data: bytes) -> None:
        contents.entries[name] = Entry(Kind.FILE, len(data), _SOME_DIGEST)

    describe(contents, selection, whole, append)
    return contents.amount()


def _documents(members: Iterable[Member]) -> Iterator[tuple[str, bytes]]:
    """Yield what speaks of other files."""
    for member in members:
        if member.kind is Kind.FILE and is_document(member.name):
            try:
                data = Path(member.source).read_bytes() if member.source else member.data
            except OSError as error:
                raise ArchiveError(
                    f"cannot read {member.source}: {error.strerror}", "Check its permissions."
                ) from error
            yield member.name, data or b""


def _take_recorded(contents: Contents) -> None:
    """Take each output for what its newest record has, which the crate tells from older ones."""
    for unit, names in contents.by_folder("records").items():
        for record in sorted(_records(contents, names), key=lambda one: str(one["started_utc"])):
            for output in record["outputs"]:
                entry = contents.file(f"{unit}/{output['path']}")
                if entry is not None and output["sha256"]:
                    entry.sha256 = output["sha256"]


def _records(contents: Contents, names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for name in names:
        try:
            yield contents.json(name, "stage-record-1")
        except (KeyError, VerificationError):
            continue
