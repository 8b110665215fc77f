"""The base of an image: pinned in the definition, or another one that is here."""

from __future__ import annotations

import logging
import os
import re
import stat
import tarfile
from collections.abc import Container, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.images.building.canonical import EMPTIED, FILES_EMPTIED
from valska.external_tools.core.images.definition import Definition
from valska.external_tools.core.images.sif import read_sif
from valska.external_tools.core.images.syntax import AGENTS, LOCAL
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.utils import sha256_file

_URI = re.compile(r"(?P<agent>[a-z]+(?:-[a-z]+)?):(?://)?(?P<rest>[^/].*|/.*)")
_PIN = re.compile(r"@sha256:([0-9a-f]{64})$|\bsha256\.([0-9a-f]{64})$")
_CREDENTIALS = re.compile(r"//[^/@\s]+@")
_SIF_MAGIC = (32, b"SIF_MAGIC")
_MAKE_HINT = "containers/bootstrap-base.sh OUT makes one from Debian packages."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Base:
    """What an image is built on.

    Parameters
    ----------
    bootstrap, source
        What ``Bootstrap:`` and ``From:`` say.
    reference
        How a record names it: a URI, or the name of a file; never where the file is.
    kind
        ``tar``, ``sif`` or ``sandbox`` for a local one, else the bootstrap agent.
    sha256
        Its digest; None where it is not pinned.
    original
        The definition's own base, if this one replaces it.
    """

    bootstrap: str
    source: str
    reference: str
    kind: str
    sha256: str | None
    original: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the image record says of it."""
        return {
            "reference": self.reference,
            "kind": self.kind,
            "sha256": self.sha256,
            "replaced": self.original is not None,
            "original": self.original,
        }

    @property
    def labels(self) -> dict[str, str]:
        """Facts for the labels of an image: of a local base its digest, not what it is called."""
        digest = {"digest": f"sha256:{self.sha256}"} if self.sha256 else {}
        return digest if self.is_local else {"name": self.reference, **digest}

    @property
    def is_local(self) -> bool:
        """Whether it is a file or a directory of this machine."""
        return self.bootstrap == LOCAL


def own_base(definition: Definition, arguments: dict[str, str]) -> Base:
    """Return the base that a definition names.

    Raises
    ------
    PrerequisiteError
        If it is a local one and is not there.
    """
    agent = definition.header["bootstrap"].lower()
    source = definition.fill(definition.header.get("from", ""), arguments)
    home = definition.path.absolute().parent
    if agent == LOCAL:
        return _local_base(home / source)
    return _uri_base(agent, source, home)


def own_reference(definition: Definition, arguments: dict[str, str]) -> str:
    """Return how a record names the base that a definition names, be it there or not."""
    agent = definition.header["bootstrap"].lower()
    source = definition.fill(definition.header.get("from", ""), arguments)
    if agent == LOCAL:
        return Path(source).name
    return _uri_base(agent, source, definition.path.absolute().parent).reference


def replacement_base(text: str, original: str) -> Base:
    """Return the base that the user names in place of the definition's own: path or URI.

    Raises
    ------
    UsageError
        If it has no form that can be used.
    PrerequisiteError
        If there is no such file.
    """
    match = _URI.fullmatch(text)
    if match and not Path(text).exists():
        if match["agent"] not in AGENTS:
            raise UsageError(
                f"{match['agent']}: is no kind of base",
                did_you_mean(match["agent"], AGENTS) or f"Known: {', '.join(sorted(AGENTS))}.",
            )
        base = _uri_base(match["agent"], match["rest"])
    else:
        base = _local_base(Path(text).expanduser())
    return Base(base.bootstrap, base.source, base.reference, base.kind, base.sha256, original)


def _uri_base(agent: str, source: str, home: Path = Path()) -> Base:
    """Return a base of a URI; an archive is looked for below `home`."""
    name, colon, tag = source.partition(":")
    archive = (home / name).absolute()
    if agent.endswith("-archive") and archive.is_file():
        source = f"{archive}{colon}{tag}"
        return Base(agent, source, f"{agent}:{archive.name}", agent, sha256_file(archive))
    match = _PIN.search(source)
    digest = (match[1] or match[2]) if match else None
    reference = _CREDENTIALS.sub("//", f"{agent}://{source.removeprefix('//')}")
    return Base(agent, source, reference, agent, digest)


def _local_base(path: Path) -> Base:
    path = path.absolute()
    if not path.exists():
        raise PrerequisiteError(f"no such base: {path}", _MAKE_HINT)
    if any(not c.isprintable() for c in os.fspath(path)):
        raise UsageError(f"the path of the base, {os.fspath(path)!r}, has a control character")
    kind = _local_kind(path)
    digest = tree_sha256(path) if kind == "sandbox" else sha256_file(path)
    if digest is None:
        log.warning("some of the base %s cannot be read: it is not recorded by digest", path)
    return Base(LOCAL, os.fspath(path), path.name, kind, digest)


def _local_kind(path: Path) -> str:
    if path.is_dir():
        if not any((path / name).exists() for name in ("bin", "usr", "etc")):
            raise UsageError(f"{path} is not the root of a file system", _MAKE_HINT)
        return "sandbox"
    offset, magic = _SIF_MAGIC
    try:
        with path.open("rb") as file:
            is_sif = file.read(offset + len(magic)).endswith(magic)
        if is_sif:
            read_sif(path)
            return "sif"
        if tarfile.is_tarfile(path):
            return "tar"
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    raise UsageError(f"{path} is not a base: neither a directory, a SIF nor a tar file", _MAKE_HINT)


def tree_sha256(root: Path) -> str | None:
    """Return one digest of names, modes, links and contents below a directory.

    Owners and times are left out, and the content of what no image keeps, such as caches that only
    root can enter. None if a file cannot be read.
    """
    digest = sha256()
    passed_over = {os.fspath(root / name) for name in (*EMPTIED, *FILES_EMPTIED)}
    try:
        for entry in _walk(os.fspath(root), passed_over):
            digest.update(_describe(root, entry))
    except OSError:
        return None
    return digest.hexdigest()


def _walk(directory: str, passed_over: Container[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False) and entry.path not in passed_over:
            yield from _walk(entry.path, passed_over)


def _describe(root: Path, entry: os.DirEntry[str]) -> bytes:
    mode = entry.stat(follow_symlinks=False).st_mode
    content = ""
    if stat.S_ISLNK(mode):
        content = os.fspath(Path(entry.path).readlink())
    elif stat.S_ISREG(mode):
        content = sha256_file(Path(entry.path))
    fields = (os.path.relpath(entry.path, root), f"{mode:o}", content)
    return b"\0".join(map(os.fsencode, fields)) + b"\n"
