"""What names an image in a registry: host, repository, tag and digest."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from valska.external_tools.core.errors import UsageError

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
SCHEMES = ("docker", "oras")

_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE)
_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::\d{1,5})?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FORM = "Write [docker://|oras://][HOST[:PORT]/]REPOSITORY[:TAG][@sha256:DIGEST]."


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image in a registry.

    Parameters
    ----------
    registry
        Host, with its port if it has one. ``docker.io`` is Docker Hub.
    repository
        The repository's whole name; Docker Hub's own images have ``library/`` before theirs.
    tag
        None where none is given.
    digest
        ``sha256:<64 digits>``, or None.
    scheme
        ``docker``, ``oras``, or None where none is given.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None
    scheme: str | None = None

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def identifier(self) -> str:
        """What to ask the registry for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def uri(self) -> str:
        """The whole reference, with its scheme (``docker`` if it has none)."""
        return f"{self.scheme or 'docker'}://{self}"

    def at(self, digest: str) -> Reference:
        """Return the reference to a digest in the same repository, without the tag."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        """Return the reference without its scheme."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def parse(text: str) -> Reference:
    """Read a reference as Docker, skopeo and Apptainer write it.

    Without a host it is one of Docker Hub's; after ``oras://`` the host has to be there.

    Raises
    ------
    UsageError
        If it is not a reference.
    """
    scheme, rest = _split_scheme(text)
    _refuse_credentials(rest)
    rest, _, digest = rest.partition("@")
    host, path = _split_host(rest, scheme)
    path, _, tag = path.partition(":")
    reference = Reference(host, path, tag or None, digest or None, scheme)
    fault = _fault(reference, marks=(":" in rest.rpartition("/")[2], "@" in text))
    if fault:
        raise UsageError(f"{text!r} names no image in a registry: {fault}", _FORM)
    return reference


def is_digest(text: object) -> bool:
    """Tell whether something is a SHA-256 digest as OCI writes it."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def is_loopback(registry: str) -> bool:
    """Tell whether a registry's host is this machine."""
    host = registry.rpartition(":")[0] if re.search(r":\d+$", registry) else registry
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _split_scheme(text: str) -> tuple[str | None, str]:
    match = _SCHEME.fullmatch(text)
    if match is None:
        return None, text
    scheme = match["scheme"].lower()
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}:// does not name an image in an OCI registry", _FORM)
    return scheme, match["rest"]


def _refuse_credentials(rest: str) -> None:
    user, at, host = rest.partition("@")
    if at and not host.startswith("sha") and "/" not in user:
        raise UsageError(
            "a reference cannot hold a user name or password",
            "Log in instead: `apptainer registry login`, `docker login` or `skopeo login`.",
        )


def _split_host(rest: str, scheme: str | None) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    if slash and (scheme == "oras" or set(first) & set(".:[") or first == "localhost"):
        host = DOCKER_HUB if first == "index.docker.io" else first
    else:
        host, path = ("" if scheme == "oras" else DOCKER_HUB), rest
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return host, path


def _fault(reference: Reference, marks: tuple[bool, bool]) -> str | None:
    """Return what is wrong with a reference; `marks`: there was a ``:``, an ``@``."""
    if not _HOST.fullmatch(reference.registry):
        return "its registry is missing" if not reference.registry else "its registry is no host"
    if not _REPOSITORY.fullmatch(reference.repository):
        lower = reference.repository != reference.repository.lower()
        return (
            "a repository's name is in lower case" if lower else "its repository has no such name"
        )
    if (reference.tag or marks[0]) and not _TAG.fullmatch(reference.tag or ""):
        return "its tag is not one"
    if (reference.digest or marks[1]) and not _DIGEST.fullmatch(reference.digest or ""):
        return "its digest is not sha256: and 64 hexadecimal digits"
    return None
