"""Which entries of an archive are allowed: names, types, modes, and how many."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from dataclasses import dataclass

from valska.external_tools.core.archive.errors import HostileError
from valska.external_tools.core.archive.places import DATA
from valska.external_tools.core.archive.tar import Header, Kind

UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
"""Characters that no name in an archive has."""
DEEPEST = 100
"""Parts of a name."""

_SPECIAL_BITS = 0o7000
_LONGEST_PART = 255
_LONGEST = 4000
_SHORT = _LONGEST_PART // 4
_MOST_CHARACTERS = 1 << 28
_FREE_BYTES = 1 << 30


def name_of(name: str) -> str:
    """Return a name of the file system as it is in UTF-8, whatever the locale takes it for."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "surrogateescape")


def on_disk(name: str) -> str:
    """Return for the file system what has this name in UTF-8, whatever the locale."""
    return os.fsdecode(name.encode())


class EntryError(Exception):
    """An entry is not allowed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold.

    Parameters
    ----------
    size
        Bytes of all that is in it.
    count
        Number of entries, and of directories that only the names of others tell.
    ratio
        How many times its own size; of archives that hold more than 1 GiB.
    """

    size: int = 1 << 42
    count: int = 4_000_000
    ratio: int = 2_000


class Names:
    """Checks the entries of one archive as they come.

    Parameters
    ----------
    limits
        How much it may hold.

    Attributes
    ----------
    top
        The one directory in it.
    """

    def __init__(self, limits: Limits) -> None:
        self.top = ""
        self._limits = limits
        self._bytes = 0
        self._count = 0
        self._characters = 0
        self._kinds: dict[str, Kind] = {}
        self._implied: set[str] = set()
        self._folded: dict[str, str] = {}
        self._good_parents: set[str] = set()
        self._plain: set[str] = set()

    def add_bytes(self, size: int, packed: int) -> None:
        """Count what was decompressed.

        Parameters
        ----------
        size
            Bytes that came out.
        packed
            Bytes of the file that went in so far.

        Raises
        ------
        HostileError
            If it is too much: reading on is of no use.
        """
        self._bytes += size
        hint = "If you trust it, raise the limit: see `valska unpack --help`."
        if self._bytes > self._limits.size:
            raise HostileError(f"the archive holds more than {self._limits.size} bytes", hint)
        if self._bytes > max(_FREE_BYTES, self._limits.ratio * packed):
            raise HostileError(
                f"the archive unpacks to more than {self._limits.ratio} times its size", hint
            )

    def check(self, header: Header) -> str:
        """Return the path of an entry below the one directory; empty for that directory.

        Raises
        ------
        EntryError
            If the entry is not allowed.
        HostileError
            If there are too many.
        """
        self.count(header.name)
        name = self._checked(header)
        top, _, path = name.partition("/")
        if self.top and top != self.top:
            raise EntryError(f"{name!r} lies beside the directory {self.top!r}")
        if not path and header.kind is not Kind.DIRECTORY:
            raise EntryError(f"{name!r} lies beside the archive's directory")
        self.top = top
        if path:
            self._place(path, header)
        return path

    def _checked(self, header: Header) -> str:
        name = header.name
        if UNUSABLE.search(name):
            raise EntryError(f"{name[:200]!r} has control characters, or is not UTF-8")
        if header.kind is Kind.DIRECTORY:
            name = name.removesuffix("/")
        parent, _, last = name.rpartition("/")
        beside = parent in self._plain and last not in ("", ".", "..") and len(last) <= _SHORT
        if not beside:
            _check_path(name, repr(header.name[:200]))
            if parent and len(parent) < _LONGEST - _LONGEST_PART:
                self._plain.add(parent)
        if header.kind not in (Kind.FILE, Kind.DIRECTORY, Kind.LINK):
            raise EntryError(f"{header.name[:200]!r} is a {header.kind}")
        if header.mode & _SPECIAL_BITS:
            raise EntryError(f"{header.name[:200]!r} has set-id or sticky bits")
        return name

    def count(self, name: str) -> None:
        """Count what takes a place on the disk or a moment, and its name one in memory.

        Raises
        ------
        HostileError
            If there are too many.
        """
        self._count += 1
        self._characters += len(name)
        if self._count > self._limits.count:
            raise HostileError(
                f"the archive has more than {self._limits.count} entries",
                "If you trust it, raise the limit: see `valska unpack --help`.",
            )
        if self._characters > _MOST_CHARACTERS:
            raise HostileError(
                f"the names in the archive have more than {_MOST_CHARACTERS} characters",
                "Do not trust it.",
            )

    def _place(self, path: str, header: Header) -> None:
        if path in self._kinds:
            raise EntryError(f"{path!r} is in it twice")
        if path in self._implied and header.kind is not Kind.DIRECTORY:
            raise EntryError(f"{path!r} is both a directory and a {header.kind}")
        self._refuse_alike(path)
        parent = path.rpartition("/")[0]
        if parent not in self._good_parents:
            self._check_parents(parent)
        if header.kind is Kind.LINK:
            _check_link(path, header.link)
        self._kinds[path] = header.kind

    def _check_parents(self, parent: str) -> None:
        good, place = self._good_parents, parent
        good.add("")
        while place not in good:
            if self._kinds.get(place, Kind.DIRECTORY) is not Kind.DIRECTORY:
                raise EntryError(f"{place!r} is both a {self._kinds[place]} and a directory")
            if place not in self._kinds:
                self.count(place)
                self._refuse_alike(place)
                self._implied.add(place)
            place = place.rpartition("/")[0]
        place = parent
        while place not in good:
            good.add(place)
            place = place.rpartition("/")[0]

    def _refuse_alike(self, path: str) -> None:
        other = self._folded.setdefault(folded(path), path)
        if other != path:
            raise EntryError(f"{path!r} and {other!r} are one name on some file systems")


def folded(name: str) -> str:
    """Return what is the same of names that some file systems take for one."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name.casefold())


def _check_path(name: str, shown: str) -> None:
    if name.startswith("/"):
        raise EntryError(f"{shown} is an absolute path")
    parts = name.split("/")
    if ".." in parts:
        raise EntryError(f"{shown} leads out of the archive")
    if "" in parts or "." in parts:
        raise EntryError(f"{shown} is not a plain path")
    if len(name) > _LONGEST or any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise EntryError(f"{shown}… is too long")
    if len(parts) > DEEPEST:
        raise EntryError(f"{shown}… lies more than {DEEPEST} directories deep")


def _check_link(path: str, link: str) -> None:
    if not link or UNUSABLE.search(link) or len(link) > _LONGEST:
        raise EntryError(f"{path!r} is a link whose target has control characters, or none")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if link.startswith("/") or not target.startswith(f"{DATA}/"):
        raise EntryError(f"{path!r} is a link that leads out of the archive: {link!r}")
