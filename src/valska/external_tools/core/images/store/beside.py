"""What lies beside an image, in a store, an export or any directory: checked against its record."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.images.record import ImageRecord, read_record
from valska.external_tools.core.images.store.layout import (
    DIGEST,
    LISTING_SUFFIX,
    RECORD_SUFFIX,
    SBOM_SUFFIX,
    suffix_of,
)
from valska.external_tools.core.utils import sha256_bytes

log = logging.getLogger(__name__)


def record_beside(sif: Path, sha256: str) -> ImageRecord | None:
    """Return the record that lies beside an image (``<name>.json``), if it is of this digest."""
    with suppress(ValskaError):
        record = read_record(sif.with_suffix(RECORD_SUFFIX))
        if record.sha256 == sha256:
            return record
    return None


def require_named(sif: Path, sha256: str) -> None:
    """Refuse an image whose name, or whose record beside it, speaks of another digest.

    Raises
    ------
    VerificationError
        If it is altered or cut off.
    """
    named = sif.stem if DIGEST.fullmatch(sif.stem) else None
    with suppress(ValskaError):
        named = named or read_record(sif.with_suffix(RECORD_SUFFIX)).sha256
    if named is not None and named != sha256:
        raise VerificationError(
            f"{sif} has been altered or cut off: it is not the image {named[:12]}…",
            f"Fetch it again; or remove {sif.with_suffix(RECORD_SUFFIX).name}, if that is of "
            "another image.",
        )


def files_beside(sif: Path, record: ImageRecord) -> dict[str, bytes]:
    """Return name and content of what belongs to an image, as far as it is there and unaltered.

    A definition that does not lie beside it is taken out of the image itself.
    """
    found = _definition_inside(sif, record)
    for name, places, digest in _expected(sif, record):
        for place in places:
            with suppress(OSError):
                data = place.read_bytes()
                if _digest(name, data) == digest:
                    found[name] = data
                    break
                log.warning("%s is left out: it is not what the image's record says", place)
    return found


def look_beside(sif: Path, record: ImageRecord) -> tuple[list[str], list[str]]:
    """Return what is wrong with what lies beside an image in a store, and what is not there."""
    faults, missing = [], []
    for name, places, digest in _expected(sif, record):
        try:
            data = places[0].read_bytes()
        except FileNotFoundError:
            missing.append(name)
        except OSError as error:
            faults.append(f"{name} cannot be read: {error.strerror}")
        else:
            if _digest(name, data) != digest:
                faults.append(f"{name} has been altered")
    return faults, missing


def definition_inside(sif: Path) -> bytes | None:
    """Return the definition that Apptainer kept in an image, or None.

    Raises
    ------
    PrerequisiteError
        If it is not a SIF, or is cut off.
    """
    from valska.external_tools.core.images.sif import DEFINITION, read_sif

    image = read_sif(sif)
    return next((image.read(one) for one in image.objects if one.kind == DEFINITION), None)


def _definition_inside(sif: Path, record: ImageRecord) -> dict[str, bytes]:
    entry, text = record.definition, None
    with suppress(ValskaError):
        text = definition_inside(sif)
    if entry is None or text is None:
        return {}
    # `apptainer inspect`, which records were made from, leaves out what ends it.
    same = [one for one in (text.strip(), text) if sha256_bytes(one) == entry["sha256"]]
    return {entry["name"]: same[0]} if same else {}


def _expected(sif: Path, record: ImageRecord) -> Iterator[tuple[str, tuple[Path, ...], str]]:
    """Yield name, possible places and digest of what a record speaks of."""
    for entry in (record.definition, record.lock):
        if entry is not None:
            name = entry["name"]
            places = (sif.with_suffix(suffix_of(name)), sif.with_name(Path(name).name))
            yield name, places, entry["sha256"]
    if record.sbom is not None:
        name = f"{record.name}{SBOM_SUFFIX}"
        yield name, (sif.with_suffix(SBOM_SUFFIX),), record.sbom["sha256"]
    if record.tree_sha256 is not None:
        name = f"{record.name}{LISTING_SUFFIX}"
        yield name, (sif.with_suffix(LISTING_SUFFIX),), record.tree_sha256


def _digest(name: str, data: bytes) -> str | None:
    """Return the digest that a record gives: of a listing, that of its text."""
    if not name.endswith(LISTING_SUFFIX):
        return sha256_bytes(data)
    import gzip
    import zlib

    try:
        return sha256_bytes(gzip.decompress(data))
    except (OSError, EOFError, zlib.error):
        return None
