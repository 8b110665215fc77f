"""Time stamps, JSON files and digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from valska.external_tools.core.errors import ValskaError

CHUNK_BYTES = 1 << 20
_SMALL_BYTES = 1 << 16


def random_hex(size: int) -> str:
    """Return random bytes as hexadecimal digits, two for each byte."""
    return os.urandom(size).hex()


def utc_now_iso() -> str:
    """Return the time now as ISO 8601 in UTC, to the second (``2026-03-10T09:08:07Z``)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now_compact() -> str:
    """Return the time now as ``YYYYMMDDTHHMMSSZ``, for file names."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def write_json_atomic(path: Path, data: Mapping[str, Any], indent: int = 2) -> None:
    """Write JSON so that a crash at any point leaves the old file or the new one, whole.

    Parameters
    ----------
    path
        The file to write. Its directory must exist.
    data
        What to write; keys keep their order.
    indent
        Spaces per level.

    Raises
    ------
    ValskaError
        If the file cannot be written (full disk, no permission), or a value is not JSON.
    """
    try:
        text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
        encoded = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValskaError(f"cannot write {path}: {error}") from error
    write_atomic(path, encoded)


def write_atomic(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write bytes like `write_json_atomic` does; the mode follows the umask."""
    try:
        with replacing(path, mode) as file:
            file.write(data)
    except OSError as error:
        raise ValskaError(
            f"cannot write {path}: {error.strerror}", "Check the disk's free space and permissions."
        ) from error


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; put it in place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{random_hex(6)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make a rename in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """Return the bits that this process leaves out of the modes of new files."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ValskaError
        If the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValskaError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValskaError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValskaError(f"{path} does not hold a JSON object")
    return data


def package_directory(name: str) -> Path:
    """Return the directory of a package with data; `importlib.resources` takes longer to load."""
    return Path(import_module(name).__path__[0])


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb", buffering=0) as file:
        digest = hashlib.sha256(file.read(_SMALL_BYTES))
        if more := file.read(_SMALL_BYTES):
            digest.update(more)
            hashlib.file_digest(file, lambda: digest)
        return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
