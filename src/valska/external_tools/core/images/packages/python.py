"""Python packages: the metadata in every ``site-packages`` and ``dist-packages``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from email.parser import HeaderParser
from email.policy import compat32

from valska.external_tools.core.images.packages.model import (
    CONDA,
    DEB,
    PYTHON,
    Package,
    prefix_of,
)
from valska.external_tools.core.images.tree import FILE, Node, Tree

_METADATA = re.compile(
    rb"(?:(?P<place>.*)/)?[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)"
)
_ENVIRONMENT = re.compile(rb"(?:^|/)(?:site|dist)-packages(?:/|$)")
_PYVENV = re.compile(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", re.MULTILINE)
_PATCHLEVEL = re.compile(r'^#define\s+PY_VERSION\s+"([^"]+)"', re.MULTILINE)
_LIBRARY = re.compile(r"lib(?:64)?/python(3\.\d+t?)/")
_UPSTREAM = re.compile(r"(?:\d+:)?(\d+\.\d+\.\d+)")
_CLASSIFIER = "License :: "
_LONGEST_LICENCE = 64
"""Characters; some packages have the whole text in a field made for its name."""


def read_python(tree: Tree, nodes: Sequence[Node]) -> list[Package]:
    """Return the Python packages of every environment; what a package carries inside is its own."""
    found = []
    for node in nodes:
        match = _METADATA.fullmatch(node.path) if node.kind == FILE else None
        if match is None or _is_inside(match["place"] or b""):
            continue
        package = _package(tree.read(node.path), (match["place"] or b"").decode(errors="replace"))
        if package is not None:
            name, version, place, licences = package
            found.append(
                Package(PYTHON, name, version, place, licences=licences, metadata=node.path)
            )
    return found


def read_interpreters(
    tree: Tree, nodes: Sequence[Node], places: Iterable[str], others: Sequence[Package]
) -> dict[str, str]:
    """Return the version of Python of each place, where the files tell.

    Parameters
    ----------
    tree, nodes
        Where to look.
    places
        Directories of Python packages.
    others
        Packages of the system and of conda: Python may be one.
    """
    files = {node.path for node in nodes if node.kind == FILE}
    found = {}
    for place in sorted(places):
        version = _from_files(tree, files, place) or _from_packages(place, others)
        if version:
            found[place] = version
    return found


def _is_inside(place: bytes) -> bool:
    """Return whether a place is deeper than an environment's directory: within a package."""
    match = _ENVIRONMENT.search(place)
    return match is not None and match.end() != len(place)


def _package(data: bytes, place: str) -> tuple[str, str, str, tuple[str, ...]] | None:
    text = data.decode("utf-8", errors="replace")
    head = HeaderParser(policy=compat32).parsestr(text.split("\n\n", 1)[0])
    name, version = head["Name"], head["Version"]
    if not name or not version:
        return None
    given = (head["License-Expression"], head["License"])
    licence = next((word for word in given if _is_name(word)), None)
    names = head.get_all("Classifier", [])
    classified = [name.split(" :: ")[-1] for name in names if name.startswith(_CLASSIFIER)]
    return name, version, place, (licence,) if licence else tuple(sorted(set(classified)))


def _is_name(licence: str | None) -> bool:
    return bool(
        licence
        and licence.upper() != "UNKNOWN"
        and "\n" not in licence
        and len(licence) <= _LONGEST_LICENCE
    )


def _from_files(tree: Tree, files: set[bytes], place: str) -> str | None:
    prefix = prefix_of(place)
    start = f"{prefix}/" if prefix else ""
    sources = [(f"{start}pyvenv.cfg", _PYVENV)]
    match = _LIBRARY.search(place)
    if match:
        sources.append((f"{start}include/python{match[1]}/patchlevel.h", _PATCHLEVEL))
    for name, pattern in sources:
        if name.encode() in files:
            told = pattern.search(tree.read(name.encode()).decode(errors="replace"))
            if told:
                return told[1]
    return None


def _from_packages(place: str, others: Sequence[Package]) -> str | None:
    """Return the version of the Python that conda or Debian has put into a prefix."""
    prefix = prefix_of(place)
    for package in others:
        conda = package.ecosystem == CONDA and (package.name, package.place) == ("python", prefix)
        debian = package.ecosystem == DEB and prefix in ("usr", "usr/local")
        if conda or (debian and re.fullmatch(r"python3\.\d+-minimal", package.name)):
            match = _UPSTREAM.match(package.version)
            return match[1] if match else None
    return None
