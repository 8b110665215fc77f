"""What a store holds for builds and runs without a network: bases, wheels, inputs, definitions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.utils import fsync_directory, sha256_file, umask, write_atomic

SHORT = 12
"""Digits of a digest that are enough for people."""

_IN_BASE = re.compile(r"blobs/sha256/[0-9a-f]{64}|index\.json|oci-layout")
_FOLDERS = re.compile(r"blobs(?:/sha256)?")


@dataclass(frozen=True, slots=True)
class Supplies:
    """Files beside the images of a store, each found by a digest.

    Parameters
    ----------
    root
        The store's directory.
    """

    root: Path

    @property
    def store(self) -> ImageStore:
        """The store itself."""
        return ImageStore(self.root)

    def base_place(self, digest: str) -> Path:
        """Return where the archive of a base is, or would be.

        Parameters
        ----------
        digest
            The 64 digits by which the base is pinned.
        """
        return self.store.bases / f"{digest}.oci.tar"

    def base(self, digest: str, platform: str | None = None) -> Path | None:
        """Return the archive of a base, or None where it is not here.

        Its content is read only if it has changed since it was read last.

        Parameters
        ----------
        digest
            The 64 digits by which the base is pinned.
        platform
            As ``linux/amd64``; this machine's, if not given.

        Raises
        ------
        VerificationError
            If it is not the base of this digest and platform.
        """
        from valska.external_tools.core.images.registry.client import this_platform

        path = self.base_place(digest)
        if not path.is_file():
            return None
        platform = platform or this_platform()
        receipt = path.with_name(f"{path.name}.receipt")
        with suppress(OSError):
            if receipt.read_text() == _receipt(path, digest, platform):
                return path
        check_base(path, digest, platform)
        with suppress(ValskaError):
            write_atomic(receipt, _receipt(path, digest, platform).encode())
        return path

    def wheels(self, digests: Iterable[str]) -> tuple[Path, ...]:
        """Return the files of packages that are here, of those with these digests."""
        return tuple(path for digest in sorted(set(digests)) for path in self._files_of(digest))

    def wheel_place(self, digest: str, name: str) -> Path:
        """Return where a package's file is, or would be."""
        return self.store.wheels / "sha256" / digest / name

    def input(self, digest: str) -> Path | None:
        """Return an input, or None where it is not here."""
        path = self.input_place(digest)
        return path if path.is_file() else None

    def input_place(self, digest: str) -> Path:
        """Return where an input is, or would be."""
        return self.store.inputs / digest

    def _files_of(self, digest: str) -> Iterator[Path]:
        directory = self.store.wheels / "sha256" / digest
        with suppress(OSError):
            yield from sorted(path for path in directory.iterdir() if path.name[0] != ".")


def check_base(path: Path, digest: str, platform: str) -> None:
    """Check that a file is the archive of a base, whole, and holds nothing else.

    Parameters
    ----------
    path
        The file.
    digest, platform
        See `Supplies.base`.

    Raises
    ------
    VerificationError
        If it is not.
    """
    from valska.external_tools.core.images.registry import archive
    from valska.external_tools.core.tarring import list_members

    for member in list_members(path, directories=_FOLDERS):
        if not _IN_BASE.fullmatch(member.name):
            raise VerificationError(f"{path} holds {member.name!r}, which no base does")
    archive.check_archive(path, f"sha256:{digest}", platform)


def _receipt(path: Path, digest: str, platform: str) -> str:
    """Return what is noted of a base that has been read, until the file changes."""
    status = path.stat()
    return f"{platform} {digest} {status.st_size} {status.st_mtime_ns} {status.st_ino}\n"


def put(made: Path, place: Path) -> None:
    """Move a finished file to its place, which is on the same file system.

    Raises
    ------
    ValskaError
        If the place cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.chmod(0o666 & ~umask())
        made.replace(place)
        fsync_directory(place.parent)
    except OSError as error:
        raise ValskaError(f"cannot write {place}: {error.strerror}") from error


def require_digest(path: Path, sha256: str) -> None:
    """Check a file against its digest.

    Raises
    ------
    VerificationError
        If it has another one.
    """
    if sha256_file(path) != sha256:
        raise VerificationError(
            f"{path} has been altered: its sha256 is not {sha256[:12]}…",
            "Remove it, and fetch or load it again.",
        )
