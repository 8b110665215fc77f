"""Staging: how an input gets into a bundle, and what is written down of it."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.manifest import InputEntry
from valska.external_tools.core.run_directory import check_place
from valska.external_tools.core.tool import Input
from valska.external_tools.core.utils import CHUNK_BYTES, sha256_file

logger = logging.getLogger(__name__)

COPY_LIMIT_BYTES = 1 << 30
"""Larger inputs are referenced, unless the user says how to stage them."""

_FICLONE = 0x40049409
"""ioctl of Linux that shares a file's blocks, see ioctl_ficlone(2)."""


class StagingMode(StrEnum):
    """How an input is staged."""

    COPY = "copy"
    """The bundle holds the file."""
    LINK = "link"
    """The bundle holds the file, sharing its blocks or its inode."""
    REFERENCE = "reference"
    """The file stays where it is; the bundle holds its digest and an empty placeholder."""


def stage_input(
    item: Input, inputs: Path, mode: StagingMode | None = None, copy_limit: int = COPY_LIMIT_BYTES
) -> InputEntry:
    """Stage one input.

    Parameters
    ----------
    item
        The input.
    inputs
        The bundle's directory of inputs.
    mode
        How; by size, if not given.
    copy_limit
        Bytes above which an input is referenced by default.

    Raises
    ------
    UsageError
        If the input is missing, no regular file, or unreadable; if its place is not in `inputs`.
    ValskaError
        If it cannot be written (full disk), or changes while it is read.
    """
    size = _size_of(item)
    if item.own:
        mode = StagingMode.COPY
    if mode is None:
        mode = StagingMode.REFERENCE if size > copy_limit else StagingMode.COPY
    target = inputs / check_place(item.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if mode is StagingMode.REFERENCE:
        target.touch()
        digest = sha256_file(item.source)
    elif mode is StagingMode.LINK and _link(item.source, target):
        digest = sha256_file(target)
    else:
        digest = _copy(item.source, target)
    staged = item.source if mode is StagingMode.REFERENCE else target
    if staged.stat().st_size != size:
        raise ValskaError(f"{item.source} changed while it was staged", "Wait until it is whole.")
    return InputEntry(
        name=item.name,
        path=f"{inputs.name}/{item.target}",
        sha256=digest,
        size=size,
        mode=mode.value,
        source=os.fspath(item.source.resolve()),
    )


def _size_of(item: Input) -> int:
    path = item.source
    try:
        if path.is_dir():
            raise UsageError(
                f"input {item.name} is a directory: {path}", "Name the file, not its directory."
            )
        if not path.is_file():
            raise UsageError(f"input {item.name}: no such file: {path}", "Check the path.")
        with path.open("rb"):
            return path.stat().st_size
    except OSError as error:
        raise UsageError(
            f"input {item.name} cannot be read: {path}: {error.strerror}",
            "Check its permissions (ls -l).",
        ) from error


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                digest.update(chunk)
                writer.write(chunk)
    except OSError as error:
        raise ValskaError(
            f"cannot copy {source} into the bundle: {error.strerror}",
            "Free some space, or stage it with --inputs reference.",
        ) from error
    return digest.hexdigest()


def _link(source: Path, target: Path) -> bool:
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            fcntl.ioctl(writer, _FICLONE, reader.fileno())
    except OSError:
        target.unlink(missing_ok=True)
    else:
        return True
    try:
        target.hardlink_to(source.resolve())
    except OSError as error:
        logger.warning("cannot link %s (%s); it is copied", source, error.strerror)
        return False
    logger.warning("%s shares its inode with the bundle; do not write into it", source)
    return True
