"""What was unpacked of an archive, read from the disk as an archive is read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from valska.external_tools.core.archive import bag, places
from valska.external_tools.core.archive.contents import Contents, Entry
from valska.external_tools.core.archive.entries import DEEPEST, UNUSABLE, name_of, on_disk
from valska.external_tools.core.archive.reading import MOST_DOCUMENT_BYTES, MOST_DOCUMENTS_BYTES
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.digests import digest_files
from valska.external_tools.core.seal import Finding, FindingKind
from valska.external_tools.core.utils import sha256_bytes

CHANGING = (f"{places.BUNDLE}/site.env", f"{places.BUNDLE}/jobs.json")
"""What `valska submit` writes anew; so small that it is always read."""

_PASSING = re.compile(
    rf"{places.BUNDLE}/(?:\.submit\.lock|(?:.+/)?\.nfs[^/]*"
    r"|\.(?:site\.env|sweep_manifest\.json|jobs[0-9TZ_-]*\.json)\.[0-9a-f]{12}\.tmp)"
)
"""What comes and goes where jobs are submitted and run."""


@dataclass(slots=True)
class OnDisk:
    """What a directory holds.

    Parameters
    ----------
    contents
        What is in it.
    findings
        What of it cannot be read, or has a name that no archive has.
    unread
        Paths of what cannot be read; of a directory, so is all that is in it.
    """

    contents: Contents = field(default_factory=Contents)
    findings: list[Finding] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)

    def is_unread(self, name: str) -> bool:
        """Return whether a file, or a directory that it is in, cannot be read."""
        while name and name not in self.unread:
            name = name.rpartition("/")[0]
        return bool(name)


def read_directory(
    path: Path,
    *,
    fast: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> OnDisk:
    """Read what was unpacked of an archive.

    Parameters
    ----------
    path
        The directory.
    fast
        Digest only what is read to check the rest.
    progress
        Told the bytes that were read, and all.
    """
    found = OnDisk()
    for name, entry in _walk(os.fspath(path), found):
        found.contents.entries[name] = entry
    _read_documents(path, found)
    _pass_over(found)
    left = [
        name
        for name, entry in found.contents.entries.items()
        if entry.kind is Kind.FILE
        and entry.sha256 is None
        and name not in found.unread
        and (not fast or name in CHANGING)
    ]
    _digest(path, found, left, progress)
    return found


def _walk(root: str, found: OnDisk) -> Iterator[tuple[str, Entry]]:
    """Yield everything below a directory; no link is followed, nothing special is opened."""
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in _listed(root, folder, found):
            name = f"{folder}/{name_of(entry.name)}".removeprefix("/")
            if UNUSABLE.search(name) or name.count("/") + 2 > DEEPEST:
                detail = "no archive has such a name"
                found.findings.append(Finding(FindingKind.UNEXPECTED, repr(name)[1:-1], detail))
                continue
            try:
                made = _entry(entry)
            except FileNotFoundError:
                continue
            except OSError as error:
                if not _PASSING.fullmatch(name):
                    _unreadable(found, name, error.strerror or "")
                continue
            if made.kind is Kind.DIRECTORY and not _PASSING.fullmatch(name):
                folders.append(name)
            yield name, made


def _pass_over(found: OnDisk) -> None:
    """Leave out what comes and goes, but for what was packed."""
    passing = {name for name in found.contents.entries if _PASSING.fullmatch(name)}
    if not passing:
        return
    try:
        listed = bag.parse_manifest(found.contents.documents[places.MANIFEST])
    except (KeyError, bag.BagError):
        listed = {}
    for name in passing - listed.keys():
        del found.contents.entries[name]


def _listed(root: str, folder: str, found: OnDisk) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(f"{root}/{on_disk(folder)}") as entries:
            return list(entries)
    except OSError as error:
        if folder:
            _unreadable(found, folder, f"cannot be listed: {error.strerror}")
            return []
        raise


def _entry(entry: os.DirEntry[str]) -> Entry:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return Entry(Kind.LINK, link=name_of(os.readlink(entry.path)))  # noqa: PTH115
    if stat.S_ISDIR(status.st_mode):
        return Entry(Kind.DIRECTORY)
    if stat.S_ISREG(status.st_mode):
        return Entry(Kind.FILE, status.st_size)
    return Entry(Kind.OTHER)


def _unreadable(found: OnDisk, name: str, detail: str) -> None:
    found.findings.append(Finding(FindingKind.UNREADABLE, name, detail))
    found.unread.add(name)


def _read_documents(path: Path, found: OnDisk) -> None:
    left = MOST_DOCUMENTS_BYTES
    for name, entry in found.contents.entries.items():
        if entry.kind is not Kind.FILE or not places.is_document(name):
            continue
        left -= entry.size
        if entry.size > MOST_DOCUMENT_BYTES or left < 0:
            _unreadable(found, name, "it is too large")
            continue
        try:
            data = (path / on_disk(name)).read_bytes()
        except OSError as error:
            _unreadable(found, name, error.strerror or "")
            continue
        found.contents.documents[name] = data
        entry.size, entry.sha256 = len(data), sha256_bytes(data)


def _digest(
    path: Path, found: OnDisk, names: list[str], progress: Callable[[int, int], None]
) -> None:
    entries = found.contents.entries
    total, done = sum(entries[name].size for name in names), 0
    digests = digest_files([f"{path}/{on_disk(name)}" for name in names])
    for name, digest in zip(names, digests, strict=True):
        done += entries[name].size
        if isinstance(digest, str):
            entries[name].sha256 = digest
        elif isinstance(digest, FileNotFoundError):
            del entries[name]
        else:
            _unreadable(found, name, digest.strerror or "")
        progress(done, total)
