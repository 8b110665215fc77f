"""What is signed about an archive: an in-toto statement, its predicate SLSA provenance."""

from __future__ import annotations

import json
from typing import Any

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.contents import Contents
from valska.external_tools.core.archive.document import ArchiveDocument, parse_json
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.signing.provenance import provenance

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"


def statement_bytes(contents: Contents, document: ArchiveDocument, sha256: str) -> bytes:
    """Return the statement about an archive; it depends on the archive's bytes alone.

    Parameters
    ----------
    contents, document
        What is in the archive, and what it says of itself.
    sha256
        Of the archive.

    Raises
    ------
    VerificationError
        If the archive's manifest or records cannot be read.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": _subject(document, sha256),
        "predicateType": PREDICATE_TYPE,
        "predicate": provenance(contents, document),
    }
    try:
        return (json.dumps(statement, indent=2, allow_nan=False) + "\n").encode()
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"its manifest holds what no statement can: {error}") from error


def _subject(document: ArchiveDocument, sha256: str) -> list[dict[str, Any]]:
    """Return the archive, and the seal by which the unpacked bundle is found."""
    about = {"kind": str(document.kind), "tool": document.tool, "run_id": document.run_id}
    if document.bundle_id:
        about["bundle_id"] = document.bundle_id
    name = f"{document.run_id}{places.SUFFIX}"
    return [
        {"name": name, "digest": {"sha256": sha256}, "annotations": about},
        {"name": f"{places.BUNDLE}/SHA256SUMS", "digest": {"sha256": document.seal}},
    ]


def signed_digests(data: bytes) -> tuple[str, ...]:
    """Return the SHA-256 of everything that a statement is about.

    Raises
    ------
    VerificationError
        If it is not a statement with provenance, or about nothing.
    """
    found = parse_json(data)
    if found.get("_type") != STATEMENT_TYPE or found.get("predicateType") != PREDICATE_TYPE:
        raise VerificationError("it is not an in-toto statement with SLSA provenance")
    try:
        digests = [one["digest"].get("sha256") for one in found["subject"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise VerificationError("its subjects have no digests") from error
    if not any(digests):
        raise VerificationError("its subjects have no digests")
    return tuple(str(digest) for digest in digests if digest)
