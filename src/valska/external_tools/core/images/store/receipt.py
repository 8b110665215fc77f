"""Digests of images, and receipts: that a file had its digest when it was last read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError, ValskaError, VerificationError
from valska.external_tools.core.utils import sha256_file, write_atomic


def receipt_line(sif: Path, sha256: str) -> str:
    """Return what a job compares with ``stat -Lc '%s %Y %i'``, the digest before it."""
    status = sif.stat()
    return f"{sha256} {status.st_size} {int(status.st_mtime)} {status.st_ino}\n"


def is_unchanged(sif: Path, receipt: Path, sha256: str) -> bool:
    """Return whether a file has the size, time and inode that it had when it was last read."""
    try:
        return receipt.read_bytes() == receipt_line(sif, sha256).encode()
    except OSError:
        return False


def require_digest(sif: Path, receipt: Path, sha256: str) -> None:
    """Read an image, and note in its receipt that it has its digest.

    Raises
    ------
    VerificationError
        If it has another one.
    PrerequisiteError
        If it is not there or cannot be read.
    """
    if digest_image(sif) != sha256:
        with suppress(OSError):
            receipt.unlink()
        raise VerificationError(
            f"{sif} has been altered: it does not have the digest of its name",
            "Build it again with --force, or import it again: it is replaced then.",
        )
    with suppress(ValskaError, OSError):
        write_receipt(sif, receipt, sha256)


def write_receipt(sif: Path, receipt: Path, sha256: str) -> None:
    """Note that an image's digest has been read, so that array tasks need not."""
    write_atomic(receipt, receipt_line(sif, sha256).encode())


def digest_image(path: Path) -> str:
    """Return the SHA-256 of an image.

    Raises
    ------
    PrerequisiteError
        If there is no such file, or it cannot be read.
    """
    try:
        if path.is_file():
            return sha256_file(path)
    except OSError as error:
        raise PrerequisiteError(
            f"cannot read the image {path}: {error.strerror}", "Check its permissions."
        ) from error
    raise PrerequisiteError(
        f"no such image: {path}", "Check the path, or build one with `valska build`."
    )
