"""What a kit says of itself: ``kit.json``, the first file in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import valska
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.kit.supplies import SHORT
from valska.external_tools.core.kit.wheels import FILE_NAME
from valska.external_tools.core.schema import SchemaError, validate
from valska.external_tools.core.tarring import NAME_BYTES
from valska.external_tools.core.utils import sha256_bytes

SCHEMA = "kit-1"
SCHEMA_VERSION = "1.0"
DOCUMENT = "kit.json"
SUMS = "SHA256SUMS"
LARGEST = 64 << 20
"""Bytes of the document."""

_DIGEST = "[0-9a-f]{64}"
_PLACES = {
    "base": rf"bases/sha256/{_DIGEST}\.oci\.tar",
    "wheel": rf"wheels/sha256/{_DIGEST}",
    "image": rf"images/sha256/{_DIGEST}\.sif",
    "image-file": rf"images/sha256/{_DIGEST}(?:\.[a-z0-9]{{1,16}}){{1,2}}",
    "input": rf"inputs/sha256/{_DIGEST}",
    "definition": rf"definitions/[0-9a-f]{{{SHORT}}}/[A-Za-z0-9_+=-][A-Za-z0-9._+=-]*",
}
_NAMED_BY_CONTENT = frozenset(("wheel", "image", "input"))


class Kind(StrEnum):
    """What a file of a kit is."""

    BASE = "base"
    WHEEL = "wheel"
    IMAGE = "image"
    IMAGE_FILE = "image-file"
    INPUT = "input"
    DEFINITION = "definition"


@dataclass(frozen=True, slots=True, kw_only=True)
class KitFile:
    """A file in a kit.

    Parameters
    ----------
    path
        Its place in the kit.
    sha256, size
        Of its content; bytes.
    kind
        What it is.
    name
        What people call it: a base's reference, the name of a package's file, an input's name.
    """

    path: str
    sha256: str
    size: int
    kind: Kind
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KitDocument:
    """What a kit holds, and for what.

    Parameters
    ----------
    purpose
        ``run``, ``build`` or ``all``.
    platform
        For which its bases and packages are, as ``linux/amd64``.
    targets
        ``kind``, ``name`` and, where there is one, ``id`` of what it was made for.
    files
        In the order in which they are in the kit, after this document and the sums.
    valska_version
        That wrote it.
    """

    purpose: str
    platform: str
    targets: tuple[Mapping[str, str], ...]
    files: tuple[KitFile, ...]
    valska_version: str = field(default=valska.__version__)

    def to_json(self) -> dict[str, Any]:
        """Return the document as JSON types, checked against its schema."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "valska_version": self.valska_version,
            "for": self.purpose,
            "platform": self.platform,
            "targets": [dict(target) for target in self.targets],
            "files": [asdict(file) for file in self.files],
        }
        validate(data, SCHEMA, what="the kit")
        return data

    def to_bytes(self) -> bytes:
        """Return the document's text."""
        return (json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n").encode()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def sums_of(data: bytes, files: Iterable[KitFile]) -> bytes:
    """Return what ``sha256sum --check`` reads: of a document, given as bytes, and its files."""
    lines = [f"{file.sha256}  {file.path}\n" for file in files]
    return "".join([f"{sha256_bytes(data)}  {DOCUMENT}\n", *lines]).encode()


def parse_document(data: bytes, what: str) -> KitDocument:
    """Read a kit's document and check that no file of it can do harm.

    Parameters
    ----------
    data
        Its bytes.
    what
        The kit, for messages.

    Raises
    ------
    VerificationError
        If it is not valid, or a place or a name in it is not what it has to be.
    """
    try:
        content = json.loads(data)
        validate(content, SCHEMA, what=f"{DOCUMENT} of {what}")
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{DOCUMENT} of {what} is not JSON") from error
    except SchemaError as error:
        raise VerificationError(error.message, error.hint) from error
    known = KitFile.__dataclass_fields__
    document = KitDocument(
        purpose=content["for"],
        platform=content["platform"],
        targets=tuple(content["targets"]),
        files=tuple(
            KitFile(**{**{k: v for k, v in f.items() if k in known}, "kind": Kind(f["kind"])})
            for f in content["files"]
        ),
        valska_version=content["valska_version"],
    )
    _check_files(document.files, what)
    return document


def _check_files(files: Iterable[KitFile], what: str) -> None:
    seen: set[str] = set()
    for file in files:
        fault = _fault(file)
        if file.path in seen:
            fault = "which is in it twice"
        if fault:
            raise VerificationError(f"{what} has {file.path!r}, {fault}", "Do not use it.")
        seen.add(file.path)


def _fault(file: KitFile) -> str | None:
    match = re.fullmatch(_PLACES[file.kind], file.path)
    if match is None or len(file.path) > NAME_BYTES:
        return f"where no {file.kind} belongs"
    if file.kind in _NAMED_BY_CONTENT and file.sha256 not in file.path:
        return "whose name is not its digest"
    if file.kind is Kind.WHEEL and not FILE_NAME.fullmatch(file.name):
        return f"which is called {file.name!r}"
    if file.kind is Kind.IMAGE_FILE and file.path.endswith((".sif", ".receipt")):
        return f"where no {file.kind} belongs"
    return None
