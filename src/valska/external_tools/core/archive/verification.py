"""Verifying an archive without unpacking it, and the receipt of a verification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import valska
from valska.external_tools.core.archive import bag, places
from valska.external_tools.core.archive.directory import OnDisk, read_directory
from valska.external_tools.core.archive.document import ArchiveDocument, parse_document
from valska.external_tools.core.archive.entries import Limits
from valska.external_tools.core.archive.errors import ArchiveError
from valska.external_tools.core.archive.judging import judge_contents, worth_telling
from valska.external_tools.core.archive.reading import read_archive
from valska.external_tools.core.archive.since import settle
from valska.external_tools.core.seal import Finding, FindingKind
from valska.external_tools.core.utils import sha256_bytes, utc_now_iso

SCHEMA = "receipt-1"
SCHEMA_VERSION = "1.1"

_SUMMING_UP = {places.BAG_INFO: places.TAG_MANIFEST, places.CRATE: places.MANIFEST}
"""What has sizes of other files, and which manifest has its digest."""


@dataclass(frozen=True, slots=True)
class ArchiveVerification:
    """What a verification found.

    Parameters
    ----------
    findings
        Sorted by path, which is relative to the archive's one directory; empty if all is as it
        was packed.
    document
        What the archive says of itself; None if that cannot be read.
    size, sha256
        Of the file; the digest is None if it was checked fast.
    files
        How many files it has.
    units
        How many bundles, points and shared work were looked at.
    outputs
        Stage to the number of outputs that were compared with a record.
    """

    findings: tuple[Finding, ...]
    document: ArchiveDocument | None
    size: int
    sha256: str | None
    files: int = 0
    units: int = 0
    outputs: Mapping[str, int] = field(default_factory=dict)


def verify_archive(
    path: Path,
    fast: bool = False,
    *,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ArchiveVerification:
    """Compare an archive with its manifests, and what is in it with its seals and records.

    Parameters
    ----------
    path
        The archive.
    fast
        Compare presence and sizes only, not content.
    limits
        How much it may hold.
    progress
        Told the bytes of the file that were read, and all.

    Raises
    ------
    ArchiveError
        If there is no such file, or it cannot be read from the disk.
    HostileError
        If it holds more than is allowed.
    """
    read = read_archive(path, fast=fast, limits=limits, progress=progress)
    judged = judge_contents(read.contents, fast=fast, more=read.findings)
    return ArchiveVerification(
        worth_telling(judged.findings, path.name),
        judged.document,
        read.size,
        read.sha256,
        sum(1 for _ in read.contents.files()),
        judged.units,
        judged.outputs,
    )


@dataclass(frozen=True, slots=True)
class UnpackedVerification:
    """What a verification of what was unpacked of an archive found.

    Parameters
    ----------
    findings
        Sorted by path, which is relative to the directory; empty if all is as it was packed, or
        as the records of jobs since have it.
    document
        What the archive says of itself; None if that cannot be read.
    bag
        SHA-256 of the manifest of tag files, which stands for all that was packed; empty if it
        cannot be read.
    files
        How many files there are.
    written
        Paths of what was written since it was unpacked.
    units, outputs
        See `ArchiveVerification`.
    """

    findings: tuple[Finding, ...]
    document: ArchiveDocument | None
    bag: str = ""
    files: int = 0
    written: tuple[str, ...] = ()
    units: int = 0
    outputs: Mapping[str, int] = field(default_factory=dict)


def verify_unpacked(
    path: Path,
    fast: bool = False,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> UnpackedVerification:
    """Compare what was unpacked of an archive with its manifests, and all else as in an archive.

    What was run there since is no fault: see `settle`.

    Parameters
    ----------
    path
        The directory.
    fast
        Compare presence and sizes only, not content.
    progress
        Told the bytes that were read, and all.

    Raises
    ------
    ArchiveError
        If the directory cannot be listed.
    """
    try:
        found = read_directory(path, fast=fast, progress=progress)
    except OSError as error:
        raise ArchiveError(
            f"cannot read {path}: {error.strerror}", "Check the path and its permissions."
        ) from error
    settled = settle(found, path)
    judged = judge_contents(settled.contents, fast=fast, more=found.findings)
    said = found.contents.documents.get(places.TAG_MANIFEST)
    return UnpackedVerification(
        _causes(judged.findings, found),
        _as_packed(judged.document, found),
        sha256_bytes(said) if said is not None else "",
        sum(1 for _ in found.contents.files()),
        settled.written,
        judged.units,
        judged.outputs,
    )


def _as_packed(judged: ArchiveDocument | None, found: OnDisk) -> ArchiveDocument | None:
    """Return what the archive says of itself; what is judged expects the outputs of jobs since."""
    return judged and parse_document(found.contents.documents[places.DOCUMENT])


def _causes(findings: tuple[Finding, ...], found: OnDisk) -> tuple[Finding, ...]:
    """Leave out findings that only follow from others.

    What cannot be read is not altered too, and what sums up the payload is not wrong itself where
    it is as it was packed.
    """
    told = [
        one
        for one in findings
        if one.kind is FindingKind.UNREADABLE or not found.is_unread(one.path)
    ]
    sums = {one for one in told if one.path in _SUMMING_UP and _is_as_listed(one.path, found)}
    return tuple(one for one in told if one not in sums) or tuple(told)


def _is_as_listed(name: str, found: OnDisk) -> bool:
    try:
        listed = bag.parse_manifest(found.contents.documents[_SUMMING_UP[name]])
    except (KeyError, bag.BagError):
        return False
    entry = found.contents.file(name)
    return entry is not None and entry.sha256 == listed.get(name)


def receipt(
    *,
    kind: str,
    name: str,
    subject: Mapping[str, Any],
    fast: bool,
    findings: Iterable[Finding],
    units: int,
    outputs: Mapping[str, int],
    written: Iterable[str] | None = None,
    checked_utc: str | None = None,
) -> dict[str, Any]:
    """Return what was checked, when, by which version, and the result.

    Parameters
    ----------
    kind
        ``archive``, ``unpacked``, ``bundle`` or ``sweep``.
    name
        File name of what was checked.
    subject
        Its digests: ``sha256`` and ``size`` of an archive, ``bag`` of what was unpacked of one,
        ``seal``, ``bundle_id``, ``run_id``, ``tool``, as far as they are known.
    fast
        Whether sizes only were compared.
    findings, units, outputs
        See `ArchiveVerification`.
    written
        Of what was unpacked: see `UnpackedVerification`.
    checked_utc
        When; now, if not given.
    """
    found = list(findings)
    return {
        "schema_version": SCHEMA_VERSION,
        "valska_version": valska.__version__,
        "checked_utc": checked_utc or utc_now_iso(),
        "kind": kind,
        "name": name,
        "subject": dict(subject),
        "level": "fast" if fast else "full",
        "intact": not found,
        "units": units,
        "outputs": dict(outputs),
        **({} if written is None else {"written": list(written)}),
        "findings": [
            {"kind": one.kind.value, "path": one.path, "detail": one.detail} for one in found
        ],
    }
