"""What is pushed with an image and refers to it: its record, definition and lock, and its SBOM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.record import SCHEMA, ImageRecord
from valska.external_tools.core.images.registry.client import (
    INDEX,
    MANIFEST,
    Manifest,
    descriptor_of,
    fetch_document,
    fetch_manifest,
    objects,
    read_object,
    read_whole,
)
from valska.external_tools.core.images.registry.sifs import EMPTY, TITLE, descriptor, document
from valska.external_tools.core.images.store.layout import LISTING_SUFFIX, SBOM_SUFFIX
from valska.external_tools.core.schema import validate
from valska.external_tools.core.utils import sha256_bytes

if TYPE_CHECKING:
    from valska.external_tools.core.images.registry.transport import Connection

RECORD_TYPE = "application/vnd.valska.image.record.v1+json"
DEFINITION_TYPE = "application/vnd.valska.image.definition.v1"
LOCK_TYPE = "application/vnd.valska.image.lock.v1"
LISTING_TYPE = "application/vnd.valska.image.files.v1+gzip"
SBOM_TYPE = "application/vnd.cyclonedx+json"
MAX_ATTACHED_BYTES = 64 << 20
"""Of all the files of one manifest; a list of half a million files takes 25 MB."""

_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_TYPES = (RECORD_TYPE, DEFINITION_TYPE, LOCK_TYPE, LISTING_TYPE, SBOM_TYPE)
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]*")


@dataclass(frozen=True, slots=True)
class Part:
    """A file that is attached to an image.

    Parameters
    ----------
    name, media_type, data
        Of the file.
    """

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Attached:
    """What came with an image.

    Parameters
    ----------
    record
        Its record.
    files
        Name to content of definition, lock, list of files and SBOM.
    """

    record: ImageRecord
    files: Mapping[str, bytes]


def attach(
    connection: Connection, subject: Manifest, artifact_type: str, parts: tuple[Part, ...]
) -> str:
    """Push files that refer to an image, and return the digest of their manifest.

    A registry that does not list what refers to an image gets an index of that, under a tag made
    of the image's digest, as the OCI distribution specification has it.

    Raises
    ------
    PrerequisiteError, VerificationError
        See `upload_manifest`.
    """
    from valska.external_tools.core.images.registry.uploading import upload_blob, upload_manifest

    for data in (EMPTY, *(part.data for part in parts)):
        upload_blob(connection, sha256_bytes(data), len(data), lambda data=data: BytesIO(data))  # type: ignore[misc]
    manifest = document(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": descriptor(_EMPTY_TYPE, sha256_bytes(EMPTY), len(EMPTY)),
            "layers": [_layer(part) for part in parts],
            "subject": subject.descriptor,
        }
    )
    digest = f"sha256:{sha256_bytes(manifest)}"
    if not upload_manifest(connection, digest, MANIFEST, manifest):
        entry = descriptor(MANIFEST, digest.removeprefix("sha256:"), len(manifest))
        _list_by_tag(connection, subject, {**entry, "artifactType": artifact_type})
    return digest


def fetch_attached(connection: Connection, subject: Manifest) -> Attached | None:
    """Return the record that refers to an image, with its files; None where there is none.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer.
    VerificationError
        If what it serves does not have its digest.
    ValskaError
        If the record is not one.
    """
    found = list_referrers(connection, subject)
    records = [entry for entry in found if entry.get("artifactType") == RECORD_TYPE]
    if not records:
        return None
    parts = _parts(connection, records[-1])
    record = _record(parts, subject)
    boms = [entry for entry in found if entry.get("artifactType") == SBOM_TYPE]
    if boms:
        parts += _parts(connection, boms[-1])
    return Attached(record, _files(record, parts))


def list_referrers(connection: Connection, subject: Manifest) -> list[dict[str, Any]]:
    """Return the descriptors of all that refers to an image."""
    from valska.external_tools.core.images.registry.transport import retried

    def ask() -> bytes | None:
        where, headers = f"referrers/{subject.digest}", {"Accept": INDEX}
        with connection.request(
            "GET", where, expected=(200, 404), headers=headers, stream=True
        ) as response:
            return read_whole(connection, response) if response.status_code == 200 else None

    listed = retried(connection.http, ask)
    if listed is None:
        return _listed_by_tag(connection, subject)
    return _entries(read_object(listed, f"what refers to {subject.reference}"), subject)


def _list_by_tag(connection: Connection, subject: Manifest, entry: dict[str, Any]) -> None:
    from valska.external_tools.core.images.registry.uploading import upload_manifest

    known = _listed_by_tag(connection, subject)
    entries = [*(one for one in known if one["digest"] != entry["digest"]), entry]
    index = document({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    upload_manifest(connection, _tag(subject), INDEX, index)


def _listed_by_tag(connection: Connection, subject: Manifest) -> list[dict[str, Any]]:
    from dataclasses import replace

    from valska.external_tools.core.images.registry.failures import NotFoundError

    try:
        named = replace(subject.reference, tag=_tag(subject), digest=None)
        index = fetch_manifest(connection, named)
    except NotFoundError:
        return []
    return _entries(index.content, subject)


def _tag(subject: Manifest) -> str:
    return subject.digest.replace(":", "-")


def _entries(content: Mapping[str, Any], subject: Manifest) -> list[dict[str, Any]]:
    return [descriptor_of(entry, subject.reference) for entry in objects(content, "manifests")]


def _layer(part: Part) -> dict[str, Any]:
    described = descriptor(part.media_type, sha256_bytes(part.data), len(part.data))
    return {**described, "annotations": {TITLE: part.name}}


def _parts(connection: Connection, entry: Mapping[str, Any]) -> list[Part]:
    """Fetch the files of a manifest."""
    found = fetch_manifest(connection, connection.reference.at(entry["digest"]))
    known = [one for one in objects(found.content, "layers") if one.get("mediaType") in _TYPES]
    layers = [descriptor_of(layer, found.reference) for layer in known]
    if sum(layer["size"] for layer in layers) > MAX_ATTACHED_BYTES:
        raise ValskaError(f"what is attached to {connection.reference} is too large")
    parts = []
    for described in layers:
        notes = described.get("annotations")
        name = str(notes.get(TITLE, "")) if isinstance(notes, dict) else ""
        data = fetch_document(connection, described, MAX_ATTACHED_BYTES)
        parts.append(Part(name, str(described.get("mediaType")), data))
    return parts


def _record(parts: list[Part], subject: Manifest) -> ImageRecord:
    data = next((part.data for part in parts if part.media_type == RECORD_TYPE), b"")
    what = f"the record with {subject.reference}"
    content = read_object(data, what)
    validate(content, SCHEMA, what=what)
    known = ImageRecord.__dataclass_fields__
    fields = {key: value for key, value in content.items() if key in known}
    record = ImageRecord(**{**fields, "files": tuple(content.get("files", ()))})
    names = [record.name, *(entry["name"] for entry in (record.definition, record.lock) if entry)]
    if not all(_FILE_NAME.fullmatch(name) for name in names):
        raise ValskaError(f"{what} names files as no file of an image is named")
    return record


def _files(record: ImageRecord, parts: list[Part]) -> dict[str, bytes]:
    """Return name to content of the files that are what the record says."""
    wanted = {entry["sha256"]: entry["name"] for entry in (record.definition, record.lock) if entry}
    if record.sbom:
        wanted[str(record.sbom["sha256"])] = f"image{SBOM_SUFFIX}"
    digests = ((sha256_bytes(part.data), part.data) for part in parts)
    files = {wanted[digest]: data for digest, data in digests if digest in wanted}
    for part in parts:
        if part.media_type == LISTING_TYPE and _is_listing(part.data, record):
            files[f"image{LISTING_SUFFIX}"] = part.data
    return files


def _is_listing(data: bytes, record: ImageRecord) -> bool:
    from valska.external_tools.core.images.listing import Listing

    try:
        return Listing.from_bytes(data).sha256 == record.tree_sha256
    except ValskaError:
        return False
