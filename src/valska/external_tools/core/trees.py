"""Directories that a run borrows: one digest of all their files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.digests import digest_files
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import BorrowedEntry

_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TreeDigest:
    """A directory in three numbers.

    Parameters
    ----------
    sha256
        Of the listing that ``sha256sum`` prints of all its files, by their paths in it and sorted
        bytewise.
    files
        How many files.
    size
        Their bytes.
    """

    sha256: str
    files: int
    size: int


def digest_tree(path: Path) -> TreeDigest:
    """Return the digest of a directory, reading several of its files at once.

    Raises
    ------
    UsageError
        If it cannot be read, or holds what is neither file nor directory (a link, say), or a
        name with a control character or a backslash.
    """
    sizes = tree_sizes(path)
    names = sorted(sizes, key=os.fsencode)
    lines = "".join(f"{d}  {name}\n" for d, name in zip(_digests(path, names), names, strict=True))
    sha256 = hashlib.sha256(lines.encode()).hexdigest()
    return TreeDigest(sha256, len(names), sum(sizes.values()))


def _digests(path: Path, names: Iterable[str]) -> Iterator[str]:
    for digest in digest_files([f"{path}/{name}" for name in names]):
        if isinstance(digest, OSError):
            raise _unreadable(path, digest) from digest
        yield digest


def tree_sizes(path: Path) -> dict[str, int]:
    """Return the bytes of each file in a directory, by its path there.

    Raises
    ------
    UsageError
        See `digest_tree`.
    """
    try:
        return dict(_files(path, ""))
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UsageError:
    place = error.filename or path
    return UsageError(f"{place} cannot be read: {error.strerror}", "Check its permissions.")


def _files(root: Path, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(root / prefix) as found:
        for entry in found:
            name = prefix + entry.name
            if _UNUSABLE.search(name):
                raise UsageError(f"{name!r} in {root} is not usable as a file name", "Rename it.")
            if entry.is_dir(follow_symlinks=False):
                yield from _files(root, f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                yield name, entry.stat().st_size
            else:
                raise UsageError(
                    f"{root / name} is neither a file nor a directory",
                    "A run cannot borrow it; copy the directory with cp -RL.",
                )


def check_borrowed(borrowed: Mapping[str, Path]) -> None:
    """Check, without reading them, that borrowed directories are there.

    Raises
    ------
    UsageError
        If one is no directory.
    """
    for path in borrowed.values():
        if not path.is_dir():
            raise UsageError(f"no such directory: {path}", "Check the path.")


def borrow(borrowed: Mapping[str, Path]) -> tuple[BorrowedEntry, ...]:
    """Return what a manifest says of borrowed directories; reads all their files.

    Parameters
    ----------
    borrowed
        Place below ``outputs/`` to directory, see `RunPlan.borrowed`.

    Raises
    ------
    UsageError
        See `digest_tree`.
    """
    check_borrowed(borrowed)
    return tuple(
        BorrowedEntry(
            path=f"outputs/{place}",
            source=os.fspath(path.resolve()),
            sha256=tree.sha256,
            files=tree.files,
            size=tree.size,
        )
        for place, path in sorted(borrowed.items())
        for tree in (digest_tree(path),)
    )
