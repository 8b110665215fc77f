"""Verifying an archive without unpacking it, and the receipt of a verification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import valska
from valska.external_tools.core.archive.document import ArchiveDocument
from valska.external_tools.core.archive.entries import Limits
from valska.external_tools.core.archive.judging import judge_contents, worth_telling
from valska.external_tools.core.archive.reading import read_archive
from valska.external_tools.core.seal import Finding
from valska.external_tools.core.utils import utc_now_iso

SCHEMA = "receipt-1"
SCHEMA_VERSION = "1.0"


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


def receipt(
    *,
    kind: str,
    name: str,
    subject: Mapping[str, Any],
    fast: bool,
    findings: Iterable[Finding],
    units: int,
    outputs: Mapping[str, int],
    checked_utc: str | None = None,
) -> dict[str, Any]:
    """Return what was checked, when, by which version, and the result.

    Parameters
    ----------
    kind
        ``archive``, ``bundle`` or ``sweep``.
    name
        File name of what was checked.
    subject
        Its digests: ``sha256`` and ``size`` of an archive, ``seal``, ``bundle_id``, ``run_id``,
        ``tool``, as far as they are known.
    fast
        Whether sizes only were compared.
    findings, units, outputs
        See `ArchiveVerification`.
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
        "findings": [
            {"kind": one.kind.value, "path": one.path, "detail": one.detail} for one in found
        ],
    }
