"""Writing an archive: one file, whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from valska.external_tools.core.archive import bag, places
from valska.external_tools.core.archive.contents import Amount, Contents, Entry
from valska.external_tools.core.archive.crate import crate_text
from valska.external_tools.core.archive.document import ArchiveDocument, ArchiveKind
from valska.external_tools.core.archive.entries import folded
from valska.external_tools.core.archive.errors import ArchiveError
from valska.external_tools.core.archive.judging import judge_contents
from valska.external_tools.core.archive.members import Member, NotPackableError, directory, made
from valska.external_tools.core.archive.packing import Packer
from valska.external_tools.core.archive.people import Description, citation_text, named
from valska.external_tools.core.archive.readme import readme_text
from valska.external_tools.core.archive.secrets import require_no_secrets
from valska.external_tools.core.archive.selection import Selection
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.partial import whole_file
from valska.external_tools.core.run_directory import TakenError, refuse_inside

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Written:
    """An archive that was written.

    Parameters
    ----------
    path
        The file.
    size
        Its bytes.
    amount
        What is in it.
    document
        What it says of itself.
    """

    path: Path
    size: int
    amount: Amount
    document: ArchiveDocument


def write_archive(
    selection: Selection,
    path: Path,
    description: Description,
    *,
    allowed_secrets: Collection[str] = (),
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Pack a bundle or a sweep. What does not agree with its seal or its records is not packed.

    Parameters
    ----------
    selection
        What is packed.
    path
        The archive; there is nothing yet.
    description
        Title, authors, licence.
    allowed_secrets
        See `require_no_secrets`.
    threads
        See `Packer`.
    progress
        Told the bytes that were read, and all.

    Raises
    ------
    TakenError
        If there is something at `path`, or it lies in a bundle.
    SecretsError
        If something looks like a secret.
    ChangedError
        If a file changes while it is packed.
    VerificationError
        If something is not as it was made, or as the jobs recorded it.
    NotPackableError
        If a name would not be the same for all readers.
    ArchiveError
        If something cannot be read, or the archive cannot be written.
    """
    refuse_taken(path)
    description = titled(description, selection)
    payload = checked_payload(selection, description, allowed_secrets)
    members = with_tags(payload, selection, description)
    total = sum(member.size for member in members)
    try:
        with whole_file(path) as file:
            packer = Packer(
                file,
                epoch_of(selection.document.created_utc),
                top=selection.document.run_id,
                threads=threads,
                progress=lambda done: progress(min(done, total), total),
            )
            with packer:
                contents = _pack(packer, members, selection, description)
    except FileExistsError as error:
        refuse_taken(path)
        raise _unwritable(path, error) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    return Written(path, path.stat().st_size, contents.amount(), selection.document)


def _refuse_alike(members: Iterable[Member]) -> None:
    seen: dict[str, str] = {}
    for member in members:
        other = seen.setdefault(folded(member.name), member.name)
        if other != member.name:
            raise NotPackableError(
                f"{member.name} and {other} are one name on some file systems",
                "Rename one of them.",
            )


def refuse_taken(path: Path) -> None:
    """Refuse a place for an archive that is taken, or lies in a bundle.

    Raises
    ------
    TakenError
        Naming it.
    """
    if os.path.lexists(path):
        raise TakenError(f"{path} exists already", "Choose another name with -o, or remove it.")
    refuse_inside(path)


def titled(description: Description, selection: Selection) -> Description:
    """Return a description that has a title."""
    return replace(description, title=description.title or default_title(selection.document))


def epoch_of(created_utc: str) -> int:
    """Return the seconds since 1970 of a time stamp."""
    return int(datetime.fromisoformat(created_utc.replace("Z", "+00:00")).timestamp())


def default_title(document: ArchiveDocument) -> str:
    """Return the title of an archive that was given none."""
    what = "sweep" if document.kind is ArchiveKind.SWEEP else "run"
    return f"{document.tool} {what} {document.run_id}"


def _payload(selection: Selection, description: Description) -> list[Member]:
    """Return the payload but for the crate, sorted as it is packed."""
    document = selection.document
    citation = description.citation
    if citation is None and description.authors:
        citation = citation_text(description, document.created_utc, document.tool)
    beside = [made(places.CITATION, citation)] if citation is not None else []
    return [directory(places.DATA), *beside, *selection.members]


def checked_payload(
    selection: Selection, description: Description, allowed_secrets: Collection[str]
) -> list[Member]:
    """Return the payload but for the crate, if it may be packed."""
    members = _payload(selection, description)
    bag.check_names(member.name for member in members)
    _refuse_alike(members)
    require_no_secrets(members, allowed_secrets)
    return members


def with_tags(
    members: list[Member], selection: Selection, description: Description
) -> list[Member]:
    """Return the payload with the files that come before it."""
    citation = any(member.name == places.CITATION for member in members)
    text = readme_text(selection.document, selection.manifest, description.title, citation=citation)
    return [made(places.BAGIT, bag.DECLARATION), made(places.README, text), *members]


def _pack(
    packer: Packer, members: list[Member], selection: Selection, description: Description
) -> Contents:
    for member in members:
        packer.add(member)
    packer.settle()
    contents = _contents(members, packer)

    def append(name: str, data: bytes) -> None:
        packer.add(made(name, data))
        contents.entries[name] = Entry(Kind.FILE, len(data), packer.digests[name])

    describe(contents, selection, description, append)
    _require_sound(contents, selection)
    return contents


def describe(
    contents: Contents,
    selection: Selection,
    description: Description,
    append: Callable[[str, bytes], None],
) -> None:
    """Append the files that speak of all others."""
    document, manifest = selection.document, selection.manifest
    append(places.CRATE, crate_text(contents, document, manifest, description))
    append(places.DOCUMENT, document.to_bytes())
    append(places.BAG_INFO, _info(contents, document, description))
    digests = {name: str(entry.sha256) for name, entry in contents.files()}
    payload = {name: digest for name, digest in digests.items() if bag.is_payload(name)}
    append(places.MANIFEST, bag.manifest_text(payload))
    tags = {name: str(contents.entries[name].sha256) for name in places.TAGS}
    append(places.TAG_MANIFEST, bag.manifest_text(tags))


def _contents(members: Iterable[Member], packer: Packer) -> Contents:
    entries = {
        member.name: Entry(member.kind, member.size, packer.digests.get(member.name), member.link)
        for member in members
    }
    return Contents(entries, packer.documents)


def _info(contents: Contents, document: ArchiveDocument, description: Description) -> bytes:
    payload = [entry.size for name, entry in contents.files() if bag.is_payload(name)]
    fields = [
        ("Bag-Software-Agent", f"valska {document.valska_version}"),
        ("Bagging-Date", document.created_utc[:10]),
        ("External-Description", description.title),
        ("External-Identifier", document.bundle_id or document.seal),
        ("Payload-Oxum", bag.payload_oxum(payload)),
    ]
    if description.authors:
        fields.append(("Contact-Name", named(description.authors)))
    return bag.info_text(fields)


def _require_sound(contents: Contents, selection: Selection) -> None:
    found = judge_contents(contents).findings
    if found:
        shown = [replace(one, path=_own_path(one.path, selection)) for one in found[:_SHOWN]]
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise VerificationError(
            f"{selection.path} is not as it was made, or as its jobs recorded: "
            + "; ".join(map(str, shown))
            + more,
            f"`valska verify {selection.path}` says more; nothing was packed.",
        )


def _own_path(name: str, selection: Selection) -> str:
    """Return the place in the bundle of what has this name in the archive."""
    packed = {path: place for place, path in selection.document.references.items() if path}
    return packed.get(name, name.removeprefix(f"{places.BUNDLE}/"))


def _unwritable(path: Path, error: OSError) -> ArchiveError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return ArchiveError(
        f"cannot write {path}: {(error.strerror or str(error)).lower()}",
        "Free some space, or choose another place with -o; nothing was left behind."
        if full
        else "Check the directory and its permissions.",
    )
