"""Blobs and manifests into a registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from valska.external_tools.core.errors import PrerequisiteError, VerificationError
from valska.external_tools.core.images.registry.progress import Progress, Watched
from valska.external_tools.core.images.registry.transport import Connection, retried
from valska.external_tools.core.utils import sha256_bytes

Open = Callable[[], IO[bytes]]


def upload_blob(
    connection: Connection,
    sha256: str,
    size: int,
    opened: Open,
    progress: Progress | None = None,
) -> bool:
    """Upload a blob, unless the registry has it.

    Parameters
    ----------
    connection
        The registry and repository.
    sha256, size
        Of the blob. The registry refuses another content.
    opened
        Opens the content; called anew for each attempt.
    progress
        Told of what has been sent; nothing where the registry has the blob.

    Returns
    -------
    bool
        Whether it was uploaded.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer, or does not take it.
    """
    digest = f"sha256:{sha256}"

    def put() -> bool:
        what = f"an upload to {connection.reference.name}"
        known = connection.request("HEAD", f"blobs/{digest}", expected=(200, 404), what=what)
        if known.status_code == 200:
            return False
        begun = connection.request("POST", "blobs/uploads/", expected=(201, 202), what=what)
        place = _place(connection, begun.headers.get("Location", ""), digest)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with opened() as file:
            data = Watched(file, size, progress) if progress is not None else file
            connection.request(
                "PUT", place, expected=(201, 204), headers=headers, data=data, what=what
            )
        return True

    return retried(connection.http, put)


def upload_manifest(connection: Connection, name: str, media_type: str, data: bytes) -> bool:
    """Upload a manifest under a tag or its digest.

    Returns
    -------
    bool
        Whether the registry lists, by itself, what refers to the manifest's subject.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer, or does not take it.
    VerificationError
        If it has stored something else.
    """

    def put() -> bool:
        response = connection.request(
            "PUT",
            f"manifests/{name}",
            expected=(201,),
            headers={"Content-Type": media_type},
            data=data,
            what=f"an upload to {connection.reference.name}",
        )
        digest = f"sha256:{sha256_bytes(data)}"
        stored = response.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise VerificationError(
                f"the registry {connection.reference.registry} has stored {stored}, not {digest}"
            )
        return "OCI-Subject" in response.headers

    return retried(connection.http, put)


def _place(connection: Connection, location: str, digest: str) -> str:
    """Return where to put a blob: what the registry names, which may be a path."""
    if not location:
        raise PrerequisiteError(
            f"the registry {connection.reference.registry} does not say where to upload to"
        )
    own = urlsplit(connection.root)
    parts = urlsplit(urljoin(connection.root, location))
    scheme = own.scheme if parts.netloc == own.netloc else parts.scheme
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", digest)])
    return urlunsplit((scheme, parts.netloc, parts.path, query, ""))
