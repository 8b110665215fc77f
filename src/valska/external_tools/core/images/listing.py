"""The listing: every file of an image with its mode and digest, as one text with one digest.

The text is lines of ASCII, each ended by a line feed. The first says ``valska-files 1``; each other
is one entry, five fields with a tab between them, sorted by the bytes of the path::

    kind  mode  size  detail  path

``kind`` is one letter, as ``find -type`` has it; ``mode`` four octal digits; ``size`` the bytes of
a file, else 0; ``detail`` the SHA-256 of a file, where a link leads, ``major,minor`` of a device,
else ``-``; ``path`` is below the root, which is itself ``.``. In links and paths, each byte that is
not printable ASCII, and the per cent sign, is ``%`` and two hexadecimal digits. Owners and times
are not in it: an image's files are all root's, and a time changes nothing that a program computes.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.tree import (
    FILE,
    KINDS,
    LINK,
    DirectoryTree,
    Node,
    Tree,
)
from valska.external_tools.core.utils import sha256_bytes

SUFFIX = ".files.gz"
"""Of a listing that lies beside its image."""

_HEADER = b"valska-files 1"
_NOTHING = "-"
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_MOST_BYTES = 512 << 20
_BATCH_FILES = 128
_BATCH_BYTES = 16 << 20


class Entry(NamedTuple):
    """A line of a listing.

    Attributes
    ----------
    path
        Below the root, with ``/`` between the parts; ``.`` is the root.
    kind
        One letter, as ``find -type`` has it.
    mode
        Permission bits, with set-id and sticky bits.
    size
        Bytes of a file; 0 of anything else.
    detail
        SHA-256 of a file, where a link leads, ``major,minor`` of a device; else ``-``.
    """

    path: bytes
    kind: str
    mode: int
    size: int
    detail: str | bytes

    def line(self) -> str:
        """Return the entry as a line, without its end."""
        detail = self.detail if isinstance(self.detail, str) else _quoted(self.detail)
        return f"{self.kind}\t{self.mode:04o}\t{self.size}\t{detail}\t{_quoted(self.path)}"


@dataclass(frozen=True)
class Listing:
    """What files there are in an image.

    Parameters
    ----------
    entries
        Sorted by path.
    """

    entries: tuple[Entry, ...]

    @cached_property
    def text(self) -> bytes:
        """The listing as text; see this module's head."""
        lines = (_HEADER.decode(), *(entry.line() for entry in self.entries), "")
        return "\n".join(lines).encode("ascii")

    @cached_property
    def sha256(self) -> str:
        """Digest of the text: of the whole tree, its times and owners aside."""
        return sha256_bytes(self.text)

    def by_path(self) -> dict[bytes, Entry]:
        """Return the entries by their paths."""
        return {entry.path: entry for entry in self.entries}

    def to_bytes(self) -> bytes:
        """Return the text, compressed: the same bytes wherever zlib is the same."""
        buffer = BytesIO()
        with gzip.GzipFile("", "wb", 6, buffer, mtime=0) as file:
            file.write(self.text)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "the listing") -> Listing:
        """Read what `to_bytes` wrote.

        Parameters
        ----------
        data
            The compressed text.
        what
            Where it is from, for the message.

        Raises
        ------
        ValskaError
            If it is not a listing.
        """
        try:
            return cls(_parse(_unpack(data)))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ValskaError(f"{what} is not a list of an image's files: {error}") from error


def list_tree(tree: Path | Tree) -> Listing:
    """Return the listing of a tree; every file is read, by as many threads as there are CPUs.

    Parameters
    ----------
    tree
        A directory, or anything that is a tree.

    Raises
    ------
    PrerequisiteError
        If a part of it cannot be read.
    """
    source = DirectoryTree(tree) if isinstance(tree, Path) else tree
    nodes = sorted(source.nodes())
    digests = _digests(source, [node for node in nodes if node.kind == FILE])
    return Listing(tuple(_listed(node, digests) for node in nodes))


def _digests(tree: Tree, files: Sequence[Node]) -> dict[bytes, str]:
    def hash_all(batch: Sequence[Node]) -> list[tuple[bytes, str]]:
        return [(node.path, tree.sha256(node)) for node in batch]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = pool.map(hash_all, _batches(files))
        return {path: digest for batch in results for path, digest in batch}


def _batches(files: Iterable[Node]) -> Iterator[list[Node]]:
    """Cut files into pieces of work, so that handing out takes less time than hashing."""
    batch: list[Node] = []
    size = 0
    for node in files:
        batch.append(node)
        size += node.size
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _listed(node: Node, digests: dict[bytes, str]) -> Entry:
    detail: str | bytes = node.detail.decode("ascii") if node.kind != LINK else node.detail
    if node.kind == FILE:
        detail = digests[node.path]
    return Entry(node.path, node.kind, node.mode, node.size, detail or _NOTHING)


def _unpack(data: bytes) -> bytes:
    with gzip.GzipFile(fileobj=BytesIO(data)) as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ValueError("it is too long")
    return text


def _parse(text: bytes) -> tuple[Entry, ...]:
    header, *lines, end = text.split(b"\n")
    if header != _HEADER:
        raise ValueError("it does not begin as one")
    if end:
        raise ValueError("it is cut off")
    return tuple(_entry(line.decode("ascii")) for line in lines)


def _entry(line: str) -> Entry:
    kind, mode, size, detail, path = line.split("\t")
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of file")
    content = unquote_to_bytes(detail) if kind == LINK else detail
    return Entry(unquote_to_bytes(path), kind, int(mode, 8), int(size), content)


def _quoted(name: bytes) -> str:
    return quote_from_bytes(name, _PRINTABLE)
