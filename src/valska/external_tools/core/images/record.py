"""The image record: what an image is made of, beside it in the store and in each bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from valska.external_tools.core.schema import validate
from valska.external_tools.core.utils import load_json

SCHEMA = "image-1"
SCHEMA_VERSION = "1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What is known of an image.

    Parameters
    ----------
    sha256, size
        Of the SIF; size in bytes.
    rootfs_sha256
        Of the partition in it that holds the root file system.
    name
        Name of the definition without its suffix, or of the file.
    created_utc
        When it was built; when it was first seen, for an image built elsewhere.
    origin
        ``built`` by valska, or ``adopted``: built elsewhere.
    definition, lock
        ``name`` and ``sha256`` of the files that it was built from. An adopted image's definition
        is the one that Apptainer kept in it.
    files
        ``source``, ``destination`` and ``sha256`` of each line of ``%files``.
    base
        ``reference``, ``kind`` and ``sha256`` of the base, whether it was ``replaced``, and the
        ``original`` one of the definition.
    build_arguments
        Those given.
    recipe_sha256
        Digest of all that goes into a build: definition, files, base and arguments. None where a
        part is not known by digest.
    apptainer_version, valska_version
        That built it.
    packages
        ``python`` (name to version) and ``system`` (``manager`` and ``packages``) in it, the
        ``environments`` of Python and the packages of ``conda``: `packages.Packages.to_json`.
    labels
        Its own labels, without those that Apptainer adds.
    tree_sha256
        Digest of the listing of its files: what has to be equal in a rebuild by another squashfs.
    source_date_epoch
        No file in it is newer; seconds since 1970.
    squashfs
        ``version`` of the program that packed it, and its ``options``.
    sbom
        ``name``, ``sha256`` and ``format`` of its bill of materials.
    signature
        ``fingerprint`` of the key, and ``unsigned_sha256``, the image's digest before.
    source
        ``uri``, ``tag`` and ``digest``, for an image that came from a registry.
    build_host
        Facts of the machine that built it; they need not be equal in a rebuild.
    """

    sha256: str
    size: int
    name: str
    created_utc: str
    origin: str
    rootfs_sha256: str | None = None
    definition: Mapping[str, str] | None = None
    lock: Mapping[str, str] | None = None
    files: tuple[Mapping[str, str | None], ...] = ()
    base: Mapping[str, Any] | None = None
    build_arguments: Mapping[str, str] = field(default_factory=dict)
    recipe_sha256: str | None = None
    apptainer_version: str | None = None
    valska_version: str | None = None
    packages: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tree_sha256: str | None = None
    source_date_epoch: int | None = None
    squashfs: Mapping[str, Any] | None = None
    sbom: Mapping[str, str] | None = None
    signature: Mapping[str, Any] | None = None
    source: Mapping[str, str | None] | None = None
    build_host: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types, checked against its schema."""
        data = {"schema_version": SCHEMA_VERSION, **asdict(self), "files": list(self.files)}
        validate(data, SCHEMA, what=f"the record of image {self.sha256[:12]}")
        return data

    def to_bytes(self) -> bytes:
        """Return the record as the text of its file."""
        return (json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n").encode()

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest says of the image."""
        return {
            "definition_sha256": self.definition["sha256"] if self.definition else None,
            "lock_sha256": self.lock["sha256"] if self.lock else None,
            "apptainer_version": self.apptainer_version,
            "base": dict(self.base) if self.base else None,
            "build_arguments": dict(self.build_arguments),
        }


def read_record(path: Path) -> ImageRecord:
    """Read an image record.

    Raises
    ------
    ValskaError
        If it cannot be read or is not JSON.
    SchemaError
        If it is not an image record of this major version.
    """
    data = load_json(path)
    validate(data, SCHEMA, what=str(path))
    known = ImageRecord.__dataclass_fields__
    fields = {key: value for key, value in data.items() if key in known}
    return ImageRecord(**{**fields, "files": tuple(data.get("files", ()))})
