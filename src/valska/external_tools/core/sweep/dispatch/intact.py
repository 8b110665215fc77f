"""Whether what is to be sent of a sweep is as it was made: common files once, then each unit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import (
    Finding,
    check_listed,
    check_outside,
    is_sealable,
    read_sums,
)
from valska.external_tools.core.sweep.dispatch.slices import Work
from valska.external_tools.core.sweep.document import SweepManifest
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import sha256_file

_AT_ONCE = 4


def require_common_intact(
    sweep: Sweep,
    manifest: SweepManifest,
    common: Manifest,
    places: Mapping[str, str] | None = None,
) -> None:
    """Check every file that all points of a sweep share, and what they reference.

    Parameters
    ----------
    sweep, manifest, common
        The sweep.
    places
        See `check_outside`.

    Raises
    ------
    VerificationError
        Naming every file that is missing, altered or unreadable.
    """
    found = list(_common_findings(sweep, manifest, common, places))
    if found:
        raise VerificationError(
            f"{sweep.path} is not as it was made: " + "; ".join(map(str, found)),
            "Restore these files, or make the sweep again; a sweep is never edited.",
        )


def altered_units(sweep: Sweep, works: Iterable[Work]) -> dict[str, str]:
    """Return the place of each unit that is not as it was made, and why.

    Parameters
    ----------
    sweep
        The sweep, its common files checked.
    works
        The units.
    """
    all_of_them = list(works)
    known: dict[str, str | None] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reasons = pool.map(lambda work: _fault(sweep, work, known), all_of_them, chunksize=64)
        found = zip(all_of_them, reasons, strict=True)
        return {work.place: reason for work, reason in found if reason}


def _common_findings(
    sweep: Sweep,
    manifest: SweepManifest,
    common: Manifest,
    places: Mapping[str, str] | None,
) -> Iterable[Finding | str]:
    sums = sweep.bundle.sums
    if not sums.is_file() or sha256_file(sums) != manifest.common_seal:
        return [f"{sums.name} is not what {sweep.manifest.name} says"]
    listed = read_sums(sweep.bundle)
    found = check_listed(sweep.path, listed, {}, False)
    return [*found, *check_outside(sweep.bundle, common, False, places)]


def _fault(sweep: Sweep, work: Work, known: dict[str, str | None]) -> str | None:
    """Return what is wrong with a unit; `known` holds the digests of files that units share."""
    unit = f"{sweep.path}/{work.place}"
    sums = _content(f"{unit}/{Bundle(Path()).sums.name}")
    if sums is None:
        return "its SHA256SUMS cannot be read"
    if hashlib.sha256(sums).hexdigest() != work.seal:
        return "its SHA256SUMS was altered"
    for line in sums.decode(errors="replace").splitlines():
        digest, path = line[:64], line[66:]
        if not is_sealable(path):
            return f"its SHA256SUMS names {path!r}"
        if path.startswith("../"):
            if path not in known:
                known[path] = _digest(f"{unit}/{path}")
            found = known[path]
        else:
            found = _digest(f"{unit}/{path}")
        if found != digest:
            return f"{path} was altered" if found else f"{path} cannot be read"
    return None


def _digest(path: str) -> str | None:
    content = _content(path)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - many small files
            return file.read()
    except OSError:
        return None
