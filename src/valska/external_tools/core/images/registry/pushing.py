"""SIFs into a registry, with what is known of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.images.registry.client import (
    MANIFEST,
    Manifest,
    connect,
)
from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.images.registry.progress import Progress
from valska.external_tools.core.images.registry.reference import DEFAULT_TAG, Reference, parse
from valska.external_tools.core.images.registry.referrers import (
    DEFINITION_TYPE,
    LISTING_TYPE,
    LOCK_TYPE,
    RECORD_TYPE,
    SBOM_TYPE,
    Part,
    attach,
)
from valska.external_tools.core.images.registry.sifs import EMPTY, sif_manifest
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.layout import (
    LISTING_SUFFIX,
    PUBLISHED_SUFFIX,
    SBOM_SUFFIX,
)
from valska.external_tools.core.utils import (
    load_json,
    sha256_bytes,
    utc_now_iso,
    write_json_atomic,
)

_ROLES = {"image-record": RECORD_TYPE, "definition": DEFINITION_TYPE, "lock": LOCK_TYPE}
_SUFFIX = ".image.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in a registry.

    Parameters
    ----------
    reference
        The repository, at the digest of the image's manifest.
    tag
        The tag that names it now.
    sha256
        Of the SIF.
    attached
        Digests of the manifests that refer to it: of its record and of its SBOM.
    uploaded
        Whether the SIF was uploaded; otherwise the registry had it.
    """

    reference: Reference
    tag: str
    sha256: str
    attached: tuple[str, ...] = ()
    uploaded: bool = True

    @property
    def uri(self) -> str:
        """What others pull: ``oras://…@sha256:…``."""
        return f"oras://{self.reference}"


def read_target(uri: str) -> Reference:
    """Return where an image is to be pushed to; without a tag, ``latest``.

    Raises
    ------
    UsageError
        If it is not ``oras://HOST/REPOSITORY[:TAG]``.
    """
    target = parse(uri)
    if target.scheme != "oras":
        raise UsageError(
            f"an image is pushed to oras://, not to {uri}", "Write oras://HOST/REPOSITORY:TAG."
        )
    if target.digest is not None:
        raise UsageError(
            f"{uri} names a digest, which follows from what is pushed", "Name a tag, or nothing."
        )
    return replace(target, tag=target.tag or DEFAULT_TAG)


def push_image(
    image: BundledImage,
    target: Reference,
    *,
    extras: Mapping[str, bytes] | None = None,
    with_record: bool = True,
    http: Http | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push an image as ``apptainer push`` does, then what is known of it.

    The same image of the same name gives the same digest, whoever pushes it and when. Record,
    definition and lock, and the SBOM, are attached as OCI referrers, at which ``apptainer pull``
    does not look.

    Parameters
    ----------
    image
        The SIF, its digest and the files that go with it, see `resolve_image`.
    target
        See `read_target`.
    extras
        Suffix to content of what a store has beside it, see `stored_extras`.
    with_record
        Attach what is known of it.
    http
        How to ask; from the environment if None.
    progress
        Told how many bytes of the SIF have gone, and of how many; nothing where the registry
        has it already.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer, or does not let this user push.
    ValskaError
        If it does not take the image.
    """
    from valska.external_tools.core.images.registry.uploading import upload_blob, upload_manifest

    connection = connect(target, http)
    log.info("pushing %s: %.1f MB", target, image.size / 1e6)
    uploaded = upload_blob(
        connection, image.sha256, image.size, lambda: image.path.open("rb"), progress
    )
    upload_blob(connection, sha256_bytes(EMPTY), len(EMPTY), _empty)
    name, labels = _name_and_labels(image)
    data = sif_manifest(image.sha256, image.size, f"{name}.sif", labels)
    digest = f"sha256:{sha256_bytes(data)}"
    upload_manifest(connection, target.identifier, MANIFEST, data)
    manifest = Manifest(target.at(digest), MANIFEST, data)
    attached = [
        attach(connection, manifest, kind, parts)
        for kind, parts in (_attachments(image, extras or {}) if with_record else {}).items()
    ]
    return Pushed(
        manifest.reference, target.identifier, image.sha256, tuple(attached), uploaded=uploaded
    )


def stored_extras(store: ImageStore, sha256: str) -> dict[str, bytes]:
    """Return suffix to content of an image's SBOM and list of files, as far as they are there."""
    found = {}
    for suffix in (SBOM_SUFFIX, LISTING_SUFFIX):
        with suppress(OSError):
            found[suffix] = store.extras(sha256, suffix).read_bytes()
    return found


def note_published(store: ImageStore, pushed: Pushed) -> Path | None:
    """Note beside an image in a store where it was pushed to; None if the store has no such image.

    The place is ``<digest>.published.json``. An earlier note of the same place is replaced.

    Raises
    ------
    ValskaError
        If it cannot be written, or is not such a file.
    """
    if not store.record(pushed.sha256).is_file():
        return None
    path = store.extras(pushed.sha256, PUBLISHED_SUFFIX)
    note = {"uri": pushed.uri, "tag": pushed.tag, "published_utc": utc_now_iso()}
    with store.holding(f"{pushed.sha256}.published", "noting where an image was pushed to"):
        notes = [*(one for one in read_published(path) if not _same(one, note)), note]
        write_json_atomic(path, {"schema_version": "1.0", "published": notes})
    return path


def read_published(path: Path) -> list[dict[str, Any]]:
    """Return where an image was pushed to, the oldest first; nothing where no file is."""
    if not path.is_file():
        return []
    notes = load_json(path).get("published")
    if not isinstance(notes, list) or not all(isinstance(note, dict) for note in notes):
        raise ValskaError(f"{path} does not say where an image was pushed to", "Remove it.")
    return notes


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other[key] for key in ("uri", "tag"))


def _name_and_labels(image: BundledImage) -> tuple[str, dict[str, str]]:
    """Return an image's name and those of its labels that are OCI's, from its record."""
    for name, (role, data) in image.files.items():
        if role == "image-record":
            labels = json.loads(data).get("labels", {})
            own = {key: value for key, value in labels.items() if key.startswith("org.opencont")}
            return name.removesuffix(_SUFFIX), own
    return image.path.stem, {}


def _attachments(image: BundledImage, extras: Mapping[str, bytes]) -> dict[str, tuple[Part, ...]]:
    """Return what is attached: type of artifact to its files, the record's own first."""
    parts = [
        Part(name, _ROLES[role], data)
        for name, (role, data) in image.files.items()
        if role in _ROLES
    ]
    parts.sort(key=lambda part: list(_ROLES.values()).index(part.media_type))
    if parts and LISTING_SUFFIX in extras:
        parts.append(Part(f"image{LISTING_SUFFIX}", LISTING_TYPE, extras[LISTING_SUFFIX]))
    found = {RECORD_TYPE: tuple(parts)} if parts else {}
    if SBOM_SUFFIX in extras:
        found[SBOM_TYPE] = (Part(f"image{SBOM_SUFFIX}", SBOM_TYPE, extras[SBOM_SUFFIX]),)
    return found


def _empty() -> Any:
    from io import BytesIO

    return BytesIO(EMPTY)
