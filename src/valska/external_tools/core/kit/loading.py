"""Taking a kit into a store: read with distrust, and stored once all of it has been checked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from valska.external_tools.core.errors import PrerequisiteError, ValskaError, VerificationError
from valska.external_tools.core.images.definition import SUFFIX, shipped_definitions
from valska.external_tools.core.images.record import ImageRecord, read_record
from valska.external_tools.core.images.registry.client import this_platform
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.document import (
    DOCUMENT,
    LARGEST,
    SUMS,
    Kind,
    KitDocument,
    KitFile,
    parse_document,
    sums_of,
)
from valska.external_tools.core.kit.fetching import Report, Silent
from valska.external_tools.core.kit.supplies import Supplies, check_base, put
from valska.external_tools.core.tarring import (
    Member,
    NotPlainError,
    contents,
    next_member,
    require_end,
)
from valska.external_tools.core.utils import sha256_bytes, sha256_file

_FULL = "Free some space, or name another store with $VALSKA_IMAGES."
_IMAGE_KINDS = frozenset((Kind.IMAGE, Kind.IMAGE_FILE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a kit brought.

    Parameters
    ----------
    document
        What the kit says of itself.
    sha256
        Digest of the document.
    new
        Files that the store did not have.
    definitions
        How to name the definitions from which images can be built now.
    """

    document: KitDocument
    sha256: str
    new: tuple[KitFile, ...]
    definitions: tuple[str, ...]


def load(
    kit: Path, store: ImageStore, *, dry_run: bool = False, report: Report | None = None
) -> Loaded:
    """Check a kit and take what is in it into a store.

    Nothing of it can be seen in the store before all of it has been checked. What the store has
    already stays as it is.

    Parameters
    ----------
    kit
        The file.
    store
        Where to.
    dry_run
        Check all, and store nothing.
    report
        Told how far it is.

    Raises
    ------
    PrerequisiteError
        If the kit or the store cannot be used.
    VerificationError
        If the kit is damaged, altered, or has something that no kit has.
    ValskaError
        If the store cannot be written.
    """
    try:
        with kit.open("rb") as file:
            head = _read_head(file, str(kit))
            with store.workspace() as work:
                return _load(file, kit, head, store, work, dry_run, report or Silent())
    except FileNotFoundError as error:
        if error.filename == os.fspath(kit):
            raise PrerequisiteError(f"no such kit: {kit}", "Check the path.") from error
        raise
    except OSError as error:
        place = error.filename or store.root
        raise ValskaError(f"{place}: {(error.strerror or '').lower()}", _FULL) from error


def _load(
    file: IO[bytes],
    kit: Path,
    head: tuple[KitDocument, str],
    store: ImageStore,
    work: Path,
    dry_run: bool,
    report: Report,
) -> Loaded:
    document, sha256 = head
    _require_room(store.root, document)
    report.start("checking", document.size)
    places = {
        entry.path: _take_out(file, entry, work / str(number), str(kit), report)
        for number, entry in enumerate(document.files)
    }
    _require_end(file, str(kit))
    records = _check_contents(document, places, str(kit))
    new = tuple(entry for entry in document.files if not _is_there(entry, document, store))
    if not dry_run:
        _store(new, places, records, store)
    return Loaded(
        document=document, sha256=sha256, new=new, definitions=tuple(built_from(document, store))
    )


def _read_head(file: IO[bytes], what: str) -> tuple[KitDocument, str]:
    """Read the document and the sums, the first two files."""
    try:
        first = next_member(file, what)
    except NotPlainError:
        first = None
    if first is None or first.name != DOCUMENT or first.size > LARGEST:
        raise VerificationError(
            f"{what} is not a kit: it does not begin with {DOCUMENT}",
            "Name the file that `valska fetch` wrote.",
        )
    data = b"".join(contents(file, first, what))
    document = parse_document(data, what)
    sums = sums_of(data, document.files)
    second = _expect(file, SUMS, len(sums), what)
    if b"".join(contents(file, second, what)) != sums:
        raise VerificationError(f"{SUMS} of {what} does not agree with {DOCUMENT}", _AGAIN)
    return document, sha256_bytes(data)


_AGAIN = "Copy the kit again; compare `sha256sum` on both sides."


def _expect(file: IO[bytes], name: str, size: int, what: str) -> Member:
    member = next_member(file, what)
    if member is None:
        raise VerificationError(f"{what} ends before {name}", _AGAIN)
    if (member.name, member.size) != (name, size):
        raise VerificationError(
            f"{what} has {member.name!r} of {member.size} bytes where {name} of {size} belongs",
            _AGAIN,
        )
    return member


def _take_out(file: IO[bytes], entry: KitFile, place: Path, what: str, report: Report) -> Path:
    """Write a file of the kit into the workspace, and check its digest."""
    member = _expect(file, entry.path, entry.size, what)
    digest = sha256()
    with place.open("xb") as out:
        for chunk in contents(file, member, what, report.advance):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != entry.sha256:
        raise VerificationError(f"{entry.path} in {what} is altered", _AGAIN)
    return place


def _require_end(file: IO[bytes], what: str) -> None:
    if next_member(file, what) is not None:
        raise VerificationError(f"{what} has more files than it says", "Do not use it.")
    require_end(file, what)


def _require_room(root: Path, document: KitDocument) -> None:
    free = shutil.disk_usage(root).free
    if free < document.size:
        raise ValskaError(
            f"the store {root} has room for {free / 1e6:.0f} MB, and the kit brings "
            f"{document.size / 1e6:.0f} MB",
            _FULL,
        )


def _check_contents(
    document: KitDocument, places: Mapping[str, Path], what: str
) -> dict[str, ImageRecord]:
    """Check bases and image records for what they are; return the records by digest."""
    records = {}
    for entry in document.files:
        place = places[entry.path]
        try:
            if entry.kind is Kind.BASE:
                check_base(place, _digest_of(entry), document.platform or this_platform())
            elif entry.kind is Kind.IMAGE:
                records[entry.sha256] = _record(entry, places, what)
        except ValskaError as error:
            text = error.message.replace(os.fspath(place), f"{entry.path} in {what}")
            raise VerificationError(text, "Do not use this kit.") from error
    return records


def _record(entry: KitFile, places: Mapping[str, Path], what: str) -> ImageRecord:
    path = places.get(f"images/sha256/{entry.sha256}.json")
    if path is None:
        raise VerificationError(f"{what} has no record of the image {entry.sha256[:12]}")
    record = read_record(path)
    if (record.sha256, record.size) != (entry.sha256, entry.size):
        raise VerificationError(f"{what} has the record of another image for {entry.sha256[:12]}")
    return record


def _digest_of(entry: KitFile) -> str:
    """Return the digest in a file's place: of a pin or of an image."""
    return entry.path.rpartition("/")[2].partition(".")[0]


def _is_there(entry: KitFile, document: KitDocument, store: ImageStore) -> bool:
    """Return whether the store has a file, whole; what is altered there is replaced."""
    supplies = Supplies(store.root)
    try:
        if entry.kind in _IMAGE_KINDS:
            return _has_image(_digest_of(entry), store)
        if entry.kind is Kind.BASE:
            return supplies.base(_digest_of(entry), document.platform) is not None
        return sha256_file(_place(entry, supplies)) == entry.sha256
    except (VerificationError, OSError):
        return False


def _has_image(sha256: str, store: ImageStore) -> bool:
    if not store.find(sha256):
        return False
    store.check(sha256)
    return True


def _place(entry: KitFile, supplies: Supplies) -> Path:
    if entry.kind is Kind.BASE:
        return supplies.base_place(_digest_of(entry))
    if entry.kind is Kind.WHEEL:
        return supplies.wheel_place(entry.sha256, entry.name)
    if entry.kind is Kind.INPUT:
        return supplies.input_place(entry.sha256)
    return supplies.root / entry.path


def _store(
    new: tuple[KitFile, ...],
    places: Mapping[str, Path],
    records: Mapping[str, ImageRecord],
    store: ImageStore,
) -> None:
    supplies = Supplies(store.root)
    for entry in new:
        if entry.kind not in _IMAGE_KINDS:
            put(places[entry.path], _place(entry, supplies))
    for entry in new:
        if entry.kind is Kind.IMAGE:
            files = {f"image{suffix}": data for suffix, data in _beside(entry, places)}
            store.add(places[entry.path], records[entry.sha256], files)


def _beside(image: KitFile, places: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    stem = image.path.removesuffix(".sif")
    for path, place in places.items():
        suffix = path.removeprefix(stem)
        if path.startswith(f"{stem}.") and suffix not in (".sif", ".json"):
            yield suffix, place.read_bytes()


def built_from(document: KitDocument, store: ImageStore) -> Iterator[str]:
    """Yield how to name each definition of a kit to ``valska build``.

    That is its path in the store, or its name where the same comes with valska.
    """
    supplies, shipped = Supplies(store.root), shipped_definitions()
    entries = [entry for entry in document.files if entry.kind is Kind.DEFINITION]
    for entry in entries:
        if not entry.name.endswith(SUFFIX):
            continue
        name = entry.name.removesuffix(SUFFIX)
        own, folder = shipped.get(name), entry.path.rpartition("/")[0]
        files = [e for e in entries if e.path.rpartition("/")[0] == folder]
        same = own is not None and all(_has(own.parent / e.name, e.sha256) for e in files)
        yield name if same else os.fspath(_place(entry, supplies))


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_bytes(path.read_bytes()) == digest
