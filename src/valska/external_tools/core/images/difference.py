"""How two images differ: package by package, and file by file, each told with its package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from valska.external_tools.core.images.contents import Contents
from valska.external_tools.core.images.listing import Entry, Listing
from valska.external_tools.core.images.packages import (
    CONDA,
    PYTHON,
    PYTHON_ITSELF,
    Package,
    Packages,
    prefix_of,
)
from valska.external_tools.core.images.packages.ownership import Key, guess_owner, source_of
from valska.external_tools.core.images.tree import DIRECTORY, FILE, Tree

IDENTICAL, SAME_FILES, DIFFERENT = "identical", "same files", "different"
ADDED, REMOVED, CHANGED, MODE = "added", "removed", "changed", "mode changed"
PACKAGE, APPTAINER, DATABASE, LOCK, OTHER = "package", "apptainer", "database", "lock", "other"
BYTE_CODE = "byte-code"

_BYTE_CODE_HEAD = 16
"""Bytes: a mark, flags, and the time and size of the source."""

_APPTAINER = re.compile(
    rb"\.singularity\.d(?:/.*)?|\.(?:exec|run|shell|test)|environment|singularity"
)
_DATABASE = re.compile(
    rb"var/lib/dpkg/(?:status|available|diversions|statoverride|triggers/.*)(?:-old)?"
    rb"|var/lib/apt/extended_states|(?:usr/)?lib/apk/db/.*"
    rb"|(?:var/lib|usr/lib/sysimage)/rpm/.*|(?:.*/)?conda-meta/history"
)


class Owner(NamedTuple):
    """What a file belongs to.

    Attributes
    ----------
    kind
        `PACKAGE`; `APPTAINER`, for what it puts into every image; `DATABASE`, of a package
        manager; `LOCK`, a copy of the hashed requirements; `BYTE_CODE` that says another time of
        its source and is the same otherwise; or `OTHER`.
    ecosystem, place, name
        Of the package.
    """

    kind: str
    ecosystem: str = ""
    place: str = ""
    name: str = ""


class PackageChange(NamedTuple):
    """A package that is not the same in both.

    Attributes
    ----------
    ecosystem, place, name
        Which package; `place` is a prefix below the root.
    before, after
        Versions; None where it is not there.
    """

    ecosystem: str
    place: str
    name: str
    before: str | None
    after: str | None


class FileChange(NamedTuple):
    """A file that is not the same in both.

    Attributes
    ----------
    path
        Below the root.
    change
        `ADDED`, `REMOVED`, `CHANGED` or `MODE` (where nothing else has changed).
    before, after
        The file in the listings.
    owner
        What it belongs to.
    """

    path: bytes
    change: str
    before: Entry | None
    after: Entry | None
    owner: Owner


@dataclass(frozen=True, slots=True)
class Difference:
    """How an image B differs from an image A.

    Parameters
    ----------
    level
        `IDENTICAL`: one SIF; `SAME_FILES`: packed or described otherwise; `DIFFERENT`.
    facts
        What was used to make them, where that differs: name, and what A and B have.
    packages
        That differ.
    files
        That differ; None where the files of one cannot be listed.
    """

    level: str
    facts: tuple[tuple[str, str | None, str | None], ...] = ()
    packages: tuple[PackageChange, ...] = ()
    files: tuple[FileChange, ...] | None = ()

    @property
    def same(self) -> bool:
        """Whether the images have the same files with the same modes."""
        return self.level != DIFFERENT

    def by_owner(self) -> dict[Owner, list[FileChange]]:
        """Return the files that differ by what they belong to: packages first."""
        found: dict[Owner, list[FileChange]] = {}
        for change in self.files or ():
            found.setdefault(change.owner, []).append(change)
        order = (PACKAGE, LOCK, OTHER, BYTE_CODE, DATABASE, APPTAINER)
        return dict(sorted(found.items(), key=lambda pair: (order.index(pair[0].kind), pair[0])))

    def to_json(self) -> dict[str, Any]:
        """Return the difference as JSON types; bytes that are not UTF-8 are escaped in paths."""
        return {
            "level": self.level,
            "same": self.same,
            "facts": [dict(zip(("name", "a", "b"), fact, strict=True)) for fact in self.facts],
            "packages": [change._asdict() for change in self.packages],
            "files": None if self.files is None else [_file_json(one) for one in self.files],
        }


def compare(a: Contents, b: Contents) -> Difference:
    """Return how image B differs from image A.

    What is not needed is not read: images with one digest are one image, and where the digests
    of the listings are equal, so are all files and packages.

    Raises
    ------
    PrerequisiteError
        If an image cannot be read.
    """
    facts = tuple(_facts(a, b))
    if a.sha256 is not None and a.sha256 == b.sha256:
        return Difference(IDENTICAL)
    if a.tree_sha256 is not None and a.tree_sha256 == b.tree_sha256:
        return Difference(SAME_FILES, facts)
    packages = compare_packages(a.packages, b.packages)
    files = None
    if a.listing is not None and b.listing is not None:
        files = tuple(_owned(_changed(a.listing, b.listing), a, b))
        packages = tuple(_without_carried(packages, a, b))
    return Difference(DIFFERENT, facts, packages, files)


def compare_packages(a: Packages, b: Packages) -> tuple[PackageChange, ...]:
    """Return the packages that are not the same in both, by ecosystem, place and name.

    A record of the first version does not say where Python packages are: then those of all places
    are taken together.
    """
    placed = all(_has_places(one) for one in (a, b) if one.of(PYTHON))
    before, after = _versions(a, placed), _versions(b, placed)
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if (old and old[1]) != (new and new[1]):
            name = (new or old or ("",))[0]
            found.append(PackageChange(key[0], key[1], name, old and old[1], new and new[1]))
    return tuple(found)


def _has_places(packages: Packages) -> bool:
    return any(package.place for package in packages.of(PYTHON))


def _versions(packages: Packages, placed: bool) -> dict[Key, tuple[str, str]]:
    """Return name and version by key; several versions of one key are joined."""
    found: dict[Key, list[Package]] = {}
    for package in _with_interpreters(packages, placed):
        found.setdefault(package.key, []).append(package)
    return {
        key: (same[0].name, ", ".join(sorted({_version(package) for package in same})))
        for key, same in found.items()
    }


def _with_interpreters(packages: Packages, placed: bool) -> Iterator[Package]:
    yield from (package for package in packages.all if placed or package.ecosystem != PYTHON)
    if placed:
        for place, version in (packages.interpreters or {}).items():
            yield Package(PYTHON, PYTHON_ITSELF, version, place)
    else:
        for name, version in (packages.to_json()["python"] or {}).items():
            yield Package(PYTHON, name, version)


def _version(package: Package) -> str:
    has_build = package.ecosystem == CONDA and package.build
    return f"{package.version} {package.build}" if has_build else package.version


def _without_carried(
    packages: Iterable[PackageChange], a: Contents, b: Contents
) -> Iterator[PackageChange]:
    """Leave out a Python package that came in another one, of conda or Debian, which is told."""
    told = list(packages)
    keys = {Package(one.ecosystem, one.name, "", one.place).key for one in told}
    carriers = {
        package.key: side.owners.get(package.metadata)
        for side in (a, b)
        for package in side.packages.of(PYTHON)
    }
    for change in told:
        key = Package(change.ecosystem, change.name, "", change.place).key
        carrier = carriers.get(key)
        if carrier in (None, key) or carrier not in keys:
            yield change


def _facts(a: Contents, b: Contents) -> Iterator[tuple[str, str | None, str | None]]:
    """Tell in what the two were made differently, as far as both have records."""
    if a.record is None or b.record is None:
        return
    left, right = _made_of(a), _made_of(b)
    for name, value in left.items():
        if value != right[name]:
            yield name, value, right[name]


def _made_of(contents: Contents) -> dict[str, str | None]:
    record = contents.record
    assert record is not None  # noqa: S101 - for the type checker; the caller knows
    epoch = record.source_date_epoch
    return {
        "name": record.name,
        "definition": _digest(record.definition),
        "lock": _digest(record.lock),
        "base": _digest(record.base),
        "build arguments": _pairs(record.build_arguments),
        "source date epoch": None if epoch is None else str(epoch),
        "labels": _pairs(record.labels),
        "Apptainer": record.apptainer_version,
        "mksquashfs": (record.squashfs or {}).get("version"),
        "mksquashfs options": " ".join((record.squashfs or {}).get("options") or ()) or None,
    }


def _digest(entry: Mapping[str, Any] | None) -> str | None:
    return entry.get("sha256") if entry else None


def _pairs(values: Mapping[str, str]) -> str | None:
    return " ".join(f"{name}={value}" for name, value in sorted(values.items())) or None


def _changed(a: Listing, b: Listing) -> Iterator[tuple[bytes, str, Entry | None, Entry | None]]:
    """Yield what differs; a directory that came or went with its files is not told apart."""
    before, after = a.by_path(), b.by_path()
    parents = {_parent(path) for path in {*before} ^ {*after}}
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if old is None or new is None:
            only = old or new
            if only is not None and only.kind == DIRECTORY and path in parents:
                continue
            yield path, REMOVED if new is None else ADDED, old, new
        else:
            yield path, MODE if old._replace(mode=new.mode) == new else CHANGED, old, new


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _owned(
    changes: Iterable[tuple[bytes, str, Entry | None, Entry | None]], a: Contents, b: Contents
) -> Iterator[FileChange]:
    names = {package.key: package.name for side in (a, b) for package in side.packages.all}
    locks = {_digest(side.record.lock) for side in (a, b) if side.record} - {None}
    for path, change, old, new in changes:
        if locks & {entry.detail for entry in (old, new) if entry}:
            owner = Owner(LOCK)
        elif change == CHANGED and _are_files(old, new) and _is_same_code(path, a.tree, b.tree):
            owner = Owner(BYTE_CODE)
        else:
            owner = _owner(path, old, new, a, b, names)
        yield FileChange(path, change, old, new, owner)


def _are_files(*entries: Entry | None) -> bool:
    return all(entry is not None and entry.kind == FILE for entry in entries)


def _is_same_code(path: bytes, a: Tree | None, b: Tree | None) -> bool:
    """Return whether two files are byte-code that differs in its head alone."""
    if a is None or b is None or source_of(path) is None:
        return False
    return a.read(path)[_BYTE_CODE_HEAD:] == b.read(path)[_BYTE_CODE_HEAD:]


def _owner(
    path: bytes,
    old: Entry | None,
    new: Entry | None,
    a: Contents,
    b: Contents,
    names: Mapping[Key, str],
) -> Owner:
    sides = [side for side, entry in ((b, new), (a, old)) if entry is not None]
    places = [place for place in (path, source_of(path)) if place]
    known = (side.owners.get(place) for place in places for side in sides)
    key = next((found for found in known if found), None) or guess_owner(path, names.__contains__)
    if key is not None:
        return Owner(PACKAGE, key[0], prefix_of(key[1]), names.get(key, key[2]))
    if _APPTAINER.fullmatch(path):
        return Owner(APPTAINER)
    return Owner(DATABASE if _DATABASE.fullmatch(path) else OTHER)


def _file_json(change: FileChange) -> dict[str, Any]:
    return {
        "path": change.path.decode(errors="backslashreplace"),
        "change": change.change,
        "owner": change.owner._asdict(),
        "before": _entry_json(change.before),
        "after": _entry_json(change.after),
    }


def _entry_json(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    detail = entry.detail
    return {
        "kind": entry.kind,
        "mode": f"{entry.mode:04o}",
        "size": entry.size,
        "detail": detail if isinstance(detail, str) else detail.decode(errors="backslashreplace"),
    }
