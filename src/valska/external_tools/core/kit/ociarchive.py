"""OCI archives: whether one holds the image of a digest, whole and unaltered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.kit.tarring import Member, list_members
from valska.external_tools.core.utils import CHUNK_BYTES

LARGEST_DOCUMENT = 8 << 20
"""Bytes; an index, a manifest or a configuration that is larger is refused."""

_BLOB = re.compile(r"(?:\./)?blobs/sha256/([0-9a-f]{64})")


def check_oci_archive(path: Path, digest: str) -> None:
    """Check that an archive holds the image of a digest, with all that belongs to it.

    Every blob is read. The digest may be that of an image, or of an index of images for several
    platforms, of which one has to be there.

    Parameters
    ----------
    path
        The archive, a tar file.
    digest
        64 digits.

    Raises
    ------
    VerificationError
        If something is missing, altered, or of another image.
    """
    members = {m.name.removeprefix("./"): m for m in list_members(path, directories=True)}
    blobs = {match[1]: m for name, m in members.items() if (match := _BLOB.fullmatch(name))}
    with path.open("rb") as file:
        for name, member in blobs.items():
            if _sha256(file, member) != name:
                raise _refused(path, f"the blob {name[:12]}… is altered")
        manifest = _manifest(path, file, blobs, digest)
        for wanted in _parts(path, _document(path, file, blobs, manifest)):
            if wanted not in blobs:
                raise _refused(path, f"the blob {wanted[:12]}… is missing")
        if "index.json" not in members:
            raise _refused(path, "it has no index.json")
        named = _digests(path, _load(path, file, members["index.json"]), "manifests")
    if named not in ([manifest], [digest]):
        raise _refused(path, "its index names another image")


def _manifest(path: Path, file: IO[bytes], blobs: Mapping[str, Member], digest: str) -> str:
    """Return the digest of the image's manifest: the pinned one, or one that it lists."""
    if digest not in blobs:
        raise _refused(path, f"it does not hold {digest[:12]}…")
    document = _document(path, file, blobs, digest)
    if "manifests" not in document:
        return digest
    here = [name for name in _digests(path, document, "manifests") if name in blobs]
    if len(here) != 1:
        raise _refused(path, f"it holds {len(here)} of the images that {digest[:12]}… lists")
    return here[0]


def _parts(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    yield from _digests(path, {"config": [manifest.get("config")]}, "config")
    yield from _digests(path, manifest, "layers")


def _digests(path: Path, document: Mapping[str, Any], key: str) -> list[str]:
    try:
        found = [str(entry["digest"]) for entry in document[key]]
    except (KeyError, TypeError) as error:
        raise _refused(path, f"a document in it has no {key}") from error
    return [name.removeprefix("sha256:") for name in found]


def _document(
    path: Path, file: IO[bytes], blobs: Mapping[str, Member], digest: str
) -> dict[str, Any]:
    return _load(path, file, blobs[digest])


def _load(path: Path, file: IO[bytes], member: Member) -> dict[str, Any]:
    if member.size > LARGEST_DOCUMENT:
        raise _refused(path, f"{member.name} is too large")
    file.seek(member.offset)
    try:
        data = json.loads(file.read(member.size))
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"{member.name} is not JSON") from error
    if not isinstance(data, dict):
        raise _refused(path, f"{member.name} is no JSON object")
    return data


def _sha256(file: IO[bytes], member: Member) -> str:
    digest, left = sha256(), member.size
    file.seek(member.offset)
    while left and (chunk := file.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _refused(path: Path, why: str) -> VerificationError:
    return VerificationError(
        f"{path} is not the base that it should be: {why}",
        "Remove it, and bring it again: `valska fetch` where there is a network, `valska load`.",
    )
