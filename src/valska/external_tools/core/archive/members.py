"""What goes into an archive, file by file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive.entries import DEEPEST, UNUSABLE, name_of
from valska.external_tools.core.archive.errors import ArchiveError
from valska.external_tools.core.archive.tar import Kind

FILE_MODE = 0o644
PROGRAM_MODE = 0o755
DIRECTORY_MODE = 0o755
LINK_MODE = 0o777


class NotPackableError(ArchiveError):
    """Something in a bundle has no place in an archive: a name, a link, a pipe."""

    exit_code = 2


@dataclass(slots=True)
class Member:
    """One entry of an archive that is to be written.

    Parameters
    ----------
    name
        Its path there, below the archive's one directory.
    kind
        File, directory or symbolic link.
    size
        Bytes.
    mode
        Permissions.
    source
        The file to read; None for what is made while packing.
    data
        The content of what is made while packing.
    link
        Target of a link.
    stamp
        Time of change (ns) and inode of `source` when it was looked at.
    """

    name: str
    kind: Kind
    size: int = 0
    mode: int = FILE_MODE
    source: str | None = None
    data: bytes | None = None
    link: str = ""
    stamp: tuple[int, int] = (0, 0)


def made(name: str, data: bytes) -> Member:
    """Return a member whose content is known."""
    return Member(name, Kind.FILE, len(data), data=data)


def directory(name: str) -> Member:
    """Return a directory."""
    return Member(name, Kind.DIRECTORY, mode=DIRECTORY_MODE)


def file_member(name: str, path: str) -> Member:
    """Return a file that lies somewhere; a symbolic link to one is followed.

    Raises
    ------
    OSError
        If it is not there.
    NotPackableError
        If it is no regular file.
    """
    real = os.path.realpath(path)
    return _file(name, real, Path(real).lstat())


def walk(
    root: str, place: str, wanted: Callable[[str], bool] = lambda path: True
) -> Iterator[Member]:
    """Yield everything below a directory, sorted bytewise by path.

    Parameters
    ----------
    root
        The directory.
    place
        Its name in the archive.
    wanted
        Says of a path relative to `root` whether it is wanted; a directory is asked for before
        what is in it.

    Raises
    ------
    NotPackableError
        If a name cannot be packed, or something is neither a file nor a directory nor a link
        within `root`.
    ArchiveError
        If something cannot be read.
    """
    try:
        yield from _below(root, place, root, "", wanted)
    except OSError as error:
        raise ArchiveError(
            f"cannot read {error.filename}: {error.strerror}", "Check its permissions."
        ) from error


def _below(
    root: str, place: str, folder: str, prefix: str, wanted: Callable[[str], bool]
) -> Iterator[Member]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=_key)
    for entry in entries:
        path = prefix + name_of(entry.name)
        if not wanted(path):
            continue
        if UNUSABLE.search(path):
            raise NotPackableError(
                f"{path!r} is not usable as a name in an archive: it has control characters, or "
                "is not UTF-8",
                "Rename it.",
            )
        name = f"{place}/{path}"
        if name.count("/") + 2 > DEEPEST:
            raise NotPackableError(
                f"{entry.path} lies too deep for an archive, whose names have at most {DEEPEST} "
                "parts",
                "Move it up.",
            )
        if entry.is_symlink():
            yield _link(root, name, entry.path)
        elif entry.is_dir(follow_symlinks=False):
            yield directory(name)
            yield from _below(root, place, entry.path, f"{path}/", wanted)
        else:
            yield _file(name, entry.path, entry.stat(follow_symlinks=False))


def _key(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def _file(name: str, path: str, status: os.stat_result) -> Member:
    if not stat.S_ISREG(status.st_mode):
        raise NotPackableError(
            f"{path} is neither a file nor a directory", "Only these, and links, can be packed."
        )
    mode = PROGRAM_MODE if status.st_mode & stat.S_IXUSR else FILE_MODE
    stamp = (status.st_mtime_ns, status.st_ino)
    return Member(name, Kind.FILE, status.st_size, mode, path, None, "", stamp)


def _link(root: str, name: str, path: str) -> Member:
    """Return a link that stays where it is packed and leads to a file."""
    target = os.readlink(path)  # noqa: PTH115 - there may be many
    place = os.path.dirname(os.path.relpath(path, root))  # noqa: PTH120
    whole = os.path.normpath(os.path.join(place, target))  # noqa: PTH118
    inside = not target.startswith("/") and not whole.startswith("..")
    text = name_of(target)
    if not inside or UNUSABLE.search(text) or not os.path.isfile(path):  # noqa: PTH113
        raise NotPackableError(
            f"{path} is a symbolic link to {target!r}, which is not a file below {root}",
            "Only a link to a file beside it can be packed; replace it by what it means.",
        )
    return Member(name, Kind.LINK, mode=LINK_MODE, link=text)
