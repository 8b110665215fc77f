"""Receipts: that a file had its digest, and how to see that it has not changed since."""

from __future__ import annotations

from pathlib import Path


def receipt_line(sif: Path, sha256: str) -> str:
    """Return what a job compares with ``stat -Lc '%s %Y %i'``, the digest before it."""
    status = sif.stat()
    return f"{sha256} {status.st_size} {int(status.st_mtime)} {status.st_ino}\n"
