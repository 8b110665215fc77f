"""Which package a file belongs to, as the package managers themselves have it."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from valska.external_tools.core.images.packages.conda import load_object, text_of
from valska.external_tools.core.images.packages.model import (
    APK,
    CONDA,
    DEB,
    PYTHON,
    Package,
    normalised,
)
from valska.external_tools.core.images.packages.system import (
    APK_INSTALLED,
    DPKG_STATUS_DIRECTORY,
)
from valska.external_tools.core.images.tree import DIRECTORY, FILE, LINK, Node, Tree

Key = tuple[str, str, str]
"""A package's `key`: ecosystem, prefix and normalised name."""

_DPKG_INFO = re.compile(rb"var/lib/dpkg/info/(?P<name>[a-z0-9][a-z0-9+.-]*)(?::\w+)?\.[a-z0-9]+")
_BYTE_CODE = re.compile(
    rb"(?P<directory>(?:.*/)?)__pycache__/(?P<name>[^/]+?)\.[a-z]+-\d+t?[^/]*\.pyc"
)
_IN_ENVIRONMENT = re.compile(
    rb"(?P<place>(?:.*/)?(?:site|dist)-packages)/(?P<top>[^/]+?)"
    rb"(?:-[^-/]+\.(?:dist|egg)-info|\.libs|\.py)?(?:/.*)?"
)


def read_owners(tree: Tree, packages: Iterable[Package]) -> dict[bytes, Key]:
    """Return the package that each file belongs to; of several, the system's, then conda's.

    Parameters
    ----------
    tree
        The files.
    packages
        What `read_packages` found in it.

    Raises
    ------
    PrerequisiteError
        If a part of the tree cannot be read.
    """
    nodes = tree.nodes()
    files = {node.path for node in nodes if node.kind == FILE}
    directories = {node.path for node in nodes if node.kind == DIRECTORY}
    links = {node.path: node.detail for node in nodes if node.kind == LINK}
    owned: dict[bytes, Key] = {}
    for pairs in (
        _python_files(tree, files, packages),
        _conda_files(tree, packages),
        _apk_files(tree, files),
        _dpkg_files(tree, nodes),
    ):
        owned |= {_real(path, links): key for path, key in pairs}
    return {path: key for path, key in owned.items() if path not in directories}


def guess_owner(path: bytes, packages: Callable[[Key], bool]) -> Key | None:
    """Return the package that a file belongs to by its name alone.

    Parameters
    ----------
    path
        Of the file.
    packages
        Tells whether there is such a package.
    """
    match = _DPKG_INFO.fullmatch(path)
    if match:
        key = (DEB, "", match["name"].decode())
        return key if packages(key) else None
    match = _IN_ENVIRONMENT.fullmatch(path)
    if match:
        place, top = os.fsdecode(match["place"]), os.fsdecode(match["top"])
        key = Package(PYTHON, top, "", place).key
        return key if packages(key) else None
    return None


def source_of(path: bytes) -> bytes | None:
    """Return the source that byte-code in a ``__pycache__`` was made from."""
    match = _BYTE_CODE.fullmatch(path)
    return match["directory"] + match["name"] + b".py" if match else None


def _python_files(
    tree: Tree, files: set[bytes], packages: Iterable[Package]
) -> Iterator[tuple[bytes, Key]]:
    """Yield what the ``RECORD`` of each Python package lists, and the files of its metadata."""
    for package in packages:
        if package.ecosystem != PYTHON or not package.metadata:
            continue
        yield package.metadata, package.key
        record = posixpath.join(posixpath.dirname(package.metadata), b"RECORD")
        if record not in files:
            continue
        text = tree.read(record).decode("utf-8", errors="surrogateescape")
        for name in _recorded(text):
            place = f"{package.place}/{name}" if package.place else name
            yield os.fsencode(posixpath.normpath(place).lstrip("/")), package.key


def _recorded(text: str) -> Iterator[str]:
    """Yield the files that a ``RECORD`` names, up to where it is none."""
    with suppress(csv.Error):
        yield from (row[0] for row in csv.reader(io.StringIO(text)) if row)


def _conda_files(tree: Tree, packages: Iterable[Package]) -> Iterator[tuple[bytes, Key]]:
    for package in packages:
        if package.ecosystem != CONDA or not package.metadata:
            continue
        yield package.metadata, package.key
        names = load_object(tree.read(package.metadata)).get("files")
        for name in names if isinstance(names, list) else ():
            yield os.fsencode(posixpath.join(package.place, text_of(name))), package.key


def _apk_files(tree: Tree, files: set[bytes]) -> Iterator[tuple[bytes, Key]]:
    place = next((path for path in APK_INSTALLED if path in files), None)
    name = directory = b""
    for line in tree.read(place).splitlines() if place else ():
        field, _, value = line.partition(b":")
        if field == b"P":
            name = value
        elif field == b"F":
            directory = value
        elif field == b"R":
            yield posixpath.join(directory, value), (APK, "", os.fsdecode(name))


def _dpkg_files(tree: Tree, nodes: Sequence[Node]) -> Iterator[tuple[bytes, Key]]:
    for node in nodes:
        match = _DPKG_INFO.fullmatch(node.path) if node.kind == FILE else None
        if match:
            key = (DEB, "", os.fsdecode(match["name"]))
            yield node.path, key
            if node.path.endswith(b".list"):
                for line in tree.read(node.path).splitlines():
                    yield line.lstrip(b"/"), key
        elif node.kind == FILE and node.path.startswith(DPKG_STATUS_DIRECTORY):
            yield from _distroless_files(tree, node.path)


def _distroless_files(tree: Tree, path: bytes) -> Iterator[tuple[bytes, Key]]:
    """Yield the files of a package in an image without dpkg, which has its digests only."""
    name = path.removeprefix(DPKG_STATUS_DIRECTORY).removesuffix(b".md5sums")
    key = (DEB, "", normalised(DEB, os.fsdecode(name)))
    yield path, key
    if path.endswith(b".md5sums"):
        for line in tree.read(path).splitlines():
            yield line.partition(b"  ")[2].lstrip(b"/"), key


def _real(path: bytes, links: Mapping[bytes, bytes]) -> bytes:
    """Return a path below ``usr`` where its first part is a link thereto, as ``/lib`` may be."""
    first, slash, rest = path.partition(b"/")
    target = links.get(first, b"")
    return target.lstrip(b"/") + slash + rest if slash and target.endswith(first) else path
