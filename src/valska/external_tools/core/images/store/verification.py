"""Images read again, whole: whether they still have their digests, and what the records say."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.store.beside import look_beside
from valska.external_tools.core.images.store.gc import MIN_AGE_S, changed
from valska.external_tools.core.images.store.imagestore import ImageStore
from valska.external_tools.core.images.store.layout import DIGEST, SIF_SUFFIX
from valska.external_tools.core.images.store.receipt import require_digest

_LOST = "it has no record: import it again, or `valska image gc` clears it away"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of an image.

    Parameters
    ----------
    sha256
        The image.
    name
        Of its definition; empty where the record cannot be read.
    faults
        What is wrong with it.
    missing
        What its record speaks of and the store does not have: a definition, a lock, an SBOM.
    signers
        Fingerprints of the keys whose signatures hold, where they were checked.
    """

    sha256: str
    name: str
    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    signers: tuple[str, ...] = ()


def unrecorded(store: ImageStore, now: float | None = None) -> list[Path]:
    """Return where the records of SIFs would be that have none; nobody has just added them.

    Parameters
    ----------
    store
        Where they are.
    now
        Seconds since the epoch; as the clock says by default.
    """
    now = time.time() if now is None else now
    return [
        store.record(sif.stem)
        for sif in sorted(store.directory.glob(f"*{SIF_SUFFIX}"))
        if DIGEST.fullmatch(sif.stem)
        and not store.record(sif.stem).exists()
        and now - changed(sif) >= MIN_AGE_S
    ]


def verify_image(store: ImageStore, record: Path) -> Verified:
    """Read an image and all that belongs to it.

    Parameters
    ----------
    store
        Where it is.
    record
        Place of its record.
    """
    sha256, name = record.stem, ""
    faults: list[str] = []
    missing: list[str] = []
    try:
        found = store.read(record)
        name = found.name
        if store.sif(sha256).stat().st_size != found.size:
            faults.append(f"its size is not that of its record, {found.size} bytes")
        beside, missing = look_beside(store.sif(sha256), found)
        faults += beside
    except ValskaError as error:
        lost = not record.exists()
        faults.append(_LOST if lost else f"its record is not usable: {error.message}")
    try:
        require_digest(store.sif(sha256), store.receipt(sha256), sha256)
    except ValskaError as error:
        faults.append(error.message)
    return Verified(sha256, name, tuple(faults), tuple(missing))
