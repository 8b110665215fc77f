"""Copies of large files, with the digest of what was copied."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import IO, Protocol

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.utils import CHUNK_BYTES


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, or fewer at the end."""


def copy_stream(source: Readable, target: IO[bytes]) -> str:
    """Copy all bytes, and return their SHA-256."""
    digest = sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> str:
    """Copy a file, and return the SHA-256 of what was copied.

    Raises
    ------
    ValskaError
        If it cannot be read, or the copy cannot be written.
    """
    try:
        with source.open("rb") as read, target.open("xb") as write:
            return copy_stream(read, write)
    except OSError as error:
        raise cannot_copy(source, target, error) from error


def cannot_copy(source: Path, target: Path, error: OSError) -> ValskaError:
    """Return the error that a copy failed."""
    return ValskaError(
        f"cannot copy {source.name} to {target.parent}: {error.strerror or error}",
        "Check the disk's free space and permissions.",
    )
