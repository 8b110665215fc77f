"""A sandbox packed as an image: the same bytes for the same tree."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images import apptainer as programs
from valska.external_tools.core.images.building.canonical import METADATA, make_canonical
from valska.external_tools.core.images.building.metadata import inspect_metadata
from valska.external_tools.core.images.building.mksquashfs import Mksquashfs
from valska.external_tools.core.images.listing import Listing, list_tree
from valska.external_tools.core.images.packages import Packages, read_packages
from valska.external_tools.core.images.sif import Frame
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.utils import sha256_file

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True, slots=True)
class Packed:
    """An image as a file, and what was seen while it was made.

    Parameters
    ----------
    sif
        The file.
    sha256, size
        Of the file; size in bytes.
    rootfs_sha256
        Of the squashfs in it.
    listing
        Every file of the tree.
    packages
        What is installed in it.
    labels
        Its labels, without those that Apptainer adds.
    removed
        What was not packed, since it differs from build to build; relative to the root.
    """

    sif: Path
    sha256: str
    size: int
    rootfs_sha256: str
    listing: Listing
    packages: Packages
    labels: Mapping[str, str]
    removed: tuple[str, ...]


def pack_image(
    root: Path,
    sif: Path,
    *,
    definition: str,
    time: int,
    mksquashfs: Mksquashfs,
    ask: Callable[[Sequence[str]], str | None] | None = None,
    run: Run = run,
) -> Packed:
    """Make a sandbox canonical, and pack it.

    Parameters
    ----------
    root
        The sandbox, all of which belongs to this user; a file is made beside it.
    sif
        The image to write.
    definition
        The text to show as its definition.
    time
        Seconds since 1970: no file is newer.
    mksquashfs
        The program that packs.
    ask
        Runs a program in the sandbox, for packages that only a program can list.
    run
        Runs programs.

    Raises
    ------
    ValskaError
        If there is no space for it.
    PrerequisiteError
        If a part of the tree cannot be read.
    """
    with _explained():
        removed = make_canonical(root, time=time, definition=definition.encode())
        frame = Frame(definition.encode(), inspect_metadata(root, definition), time)
        listing, packages = list_tree(root), read_packages(root, ask)
        squashfs = root.with_name("root.squashfs")
        mksquashfs.pack(root, squashfs, time=time, run=run)
        digest = frame.write(squashfs, sif)
        rootfs = sha256_file(squashfs)
        squashfs.unlink()
    return Packed(
        sif=sif,
        sha256=digest,
        size=sif.stat().st_size,
        rootfs_sha256=rootfs,
        listing=listing,
        packages=packages,
        labels=_labels(root),
        removed=removed,
    )


def _labels(root: Path) -> dict[str, str]:
    path = root / METADATA / "labels.json"
    attributes: dict[str, Any] = {}
    if path.is_file():
        attributes["labels"] = json.loads(path.read_bytes())
    return programs.own_labels(attributes)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ValskaError(
                "the image was not packed: the disk is full",
                "Free some space: images go to the store ($VALSKA_IMAGES), a build unpacks in "
                "$TMPDIR.",
            ) from error
        name = os.fsdecode(error.filename) if error.filename else "a file"
        raise ValskaError(f"the image was not packed: {name}: {error.strerror}") from error
