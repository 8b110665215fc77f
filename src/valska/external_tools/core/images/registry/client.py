"""Asking a registry: what a tag names, manifests, configurations and blobs."""

from __future__ import annotations

import json
import platform as machine
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from valska.external_tools.core.errors import PrerequisiteError, ValskaError, VerificationError
from valska.external_tools.core.images.registry.options import Http, http_options
from valska.external_tools.core.images.registry.progress import Progress
from valska.external_tools.core.images.registry.reference import Reference, is_digest, parse
from valska.external_tools.core.utils import CHUNK_BYTES, replacing, sha256_bytes

if TYPE_CHECKING:
    from valska.external_tools.core.images.registry.transport import Connection

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED = (INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
MAX_DOCUMENT_BYTES = 8 << 20

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TAMPERED = "Do not use it; ask who runs the registry, or a proxy before it."


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index as the registry has it.

    Parameters
    ----------
    reference
        The repository, at this manifest's digest.
    media_type
        Its type.
    data
        Its bytes: what the digest is of.
    """

    reference: Reference
    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """``sha256:<64 digits>`` of the bytes."""
        return f"sha256:{sha256_bytes(self.data)}"

    @property
    def content(self) -> dict[str, Any]:
        """What it says."""
        return read_object(self.data, f"the manifest of {self.reference}")

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests for several platforms."""
        return self.media_type in (INDEX, DOCKER_INDEX)

    @property
    def descriptor(self) -> dict[str, Any]:
        """What stands for it in an index."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


def resolve(
    reference: Reference | str, *, platform: str | None = None, http: Http | None = None
) -> str:
    """Return the digest of what a reference names now.

    Parameters
    ----------
    reference
        Usually with a tag. One with a digest is asked for, too.
    platform
        ``linux/amd64`` and the like: that an index has to have. The digest is the index's.
    http
        How to ask; from the environment if None.

    Returns
    -------
    str
        ``sha256:<64 digits>``: of the index if the reference names one, else of the manifest.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer, does not have it, does not give it to this user, or has
        it for other platforms only.
    VerificationError
        If the registry serves something else than the reference's digest.
    """
    found = manifest(reference, http=http)
    if platform and found.is_index:
        choose(found, platform)
    return found.digest


def manifest(
    reference: Reference | str, *, platform: str | None = None, http: Http | None = None
) -> Manifest:
    """Return what a reference names: with a platform a manifest, else perhaps an index.

    Raises
    ------
    PrerequisiteError
        See `resolve`.
    VerificationError
        If it does not have its digest.
    """
    connection = connect(reference, http)
    found = fetch_manifest(connection, connection.reference)
    if platform and found.is_index:
        return fetch_manifest(connection, found.reference.at(choose(found, platform)["digest"]))
    return found


def config(
    reference: Reference | str, *, platform: str | None = None, http: Http | None = None
) -> dict[str, Any]:
    """Return an image's configuration: ``config.Env``, ``architecture`` and so on.

    Parameters
    ----------
    reference, http
        See `resolve`.
    platform
        Which image of an index; this machine's if None.

    Raises
    ------
    PrerequisiteError, VerificationError
        See `resolve`.
    """
    connection = connect(reference, http)
    found = fetch_manifest(connection, connection.reference)
    if found.is_index:
        chosen = choose(found, platform or this_platform())
        found = fetch_manifest(connection, found.reference.at(chosen["digest"]))
    descriptor = descriptor_of(found.content.get("config"), found.reference)
    return read_object(fetch_document(connection, descriptor), f"the configuration of {reference}")


def environment(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that an image's configuration sets (``PYTHON_VERSION``, …)."""
    settings = configuration.get("config")
    found = settings.get("Env") if isinstance(settings, Mapping) else None
    lines = found if isinstance(found, list) else []
    return {name: value for name, _, value in (str(line).partition("=") for line in lines)}


def this_platform() -> str:
    """Return this machine's platform as OCI has it: ``linux/amd64``."""
    name = machine.machine()
    return f"linux/{_ARCHITECTURES.get(name, name)}"


def connect(reference: Reference | str, http: Http | None = None) -> Connection:
    """Return a connection to a reference's registry; nothing is asked yet."""
    from valska.external_tools.core.images.registry.transport import Connection

    named = parse(reference) if isinstance(reference, str) else reference
    return Connection(named, http or http_options())


def choose(index: Manifest, platform: str) -> dict[str, Any]:
    """Return the descriptor of a platform's image in an index.

    Raises
    ------
    PrerequisiteError
        If it has none.
    """
    entries = objects(index.content, "manifests")
    for entry in entries:
        if f"{_platform(entry)}/".startswith(f"{platform}/"):
            return descriptor_of(entry, index.reference)
    others = sorted({_platform(entry) for entry in entries} - {"unknown", "unknown/unknown"})
    raise PrerequisiteError(
        f"{index.reference} has no image for {platform}", f"It has: {', '.join(others) or 'none'}."
    )


def fetch_manifest(connection: Connection, reference: Reference) -> Manifest:
    """Return a manifest or an index, whose digest has been checked if the reference has one."""
    from valska.external_tools.core.images.registry.transport import retried

    def ask() -> Manifest:
        with connection.request(
            "GET",
            f"manifests/{reference.identifier}",
            headers={"Accept": ", ".join(ACCEPTED)},
            stream=True,
            what=str(reference),
        ) as response:
            data = read_whole(connection, response)
            named = response.headers.get("Content-Type", "").partition(";")[0].strip()
        content = read_object(data, f"the manifest of {reference}")
        return Manifest(reference, str(content.get("mediaType") or named or MANIFEST), data)

    found = retried(connection.http, ask)
    if reference.digest and found.digest != reference.digest:
        raise mismatch(reference, reference.digest, found.digest)
    return Manifest(reference.at(found.digest), found.media_type, found.data)


def fetch_document(
    connection: Connection, descriptor: Mapping[str, Any], most: int = MAX_DOCUMENT_BYTES
) -> bytes:
    """Return a small blob (a configuration, a record), its digest checked.

    Raises
    ------
    PrerequisiteError, VerificationError
        See `fetch_blob`.
    ValskaError
        If it has more than `most` bytes.
    """
    from io import BytesIO

    if descriptor["size"] > most:
        raise ValskaError(f"{connection.reference} has a document of {descriptor['size']} bytes")
    buffer = BytesIO()
    _receive_again(connection, descriptor, buffer, None)
    return buffer.getvalue()


def fetch_blob(
    connection: Connection,
    descriptor: Mapping[str, Any],
    target: Path,
    progress: Progress | None = None,
) -> None:
    """Write a blob into a file, which is there only once its digest has been checked.

    Parameters
    ----------
    connection
        The registry and repository.
    descriptor
        ``digest`` and ``size`` as a manifest has them.
    target
        The file; its directory has to be there.
    progress
        Told of what has come.

    Raises
    ------
    PrerequisiteError
        If the registry does not answer, not even when asked again, or does not have it.
    VerificationError
        If what it serves does not have the digest.
    """
    with replacing(target) as file:
        _receive_again(connection, descriptor, file, progress)


def _receive_again(
    connection: Connection,
    descriptor: Mapping[str, Any],
    file: IO[bytes],
    progress: Progress | None,
) -> None:
    from valska.external_tools.core.images.registry.transport import retried

    def ask() -> None:
        file.seek(0)
        file.truncate()
        _receive(connection, descriptor, file, progress)

    retried(connection.http, ask)


def _receive(
    connection: Connection,
    descriptor: Mapping[str, Any],
    file: IO[bytes],
    progress: Progress | None,
) -> None:
    import requests

    digest, size = str(descriptor["digest"]), int(descriptor["size"])
    part = connection.reference.at(digest)
    found, received = sha256(), 0
    with connection.request("GET", f"blobs/{digest}", stream=True, what=str(part)) as response:
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                received += len(chunk)
                if received > size:
                    raise mismatch(part, f"{size} bytes", "more")
                found.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(received, size)
        except requests.RequestException as error:
            raise connection.broken(error) from error
    if received < size:
        raise connection.broken(EOFError())
    if f"sha256:{found.hexdigest()}" != digest:
        raise mismatch(part, digest, f"sha256:{found.hexdigest()}")


def read_whole(connection: Connection, response: Any) -> bytes:
    """Return the body of an answer that is not large.

    Raises
    ------
    PrerequisiteError
        If it breaks off.
    ValskaError
        If it is large.
    """
    import requests

    data = bytearray()
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            data += chunk
            if len(data) > MAX_DOCUMENT_BYTES:
                raise ValskaError(f"the answer for {connection.reference} is too large")
    except requests.RequestException as error:
        raise connection.broken(error) from error
    return bytes(data)


def mismatch(reference: Reference, expected: str, found: str) -> VerificationError:
    """Return the error for something that is not what its digest says."""
    return VerificationError(
        f"the registry {reference.registry} does not serve what was asked for: "
        f"{reference.repository} should be {expected} and is {found}",
        _TAMPERED,
    )


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object that a registry gave.

    Raises
    ------
    ValskaError
        If it is none.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValskaError(f"{what} is not JSON") from error
    if not isinstance(content, dict):
        raise ValskaError(f"{what} is not a JSON object")
    return content


def objects(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects in a list of a document; what is none is left out."""
    found = content.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def descriptor_of(entry: Any, reference: Reference) -> dict[str, Any]:
    """Return a descriptor if it is one: with a SHA-256 digest and a size.

    Raises
    ------
    ValskaError
        If it is none.
    """
    if isinstance(entry, dict) and is_digest(entry.get("digest")):
        size = entry.get("size")
        if isinstance(size, int) and size >= 0:
            return entry
    raise ValskaError(f"the manifest of {reference} is not one that valska understands")


def _platform(entry: Mapping[str, Any]) -> str:
    facts = entry.get("platform")
    if not isinstance(facts, Mapping):
        return "unknown"
    parts = (facts.get("os"), facts.get("architecture"), facts.get("variant"))
    return "/".join(str(part) for part in parts if part)
