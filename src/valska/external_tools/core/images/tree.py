"""A tree of files, wherever it is: what there is in it, and what a file holds."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.utils import CHUNK_BYTES

DIRECTORY, FILE, LINK, PIPE, SOCKET, BLOCK, CHARACTER = "d", "f", "l", "p", "s", "b", "c"
KINDS = frozenset((DIRECTORY, FILE, LINK, PIPE, SOCKET, BLOCK, CHARACTER))

_KINDS = {
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFREG: FILE,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: PIPE,
    stat.S_IFSOCK: SOCKET,
    stat.S_IFBLK: BLOCK,
    stat.S_IFCHR: CHARACTER,
}


class Node(NamedTuple):
    """A file, directory, link or device as it stands in a tree, before it is read.

    Attributes
    ----------
    path
        Below the root, with ``/`` between the parts; ``.`` is the root.
    kind
        ``d``, ``f``, ``l``, ``p``, ``s``, ``b`` or ``c``, as ``find -type`` says.
    mode
        Permission bits, with set-id and sticky bits.
    size
        Bytes of a file; 0 of anything else.
    detail
        Where a link leads, or the ``major,minor`` of a device; else empty.
    """

    path: bytes
    kind: str
    mode: int
    size: int = 0
    detail: bytes = b""


class Tree(Protocol):
    """Files below a root."""

    def nodes(self) -> Sequence[Node]:
        """Return all that there is, the root included, in no order."""
        ...

    def read(self, path: bytes) -> bytes:
        """Return what a regular file holds; links in `path` are not followed."""
        ...

    def sha256(self, node: Node) -> str:
        """Return the digest of what a regular file holds; several threads may ask."""
        ...


class DirectoryTree:
    """A tree in a directory, such as Apptainer's sandbox.

    Parameters
    ----------
    root
        The directory.

    Raises
    ------
    PrerequisiteError
        By every method, for what is not there or cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)

    def nodes(self) -> Sequence[Node]:
        """Return all that there is, the root included, in no order."""
        try:
            status = os.stat(self._root)  # noqa: PTH116 - the name is bytes
            top = Node(b".", DIRECTORY, stat.S_IMODE(status.st_mode))
            return [top, *_walk(self._root, b"")]
        except OSError as error:
            raise _unreadable(error) from error

    def read(self, path: bytes) -> bytes:
        """Return what a regular file holds; links in `path` are not followed."""
        try:
            with open(self._place(path), "rb") as file:  # noqa: PTH123 - the name is bytes
                return file.read()
        except OSError as error:
            raise _unreadable(error) from error

    def sha256(self, node: Node) -> str:
        """Return the digest of what a regular file holds; several threads may ask."""
        try:
            return _digest(self._place(node.path))
        except OSError as error:
            raise _unreadable(error) from error

    def _place(self, path: bytes) -> bytes:
        return self._root + b"/" + path


def kind_of(mode: int) -> str:
    """Return the kind that a mode's type bits stand for."""
    return _KINDS[stat.S_IFMT(mode)]


def _walk(directory: bytes, prefix: bytes) -> Iterator[Node]:
    """Tell what is in a directory; an explicit stack, since trees may be deeper than Python's."""
    pending = [(directory, prefix)]
    while pending:
        directory, prefix = pending.pop()
        with os.scandir(directory) as found:
            for entry in found:
                node = _node(entry, prefix)
                if node.kind == DIRECTORY:
                    pending.append((entry.path, node.path + b"/"))
                yield node


def _node(entry: os.DirEntry[bytes], prefix: bytes) -> Node:
    status = entry.stat(follow_symlinks=False)
    kind, mode = kind_of(status.st_mode), stat.S_IMODE(status.st_mode)
    path = prefix + entry.name
    if kind == FILE:
        return Node(path, kind, mode, status.st_size)
    if kind == LINK:
        return Node(path, kind, mode, 0, os.readlink(entry.path))  # noqa: PTH115
    if kind in (BLOCK, CHARACTER):
        numbers = f"{os.major(status.st_rdev)},{os.minor(status.st_rdev)}"
        return Node(path, kind, mode, 0, numbers.encode())
    return Node(path, kind, mode)


def _digest(path: bytes) -> str:
    """Hash a file; `hashlib.file_digest` takes thrice as long for the small ones."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, CHUNK_BYTES)
        digest = hashlib.sha256(data)
        while len(data) == CHUNK_BYTES:
            data = os.read(descriptor, CHUNK_BYTES)
            digest.update(data)
        return digest.hexdigest()
    finally:
        os.close(descriptor)


def _unreadable(error: OSError) -> PrerequisiteError:
    name = os.fsdecode(error.filename) if error.filename else "a file"
    return PrerequisiteError(f"cannot read {name}: {error.strerror}", "Check its permissions.")
