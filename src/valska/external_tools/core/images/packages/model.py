"""A package: what every package manager knows of one."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEB, RPM, APK, PYTHON, CONDA = "deb", "rpm", "apk", "python", "conda"
PYTHON_ITSELF = "Python"
"""Stands among an image's Python packages for the interpreter."""

_LIBRARY = re.compile(r"(?:^|/)lib(?:64)?/python3?(?:\.\d+t?)?/(?:site|dist)-packages$")
_SEPARATORS = re.compile(r"[-_.]+")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package.

    Parameters
    ----------
    ecosystem
        ``deb``, ``rpm``, ``apk``, ``python`` or ``conda``.
    name, version
        As its manager has them.
    place
        Where it is below the image's root: the directory of a Python package, the prefix of a
        conda package; empty for the system's.
    architecture
        Of a system package.
    licences
        As its metadata names them: SPDX expressions or free words.
    source
        Source package that a system package is built from, with ``@version`` where it differs.
    build, channel
        Of a conda package.
    sha256
        Of the package file, where it is kept.
    metadata
        The file that this was read from, below the root.
    """

    ecosystem: str
    name: str
    version: str
    place: str = ""
    architecture: str | None = None
    licences: tuple[str, ...] = ()
    source: str | None = None
    build: str | None = None
    channel: str | None = None
    sha256: str | None = None
    metadata: bytes = b""

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays when a package is upgraded: ecosystem, prefix and normalised name."""
        return self.ecosystem, prefix_of(self.place), normalised(self.ecosystem, self.name)

    def sort_key(self) -> tuple[str, ...]:
        """Return what packages are sorted by."""
        return (self.ecosystem, self.place, self.name, self.architecture or "", self.version)


def prefix_of(place: str) -> str:
    """Return the prefix of a Python environment, so that it survives another minor version."""
    return _LIBRARY.sub("", place)


def normalised(ecosystem: str, name: str) -> str:
    """Return a name in the one spelling that its ecosystem compares."""
    return _SEPARATORS.sub("-", name).lower() if ecosystem == PYTHON else name
