"""Where everything lies in an archive: a bag (RFC 8493) whose payload is a crate."""

from __future__ import annotations

import os
import re
from pathlib import Path

from valska.external_tools.core.run_directory import is_bundle

SUFFIX = ".tar.zst"

BAGIT = "bagit.txt"
BAG_INFO = "bag-info.txt"
README = "README.md"
DOCUMENT = "archive.json"
MANIFEST = "manifest-sha256.txt"
TAG_MANIFEST = "tagmanifest-sha256.txt"
TAGS = (BAGIT, README, DOCUMENT, BAG_INFO, MANIFEST)
"""Tag files that the tag manifest lists."""

DATA = "data"
CITATION = f"{DATA}/CITATION.cff"
BUNDLE = f"{DATA}/bundle"
"""A bundle, or a sweep."""
IMAGES = f"{DATA}/images"
REFERENCES = f"{DATA}/references"
CRATE = f"{DATA}/ro-crate-metadata.json"

UNIT = rf"{BUNDLE}(?:/(?:points|shared)/[^/]+)?"
"""Matches a bundle, a sweep, and a unit of one."""
_DOCUMENTS = re.compile(
    rf"{UNIT}/(?:manifest\.json|SHA256SUMS|records/[^/]+\.json)"
    rf"|{BUNDLE}/(?:sweep_manifest\.json|common\.json|containers/[^/]+\.image\.json)"
)

_OF_BAGS = (BAGIT, MANIFEST, TAG_MANIFEST)


def is_document(name: str) -> bool:
    """Return whether a file is read to check the others: by its path in the archive."""
    if not name.endswith((".json", ".txt", ".md", "SHA256SUMS")):
        return False
    return name in TAGS or name in (TAG_MANIFEST, CRATE) or bool(_DOCUMENTS.fullmatch(name))


def packed_image(sha256: str) -> str:
    """Return the place of an image that is not embedded in the bundle."""
    return f"{IMAGES}/{sha256}.sif"


def packed_reference(place: str) -> str:
    """Return the place of what lies outside a bundle, by its place in it."""
    return f"{REFERENCES}/{place}"


def is_unpacked(path: Path) -> bool:
    """Return whether a directory is what was unpacked of an archive, or what is left of that."""
    if is_bundle(path) or not (path / DATA).is_dir():
        return False
    present = [name for name in (DOCUMENT, *_OF_BAGS) if (path / name).is_file()]
    whole = DOCUMENT in present and len(present) > 1
    return whole or bool(present and is_bundle(path / BUNDLE))


def unpacked_around(path: Path) -> Path | None:
    """Return the directory that was unpacked of an archive, of the bundle or sweep in it."""
    whole = Path(os.path.normpath(path.absolute()))
    above = whole.parents[1] if len(whole.parents) > 1 else whole
    return above if whole == above / BUNDLE and is_unpacked(above) else None
