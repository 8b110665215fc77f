"""Which bundles use which image: a line for each in the store's file ``bundles``.

A bundle that is made notes its use before it checks that the image is there. Who clears images
away puts one aside, reads the notes once more, and only then removes it: one of the two sees the
other.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images.store.imagestore import ImageStore
from valska.external_tools.core.utils import utc_now_iso, write_atomic

_LOCK = "bundles"
_TIME = "%Y-%m-%dT%H:%M:%SZ"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Use:
    """That a bundle or a sweep uses an image.

    Parameters
    ----------
    sha256
        The image.
    noted_utc
        When it was noted.
    path
        Where the bundle was to be made; absolute.
    """

    sha256: str
    noted_utc: str
    path: Path

    @property
    def line(self) -> bytes:
        """The line of the file."""
        return f"{self.sha256}\t{self.noted_utc}\t{json.dumps(os.fspath(self.path))}\n".encode()

    def age_s(self, now: float) -> float:
        """Return how long ago it was noted, in seconds."""
        return now - datetime.strptime(self.noted_utc, _TIME).replace(tzinfo=UTC).timestamp()


def note_use(sif: Path, sha256: str, bundle: Path) -> None:
    """Note that a bundle is about to use an image; nothing is done for one outside of any store.

    Parameters
    ----------
    sif
        Where the image is.
    sha256
        Its digest.
    bundle
        Where the bundle or the sweep will be.

    Raises
    ------
    PrerequisiteError
        If the image has been cleared away meanwhile.
    """
    real = Path(os.path.realpath(sif))
    store = ImageStore(real.parent.parent)
    if store.sif(sha256) != real:
        return
    if store.record(sha256).exists() or store.aside(sha256).exists():
        try:
            add_use(store, Use(sha256, utc_now_iso(), bundle.absolute()))
        except (ValskaError, OSError) as error:
            log.info("the store does not learn that %s uses its image: %s", bundle, error)
        store.find(sha256)  # waits for who has put the image aside
    if not real.is_file():
        raise PrerequisiteError(
            f"the image {sha256[:12]} has just been cleared away from the store {store.root}",
            "Build it again, or take another one (--image).",
        )


def add_use(store: ImageStore, use: Use) -> None:
    """Append to the store's notes.

    Raises
    ------
    ValskaError, OSError
        If the store cannot be written.
    """
    with store.holding(_LOCK, "noting which bundle uses an image"):
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        descriptor = os.open(store.bundles, flags, 0o666)
        with os.fdopen(descriptor, "rb+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            whole = file.read(1) in (b"", b"\n")
            file.write((b"" if whole else b"\n") + use.line)
            os.fsync(file.fileno())


def read_uses(store: ImageStore) -> list[Use]:
    """Return all notes, the oldest first; lines that are none are left out."""
    try:
        lines = store.bundles.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [use for line in lines if (use := _parse(line)) is not None]


def forget(store: ImageStore, gone: Iterable[Use]) -> None:
    """Take notes out of the store's file.

    Raises
    ------
    ValskaError
        If the store cannot be written.
    """
    dropped = set(gone)
    if not dropped:
        return
    with store.holding(_LOCK, "tidying up which bundles use images"):
        left = [use.line for use in read_uses(store) if use not in dropped]
        write_atomic(store.bundles, b"".join(left))


def _parse(line: bytes) -> Use | None:
    match = re.fullmatch(rb"([0-9a-f]{64})\t([0-9TZ:-]+)\t(\".*\")", line)
    try:
        if match:
            use = Use(match[1].decode(), match[2].decode(), Path(json.loads(match[3])))
            use.age_s(0)
            return use
    except ValueError:
        pass
    return None
