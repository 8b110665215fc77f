"""The packages in an image, read from its files without running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.images.packages.conda import read_conda
from valska.external_tools.core.images.packages.model import (
    APK,
    CONDA,
    DEB,
    PYTHON,
    PYTHON_ITSELF,
    RPM,
    Package,
    prefix_of,
)
from valska.external_tools.core.images.packages.python import read_interpreters, read_python
from valska.external_tools.core.images.packages.system import (
    has_rpm,
    read_apk,
    read_distribution,
    read_dpkg,
    read_rpm,
)
from valska.external_tools.core.images.tree import DirectoryTree, Tree

MANAGERS = {DEB: "dpkg", RPM: "rpm", APK: "apk"}

Ask = Callable[[Sequence[str]], str | None]
"""Runs a program in the image and returns what it prints, or None if it fails."""


@dataclass(frozen=True, slots=True)
class Packages:
    """What is installed in an image.

    Parameters
    ----------
    all
        Sorted by ecosystem, place and name.
    interpreters
        Version of Python of each place with Python packages, where the files tell.
    distribution
        ``ID-VERSION_ID`` of ``os-release``, such as ``debian-12``.
    asked
        Whether a program in the image had to be run for some of them.
    """

    all: tuple[Package, ...] = ()
    interpreters: Mapping[str, str] | None = None
    distribution: str | None = None
    asked: bool = False

    def of(self, *ecosystems: str) -> tuple[Package, ...]:
        """Return the packages of some ecosystems."""
        return tuple(package for package in self.all if package.ecosystem in ecosystems)

    def to_json(self) -> dict[str, Any]:
        """Return what an image record has under ``packages``."""
        found: dict[str, Any] = {"python": self._python(), "system": self._system()}
        found["environments"] = self._environments()
        found["conda"] = [_conda_json(package) for package in self.of(CONDA)]
        found["read_from"] = "program" if self.asked else "files"
        return found

    def _python(self) -> dict[str, str] | None:
        """Return names and versions of all environments; the largest one's go before others'."""
        environments = sorted(self._environments(), key=lambda one: len(one["packages"]))
        found: dict[str, str] = {}
        for one in environments:
            found |= one["packages"]
            found |= {PYTHON_ITSELF: one["python"]} if one["python"] else {}
        return dict(sorted(found.items())) or None

    def _environments(self) -> list[dict[str, Any]]:
        places: dict[str, dict[str, str]] = {}
        for package in self.of(PYTHON):
            places.setdefault(package.place, {})[package.name] = package.version
        known = self.interpreters or {}
        return [
            {"place": place, "python": known.get(place), "packages": packages}
            for place, packages in sorted(places.items())
        ]

    def _system(self) -> dict[str, Any] | None:
        packages = self.of(*MANAGERS)
        if not packages:
            return None
        found: dict[str, str] = {}
        for package in packages:
            twice = package.name in found and package.architecture
            name = f"{package.name}:{package.architecture}" if twice else package.name
            found[name] = package.version
        return {
            "manager": MANAGERS[packages[0].ecosystem],
            "distribution": self.distribution,
            "packages": dict(sorted(found.items())),
        }


def read_packages(tree: Path | Tree, ask: Ask | None = None) -> Packages:
    """Return the packages in a tree.

    Those of dpkg, apk, pip and conda are read from their files; the database of rpm only rpm
    can read.

    Parameters
    ----------
    tree
        A sandbox's directory, or anything that is a tree.
    ask
        Runs a program in the image, for rpm; without it such an image has no system packages.

    Raises
    ------
    PrerequisiteError
        If a part of the tree cannot be read.
    """
    source = DirectoryTree(tree) if isinstance(tree, Path) else tree
    nodes = source.nodes()
    asked = ask is not None and has_rpm(nodes)
    answers = read_rpm(ask) if ask is not None and asked else ()
    system = (*read_dpkg(source, nodes), *read_apk(source, nodes), *answers)
    python = read_python(source, nodes)
    conda = read_conda(source, nodes)
    places = {package.place for package in python}
    return Packages(
        all=tuple(sorted((*system, *python, *conda), key=Package.sort_key)),
        interpreters=read_interpreters(source, nodes, places, (*system, *conda)),
        distribution=read_distribution(source, nodes),
        asked=asked,
    )


def recorded_packages(packages: Mapping[str, Any]) -> Packages:
    """Return what an image record says under ``packages``, by whatever minor version."""
    found = [*_recorded_system(packages.get("system") or {}), *_recorded_conda(packages)]
    environments = packages.get("environments") or ()
    for one in environments:
        found += _recorded_python(one["packages"], one["place"])
    if not environments:
        found += _recorded_python(packages.get("python") or {}, "")
    python = (packages.get("python") or {}).get(PYTHON_ITSELF)
    interpreters = {one["place"]: one["python"] for one in environments if one.get("python")}
    return Packages(
        all=tuple(sorted(found, key=Package.sort_key)),
        interpreters=interpreters or ({"": python} if python else None),
        distribution=(packages.get("system") or {}).get("distribution"),
        asked=packages.get("read_from") != "files",
    )


def _recorded_python(packages: Mapping[str, str], place: str) -> list[Package]:
    return [
        Package(PYTHON, name, version, place)
        for name, version in packages.items()
        if name != PYTHON_ITSELF
    ]


def _recorded_system(system: Mapping[str, Any]) -> list[Package]:
    ecosystems = {manager: ecosystem for ecosystem, manager in MANAGERS.items()}
    ecosystem = ecosystems.get(system.get("manager", ""), DEB)
    return [Package(ecosystem, name, version) for name, version in _items(system)]


def _items(system: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(system.get("packages", {}).items())


def _recorded_conda(packages: Mapping[str, Any]) -> list[Package]:
    return [
        Package(
            CONDA,
            one["name"],
            one["version"],
            one["place"],
            build=one.get("build"),
            channel=one.get("channel"),
        )
        for one in packages.get("conda") or ()
    ]


def _conda_json(package: Package) -> dict[str, Any]:
    names = ("name", "version", "build", "channel", "place")
    return {name: getattr(package, name) for name in names}


__all__ = [
    "APK",
    "CONDA",
    "DEB",
    "PYTHON",
    "PYTHON_ITSELF",
    "RPM",
    "Ask",
    "Package",
    "Packages",
    "prefix_of",
    "read_packages",
    "recorded_packages",
]
