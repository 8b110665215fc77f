"""One tree for one definition: what differs from build to build, and means nothing, goes.

Nothing here follows a symbolic link: the tree is what a build has left, and a link in it may lead
anywhere on this machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from valska.external_tools.core.images.building import bytecode
from valska.external_tools.core.images.building.bytecode import settle_bytecode

EMPTIED = ("tmp", "var/tmp", "dev", "var/lib/apt/lists")
"""Directories of which nothing is kept."""

FILES_EMPTIED = ("run", "var/cache", "var/log")
"""Directories of which the directories are kept."""

REMOVED = (
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-"),
    *("var/lib/dpkg/*-old", "var/lib/dpkg/lock*", "var/lib/systemd/random-seed"),
    *(
        "etc/ssh/ssh_host_*",
        "root/.cache",
        "root/.bash_history",
        "root/.python_history",
        "root/.wget-hsts",
    ),
    *(".dockerenv", "etc/.pwd.lock"),
)
BLANKED = (
    *("etc/machine-id", "var/lib/dbus/machine-id"),
    *("etc/hosts", "etc/resolv.conf", "etc/hostname"),
)
"""Files that are kept, but hold nothing: a container has its own of most of them."""

METADATA = ".singularity.d"
_LABELS = "labels.json"
_CHANGING_LABELS = re.compile(
    r"org\.label-schema\.(build-date|usage\.(apptainer|singularity)\.(version|deffile\..*))"
)
_SHADOW = "etc/shadow"
_DAY_S = 86400
_SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass(slots=True)
class _Canonical:
    """A tree in the making of being canonical."""

    root: Path
    time: int
    removed: list[str] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)
    linked: dict[int, int] = field(default_factory=dict)

    def note_time(self, path: str, status: os.stat_result) -> None:
        """Note when a source was changed, which another name of it may have settled already."""
        before = int(status.st_mtime)
        if status.st_nlink > 1:
            before = self.linked.setdefault(status.st_ino, before)
        self.times[path] = before

    def place(self, name: str) -> Path | None:
        """Return the place of a name; None where there is none, or a link stands in its way."""
        path = self.root
        for part in name.split("/"):
            path = path / part
            if path.is_symlink():
                return None
        return path if path.exists() else None

    def matches(self, pattern: str) -> Iterator[Path]:
        """Return what a name with a pattern in its last part stands for."""
        parent, _, name = pattern.rpartition("/")
        directory = self.place(parent) if parent else self.root
        if directory is not None and directory.is_dir():
            yield from sorted(directory.glob(name))

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a directory."""
        self.removed.append(os.fspath(path.relative_to(self.root)))
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def empty(self, name: str) -> None:
        """Remove all that is in a directory."""
        directory = self.place(name)
        if directory is not None and directory.is_dir():
            for path in sorted(directory.iterdir()):
                self.remove(path)

    def empty_files(self, name: str) -> None:
        """Remove all in a directory but the directories."""
        directory = self.place(name)
        if directory is None or not directory.is_dir():
            return
        for path in sorted(directory.iterdir()):
            if path.is_symlink() or not path.is_dir() or path.name == "partial":
                self.remove(path)
            else:
                self.empty_files(os.fspath(path.relative_to(self.root)))


def make_canonical(root: Path, *, time: int, definition: bytes) -> tuple[str, ...]:
    """Make a sandbox what every build of its definition makes it.

    Parameters
    ----------
    root
        The sandbox, all of which belongs to this user.
    time
        Seconds since 1970. No file is to be newer; directories have just this time.
    definition
        The text that Apptainer is to show as the image's definition.

    Returns
    -------
    tuple of str
        What was removed, relative to the root.

    Raises
    ------
    OSError
        If the tree cannot be changed.
    """
    tree = _Canonical(root, time)
    for name in EMPTIED:
        tree.empty(name)
    for name in FILES_EMPTIED:
        tree.empty_files(name)
    for pattern in REMOVED:
        for path in tree.matches(pattern):
            tree.remove(path)
    for name in BLANKED:
        _rewrite(tree, name, lambda _: b"")
    _rewrite(tree, _SHADOW, lambda text: _settle_shadow(text, time))
    _rewrite(tree, f"{METADATA}/{_LABELS}", _settle_labels)
    _rewrite(tree, f"{METADATA}/Singularity", lambda _: definition)
    _settle_entries(tree)
    return tuple(tree.removed)


def _rewrite(tree: _Canonical, name: str, change: Callable[[bytes], bytes]) -> None:
    path = tree.place(name)
    if path is None or not path.is_file():
        return
    before = path.read_bytes()
    after = change(before)
    if after != before:
        path.write_bytes(after)


def _settle_labels(text: bytes) -> bytes:
    """Drop the labels that tell of the build's time and place; sort the others."""
    try:
        labels = json.loads(text)
    except ValueError:
        return text
    return to_json({k: v for k, v in labels.items() if not _CHANGING_LABELS.fullmatch(k)})


def to_json(data: Mapping[str, object]) -> bytes:
    """Return JSON that depends on nothing but the data."""
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _settle_shadow(text: bytes, time: int) -> bytes:
    """Let no password have been changed after the given time."""
    day = time // _DAY_S

    def settle(line: bytes) -> bytes:
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and int(fields[2]) > day:
            fields[2] = b"%d" % day
        return b":".join(fields)

    return b"\n".join(settle(line) for line in text.split(b"\n"))


def _settle_entries(tree: _Canonical) -> None:
    """Walk over all that is left, once: kinds, modes, times, and byte-code."""
    pending, directories = [os.fspath(tree.root)], []
    while pending:
        directory = pending.pop()
        directories.append(directory)
        pending += _settle_directory(tree, directory)
    for directory in directories:
        os.utime(directory, (tree.time, tree.time))


def _settle_directory(tree: _Canonical, directory: str) -> list[str]:
    """Settle the entries of a directory, sources before byte-code; return its directories."""
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name.endswith(bytecode.SUFFIX))
    return [entry.path for entry in entries if _settle(tree, entry)]


def _settle(tree: _Canonical, entry: os.DirEntry[str]) -> bool:
    """Settle an entry; return whether it is a directory."""
    status = entry.stat(follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        tree.remove(Path(entry.path))
        return False
    if kind != stat.S_IFLNK and status.st_mode & _SET_ID:
        os.chmod(entry.path, stat.S_IMODE(status.st_mode) & ~_SET_ID)  # noqa: PTH101
    if kind == stat.S_IFDIR:
        return True
    if kind == stat.S_IFREG and not _settle_code(tree, entry.path):
        return False
    if entry.name.endswith(".py"):
        tree.note_time(entry.path, status)
    if status.st_mtime_ns > tree.time * 10**9:
        os.utime(entry.path, (tree.time, tree.time), follow_symlinks=False)
    return False


def _settle_code(tree: _Canonical, path: str) -> bool:
    """Return whether a file stays, which byte-code that is out of date does not."""
    if not path.endswith(bytecode.SUFFIX) or settle_bytecode(path, tree.time, tree.times):
        return True
    tree.remove(Path(path))
    return False
