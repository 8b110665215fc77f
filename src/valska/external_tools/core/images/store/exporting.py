"""Images out of the store: a directory or a tar file, which is a small store of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from valska.external_tools.core.errors import UsageError, ValskaError, VerificationError
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store.adding import files_of
from valska.external_tools.core.images.store.copying import copy_file
from valska.external_tools.core.images.store.imagestore import ImageStore
from valska.external_tools.core.images.store.layout import (
    ASIDE_SUFFIX,
    PUBLISHED_SUFFIX,
    RECEIPT_SUFFIX,
    SIF_SUFFIX,
)
from valska.external_tools.core.tarring import write_end, write_member
from valska.external_tools.core.utils import fsync_directory, random_hex, replacing, sha256_bytes

SUMS = "SHA256SUMS"
"""File of an export with the digest of every other one, as ``sha256sum`` writes it."""

_STAYS = (SIF_SUFFIX, RECEIPT_SUFFIX, PUBLISHED_SUFFIX, ASIDE_SUFFIX)


def export_images(store: ImageStore, records: Sequence[ImageRecord], target: Path) -> Path:
    """Copy images, with their records and all that belongs to them, out of the store.

    Parameters
    ----------
    store
        From where.
    records
        Of the images.
    target
        A file whose name ends in ``.tar``, or a directory; it must not be there. The same images
        give the same tar file.

    Returns
    -------
    pathlib.Path
        The target.

    Raises
    ------
    UsageError
        If the target is there.
    VerificationError
        If an image has been altered.
    ValskaError
        If it cannot be written.
    """
    refuse_taken(target)
    chosen = {record.sha256: record for record in records}
    small = dict(_small_files(store, sorted(chosen)))
    write = _write_tar if target.suffix == ".tar" else _write_directory
    try:
        write(store, sorted(chosen), small, target)
    except OSError as error:
        raise ValskaError(
            f"cannot write {target}: {error.strerror or error}",
            "Check its directory, the disk's free space and permissions.",
        ) from error
    return target


def refuse_taken(target: Path) -> None:
    """Refuse a target that is there.

    Raises
    ------
    UsageError
        If it is.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already", "Choose another name.")


def _small_files(store: ImageStore, digests: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of all but the images; their digests first."""
    found = {}
    for sha256 in digests:
        for path in files_of(store, sha256):
            if not path.name.endswith(_STAYS):
                found[f"sha256/{path.name}"] = path.read_bytes()
    sums = {name: sha256_bytes(data) for name, data in found.items()}
    sums |= {f"sha256/{sha256}{SIF_SUFFIX}": sha256 for sha256 in digests}
    yield SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    yield from found.items()


def _write_directory(
    store: ImageStore, digests: Sequence[str], small: dict[str, bytes], target: Path
) -> None:
    partial = target.with_name(f".{target.name}.{random_hex(6)}.partial")
    try:
        (partial / "sha256").mkdir(parents=True)
        for sha256 in digests:
            copied = copy_file(store.sif(sha256), partial / "sha256" / f"{sha256}{SIF_SUFFIX}")
            _require(store, sha256, copied)
        for name, data in small.items():
            (partial / name).write_bytes(data)
        partial.rename(target)
        fsync_directory(target.absolute().parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_tar(
    store: ImageStore, digests: Sequence[str], small: dict[str, bytes], target: Path
) -> None:
    with replacing(target) as file:
        for name, data in small.items():
            write_member(file, name, len(data), BytesIO(data))
        for sha256 in digests:
            with store.sif(sha256).open("rb") as sif:
                size = os.fstat(sif.fileno()).st_size
                packed = write_member(file, f"sha256/{sha256}{SIF_SUFFIX}", size, sif)
            _require(store, sha256, packed)
        write_end(file)


def _require(store: ImageStore, sha256: str, copied: str) -> None:
    if copied != sha256:
        raise VerificationError(
            f"{store.sif(sha256)} has been altered: it does not have the digest of its name",
            "Build it again with --force, or import it again: it is replaced then.",
        )
