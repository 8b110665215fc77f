"""OCI archives: an image of a registry as one tar file, the same bytes every time."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from hashlib import file_digest
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.images.registry.client import (
    MAX_DOCUMENT_BYTES,
    Manifest,
    choose,
    descriptor_of,
    objects,
    read_object,
)
from valska.external_tools.core.images.registry.reference import Reference

SUFFIX = ".oci.tar"

_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_BLOBS = "blobs/sha256"
_AGAIN = "Remove it; `valska fetch` gets it anew."


def write_archive(
    target: IO[bytes], manifest: Manifest, index: Manifest | None, blobs: Mapping[str, Path]
) -> None:
    """Write an OCI archive: of the manifest's image, from which nothing is left out.

    The same image gives the same bytes: names are in order, times and owners are none.

    Parameters
    ----------
    target
        Written to.
    manifest
        The image's.
    index
        That which lists it, if it was found by one: kept, so that its digest can be checked.
    blobs
        Digest to file of its configuration and layers.
    """
    documents = [manifest, *([index] if index is not None else [])]
    parts: dict[str, bytes | Path] = {
        "index.json": _dump({"schemaVersion": 2, "manifests": [manifest.descriptor]}),
        "oci-layout": _dump(_LAYOUT),
        **{_place(document.digest): document.data for document in documents},
        **{_place(digest): path for digest, path in blobs.items()},
    }
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("blobs", _BLOBS):
            tar.addfile(_entry(name, 0, tarfile.DIRTYPE))
        for name, content in sorted(parts.items()):
            _add(tar, name, content)


def check_archive(path: Path, digest: str, platform: str) -> None:
    """Check that an OCI archive is of the image that a digest names, and whole.

    Parameters
    ----------
    path
        The archive.
    digest
        Of an index or a manifest, ``sha256:<64 digits>``.
    platform
        Which image of an index.

    Raises
    ------
    VerificationError
        If it is not.
    OSError
        If it cannot be read.
    """
    try:
        with tarfile.open(path) as tar:
            _check(tar, path, digest, platform)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise VerificationError(f"{path} is not a whole OCI archive", _AGAIN) from error


def _check(tar: tarfile.TarFile, path: Path, digest: str, platform: str) -> None:
    found = _document(tar, path, digest)
    if found.is_index:
        found = _document(tar, path, choose(found, platform)["digest"])
    listed = read_object(_read(tar, "index.json"), f"index.json of {path}")
    if [entry.get("digest") for entry in objects(listed, "manifests")] != [found.digest]:
        raise VerificationError(f"{path} is of another image than {digest}", _AGAIN)
    for part in parts_of(found):
        _check_blob(tar, path, part["digest"])


def parts_of(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield the descriptors of an image's configuration and layers, each once.

    Raises
    ------
    ValskaError
        If the manifest is not an image's.
    """
    content = manifest.content
    layers = content.get("layers")
    entries = [content.get("config"), *(layers if isinstance(layers, list) else [None])]
    seen = set()
    for entry in entries:
        part = descriptor_of(entry, manifest.reference)
        if part["digest"] not in seen:
            seen.add(part["digest"])
            yield part


def _document(tar: tarfile.TarFile, path: Path, digest: str) -> Manifest:
    data = _read(tar, _place(digest))
    content = read_object(data, f"{digest} in {path}")
    named = Reference("archive", path.name.lower(), digest=digest)
    document = Manifest(named, str(content.get("mediaType", "")), data)
    if document.digest != digest:
        raise _altered(path, digest)
    return document


def _check_blob(tar: tarfile.TarFile, path: Path, digest: str) -> None:
    file = tar.extractfile(_place(digest))
    if file is None or f"sha256:{file_digest(file, 'sha256').hexdigest()}" != digest:  # type: ignore[arg-type]
        raise _altered(path, digest)


def _altered(path: Path, digest: str) -> VerificationError:
    return VerificationError(f"{path} has been altered: {digest} is not what it says", _AGAIN)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read(MAX_DOCUMENT_BYTES)


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    if isinstance(content, bytes):
        tar.addfile(_entry(name, len(content)), BytesIO(content))
        return
    with content.open("rb") as file:
        tar.addfile(_entry(name, content.stat().st_size), file)


def _entry(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mtime = size, kind, 0
    entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return entry


def _place(digest: str) -> str:
    return f"{_BLOBS}/{digest.removeprefix('sha256:')}"


def _dump(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
