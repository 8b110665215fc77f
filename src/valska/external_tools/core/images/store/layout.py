"""Where everything lies in an image store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DIGEST = re.compile(r"[0-9a-f]{64}")
SIF_SUFFIX = ".sif"
RECORD_SUFFIX = ".json"
RECEIPT_SUFFIX = ".sif.receipt"
ASIDE_SUFFIX = ".json.aside"
SBOM_SUFFIX = ".cdx.json"
LISTING_SUFFIX = ".files.gz"
PUBLISHED_SUFFIX = ".published.json"

_EXTRAS = (SBOM_SUFFIX, LISTING_SUFFIX, PUBLISHED_SUFFIX)
_TAKEN = {"", SIF_SUFFIX, RECORD_SUFFIX, ".receipt", ".aside"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The places in a store; every file of an image begins with its digest.

    Parameters
    ----------
    root
        The store's directory.
    """

    root: Path

    @property
    def directory(self) -> Path:
        """Where the images are."""
        return self.root / "sha256"

    @property
    def logs(self) -> Path:
        """Where builds write what they print."""
        return self.root / "logs"

    @property
    def locks(self) -> Path:
        """Where those who work on something say so."""
        return self.root / "locks"

    @property
    def bundles(self) -> Path:
        """The file that says which bundles use which image."""
        return self.root / "bundles"

    @property
    def bases(self) -> Path:
        """Where bases are, as ``<digest>.oci.tar``."""
        return self.root / "bases" / "sha256"

    @property
    def wheels(self) -> Path:
        """Where wheels are that a build without a network takes."""
        return self.root / "wheels"

    @property
    def inputs(self) -> Path:
        """Where inputs of bundles are, each named by its digest."""
        return self.root / "inputs" / "sha256"

    def sif(self, sha256: str) -> Path:
        """Return the place of an image."""
        return self.extras(sha256, SIF_SUFFIX)

    def record(self, sha256: str) -> Path:
        """Return the place of an image's record."""
        return self.extras(sha256, RECORD_SUFFIX)

    def receipt(self, sha256: str) -> Path:
        """Return the place of an image's receipt: digest, size, mtime and inode in one line."""
        return self.extras(sha256, RECEIPT_SUFFIX)

    def aside(self, sha256: str) -> Path:
        """Return where a record is while its image is cleared away: out of sight."""
        return self.extras(sha256, ASIDE_SUFFIX)

    def extras(self, sha256: str, suffix: str) -> Path:
        """Return the place of what lies beside an image, by its suffix (``.cdx.json``)."""
        return self.directory / f"{sha256}{suffix}"

    def source(self, sha256: str, name: str) -> Path:
        """Return the place of a file that is kept with an image, by the file's own name."""
        return self.extras(sha256, suffix_of(name))


def suffix_of(name: str) -> str:
    """Return the suffix under which a file is kept; a definition may have none of its own."""
    for suffix in _EXTRAS:
        if name.endswith(suffix):
            return suffix
    suffix = Path(name).suffix
    return ".def" if suffix in _TAKEN else suffix
