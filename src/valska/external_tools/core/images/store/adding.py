"""The moves that bring an image into the store, and back into it; each is whole or not done."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store.layout import Layout
from valska.external_tools.core.utils import umask


def place_image(sif: Path, target: Path) -> None:
    """Move an image to its place, durably; its mode follows the umask.

    Raises
    ------
    ValskaError
        If the store cannot be written.
    """
    try:
        sif.chmod(0o777 & ~umask())
        _flush(sif)
        target.parent.mkdir(parents=True, exist_ok=True)
        sif.replace(target)
    except OSError as error:
        raise ValskaError(
            f"cannot write {target}: {error.strerror}",
            "Check the disk's free space and permissions.",
        ) from error


def tells_as_much(new: ImageRecord, old: ImageRecord) -> bool:
    """Return whether a record of the same image may replace another one."""
    return new.origin == "built" or old.origin != "built"


def put_aside(layout: Layout, sha256: str) -> None:
    """Take an image out of sight; nothing of it is gone."""
    layout.record(sha256).rename(layout.aside(sha256))


def restore(layout: Layout, sha256: str) -> bool:
    """Put an image back that was put aside; remove what is left of one that was being removed.

    To be called by who holds the image, see `ImageStore.holding_image`.

    Returns
    -------
    bool
        Whether the image is back.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    aside = layout.aside(sha256)
    if not aside.exists():
        return False
    if not layout.sif(sha256).is_file():
        remove(layout, sha256)
        return False
    if layout.record(sha256).exists():
        aside.unlink()
    else:
        aside.rename(layout.record(sha256))
    return True


def remove(layout: Layout, sha256: str) -> None:
    """Remove an image that was put aside: first the image, last what was put aside.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    layout.sif(sha256).unlink(missing_ok=True)
    aside = layout.aside(sha256)
    for path in files_of(layout, sha256):
        if path != aside:
            path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        aside.unlink()


def files_of(layout: Layout, sha256: str) -> list[Path]:
    """Return all files of an image, sorted."""
    return sorted(layout.directory.glob(f"{sha256}*"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
