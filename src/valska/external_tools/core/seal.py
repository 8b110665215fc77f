"""The seal of a bundle: digests of every sealed file, and what does not agree with them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.digests import digest_file, digest_files
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.manifest import (
    BorrowedEntry,
    Manifest,
    ManifestError,
    read_manifest,
)
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.site import reference_places
from valska.external_tools.core.trees import digest_tree, tree_sizes
from valska.external_tools.core.utils import sha256_file, write_atomic

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_OUTSIDE = re.compile(
    r"\.\./\.\./(SHA256SUMS|shared/([A-Za-z0-9][A-Za-z0-9._+=-]*)/manifest\.json)"
)
_COMMON = "../../"
_UNSEALED = re.compile(
    r"SHA256SUMS|site\.env|jobs(_[0-9TZ-]+)?\.json|\.submit\.lock|records|logs|outputs(\.\d+)?"
    r"|\.(site\.env|jobs(_[0-9TZ-]+)?\.json)\.[0-9a-f]{12}\.tmp"
)


class FindingKind(StrEnum):
    """What can be wrong with a file."""

    MISSING = "missing"
    ALTERED = "altered"
    UNEXPECTED = "unexpected"
    UNREADABLE = "unreadable"
    UNKNOWN_SIGNER = "unknown-signer"
    WRONG_SIGNER = "wrong-signer"
    EXPIRED_KEY = "expired-key"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one file.

    Parameters
    ----------
    kind
        What is wrong.
    path
        Place in the bundle.
    detail
        More, for a person.
    """

    kind: FindingKind
    path: str
    detail: str = ""

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


def write_seal(bundle: Bundle, digests: Mapping[str, str]) -> str:
    """Write ``SHA256SUMS``, in the format of ``sha256sum``, and return the seal.

    Parameters
    ----------
    bundle
        The bundle, its manifest written.
    digests
        Place in the bundle to SHA-256, of every sealed file but the manifest.
    """
    whole = {**digests, bundle.manifest.name: sha256_file(bundle.manifest)}
    text = "".join(f"{whole[path]}  {path}\n" for path in sorted(whole))
    write_atomic(bundle.sums, text.encode())
    return seal_of(bundle)


def seal_of(bundle: Bundle) -> str:
    """Return the seal: the SHA-256 of ``SHA256SUMS``."""
    return sha256_file(bundle.sums)


def require_intact(bundle: Bundle, places: Mapping[str, str] | None = None) -> None:
    """Check every sealed file.

    Parameters
    ----------
    bundle
        The bundle.
    places
        See `check_outside`.

    Raises
    ------
    VerificationError
        Naming every file that is missing, altered, unexpected or unreadable.
    """
    found = verify_bundle(bundle, places=places)
    if found:
        raise VerificationError(
            f"{bundle.path} is not as it was made: " + "; ".join(map(str, found)),
            "Restore these files, or make the bundle again; a bundle is never edited.",
        )


def verify_bundle(
    bundle: Bundle,
    fast: bool = False,
    *,
    common: bool = True,
    places: Mapping[str, str] | None = None,
) -> tuple[Finding, ...]:
    """Compare a bundle, or a point of a sweep, with its seal and its manifest.

    Parameters
    ----------
    bundle
        The bundle.
    fast
        Compare presence and sizes only, not content.
    common
        For a point: check what all points share too. Without, only that the point was sealed
        with the sweep's digests as they are.
    places
        See `check_outside`.

    Returns
    -------
    tuple of Finding
        Sorted by path; empty if all is as it was made.
    """
    missing = [path.name for path in (bundle.manifest, bundle.sums) if not path.exists()]
    if missing:
        return tuple(Finding(FindingKind.MISSING, name) for name in sorted(missing))
    try:
        manifest = read_manifest(bundle)
        listed = read_sums(bundle)
    except ManifestError as error:
        return (Finding(FindingKind.ALTERED, bundle.manifest.name, error.message),)
    except VerificationError as error:
        return (Finding(FindingKind.ALTERED, bundle.sums.name, error.message),)
    found = [
        *_disagreements(bundle, manifest, listed),
        *_unexpected(bundle, listed),
        *_check_files(bundle, manifest, listed, fast),
    ]
    if common:
        found += _check_common(bundle, manifest, fast)
        found += check_outside(bundle, manifest, fast, places)
    return tuple(sorted(found, key=lambda finding: (finding.path, finding.kind)))


def read_sums(bundle: Bundle) -> dict[str, str]:
    """Read ``SHA256SUMS``: place in the bundle to SHA-256.

    Of a point of a sweep it names two kinds of files outside: the sweep's own ``SHA256SUMS``, and
    the manifests of shared work.

    Raises
    ------
    VerificationError
        If it is unreadable, or a line is not of its format, or names another place outside.
    """
    try:
        lines = bundle.sums.read_bytes().decode().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VerificationError(f"cannot be read: {error}") from error
    digests: dict[str, str] = {}
    unit = bundle.common is not None
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if not match or not is_sealable(match[2], unit=unit) or match[2] in digests:
            raise VerificationError(f"line {number} is not usable")
        digests[match[2]] = match[1]
    return digests


def sums_fault(bundle: Bundle, error: VerificationError, prefix: str = "") -> Finding:
    """Return what is wrong with a ``SHA256SUMS`` that `read_sums` refused."""
    path = f"{prefix}{bundle.sums.name}"
    if not os.path.lexists(bundle.sums):
        return Finding(FindingKind.MISSING, path)
    return Finding(FindingKind.ALTERED, path, error.message)


def is_sealable(path: str, *, unit: bool = True) -> bool:
    """Return whether ``SHA256SUMS`` may name a path: inside, or what a sweep's unit relies on."""
    if unit and _OUTSIDE.fullmatch(path):
        return True
    plain = not path.startswith("/") and "\0" not in path
    return plain and not {"", ".", ".."} & set(path.split("/"))


def _disagreements(
    bundle: Bundle, manifest: Manifest, listed: Mapping[str, str]
) -> Iterator[Finding]:
    declared = {entry.path: entry.sha256 for entry in manifest.files}
    inside = {path: digest for path, digest in listed.items() if not path.startswith(_COMMON)}
    if bundle.common is not None:
        declared = {path: sha for path, sha in declared.items() if path.startswith("config/")}
        yield from _wrong_bonds(manifest, listed.keys() - inside.keys())
    for path in sorted(declared.keys() | inside.keys() - {"manifest.json"}):
        if declared.get(path) != inside.get(path):
            yield Finding(FindingKind.ALTERED, path, "manifest.json and SHA256SUMS disagree")
    if "manifest.json" not in listed:
        yield Finding(FindingKind.ALTERED, "SHA256SUMS", "manifest.json is not in it")


def _wrong_bonds(manifest: Manifest, listed: Set[str]) -> Iterator[Finding]:
    shared = {f"{_COMMON}shared/{label}/manifest.json" for label in manifest.shared.values()}
    for path in sorted(listed ^ {f"{_COMMON}SHA256SUMS", *shared}):
        how = "should not be in it" if path in listed else "is not in it"
        yield Finding(FindingKind.ALTERED, "SHA256SUMS", f"{path} {how}")


def _check_common(bundle: Bundle, manifest: Manifest, fast: bool) -> Iterable[Finding]:
    if bundle.common is None:
        return ()
    whole = Bundle(bundle.common)
    try:
        listed = read_sums(whole)
    except VerificationError as error:
        return (sums_fault(whole, error, _COMMON),)
    found = _check_files(whole, manifest, listed, fast)
    return [replace(finding, path=f"{_COMMON}{finding.path}") for finding in found]


def _unexpected(bundle: Bundle, listed: Mapping[str, str]) -> Iterator[Finding]:
    directories = {
        os.fspath(parent) for path in listed for parent in Path(path).parents if parent.name
    } | {"config", "inputs", "containers"}
    for path, is_directory in _walk(bundle.path, ""):
        if is_directory and not os.access(bundle.path / path, os.R_OK | os.X_OK):
            yield Finding(FindingKind.UNREADABLE, path, "cannot be listed")
        if is_directory and path in directories:
            continue
        if path not in listed:
            yield Finding(FindingKind.UNEXPECTED, path, "not sealed")


def _walk(root: Path, prefix: str) -> Iterator[tuple[str, bool]]:
    try:
        with os.scandir(root / prefix) as found:
            entries = sorted(found, key=lambda item: item.name)
    except OSError:
        return
    for entry in entries:
        if (not prefix and _UNSEALED.fullmatch(entry.name)) or entry.name.startswith(".nfs"):
            continue
        path = f"{prefix}{entry.name}"
        is_directory = entry.is_dir(follow_symlinks=False)
        yield path, is_directory
        if is_directory:
            yield from _walk(root, f"{path}/")


def _check_files(
    bundle: Bundle, manifest: Manifest, listed: Mapping[str, str], fast: bool
) -> Iterable[Finding]:
    sizes = {entry.path: entry.size for entry in manifest.files}

    return check_listed(bundle.path, listed, sizes, fast)


def check_outside(
    bundle: Bundle, manifest: Manifest, fast: bool, places: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Compare referenced inputs and borrowed directories, where they are now, with a manifest.

    Parameters
    ----------
    bundle
        The bundle, or the sweep that has them.
    manifest
        What they should be.
    fast
        Compare presence and sizes only, not content.
    places
        Place in the bundle to where it is now; as ``site.env`` says, if not given.
    """
    if places is None:
        places = reference_places(bundle.site_env, manifest.outside())
    for entry in manifest.inputs:
        if entry.mode == "reference":
            source = places[entry.path]
            finding = check_file(Path(source), entry.path, entry.sha256, entry.size, fast)
            if finding:
                detail = f"referenced from {source}: {finding.detail}"
                yield replace(finding, detail=detail)
    for borrowed in manifest.borrowed:
        finding = _check_tree(Path(places[borrowed.path]), borrowed, fast)
        if finding:
            yield finding


def _check_tree(path: Path, entry: BorrowedEntry, fast: bool) -> Finding | None:
    detail = f"borrowed from {path}"
    if not path.is_dir():
        return Finding(FindingKind.MISSING, entry.path, detail)
    try:
        sizes = tree_sizes(path)
        if (len(sizes), sum(sizes.values())) != (entry.files, entry.size):
            detail += f": {len(sizes)} files, {sum(sizes.values())} bytes"
            detail += f", not {entry.files} and {entry.size}"
        elif fast or digest_tree(path).sha256 == entry.sha256:
            return None
    except UsageError as error:
        detail += f": {error.message}"
    return Finding(FindingKind.ALTERED, entry.path, detail)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file should be.

    Parameters
    ----------
    path
        Its name in a finding.
    file
        Where it lies.
    sha256, size
        What it should have, as far as they are known.
    """

    path: str
    file: str
    sha256: str | None
    size: int | None


def check_files(expected: Iterable[Expected], fast: bool) -> Iterator[Finding]:
    """Compare files with what they should be, reading several at once.

    Parameters
    ----------
    expected
        What they should be.
    fast
        Do not look at their content.
    """
    left = []
    for one in expected:
        finding = _check_status(one)
        if finding is not None:
            yield finding
        elif not fast and one.sha256:
            left.append(one)
    digests = digest_files([one.file for one in left])
    yield from filter(None, map(_check_digest, left, digests))


def check_listed(
    root: Path, listed: Mapping[str, str], sizes: Mapping[str, int], fast: bool
) -> Iterator[Finding]:
    """Compare the files of a directory with their digests and sizes, by their paths in it."""
    expected = (
        Expected(path, f"{root}/{path}", digest, sizes.get(path)) for path, digest in listed.items()
    )
    return check_files(expected, fast)


def check_file(
    file: Path, path: str, sha256: str | None, size: int | None, fast: bool
) -> Finding | None:
    """Compare one file with what it should be; see `Expected` and `check_files`."""
    expected = Expected(path, os.fspath(file), sha256, size)
    finding = _check_status(expected)
    if finding is not None or fast or not sha256:
        return finding
    return _check_digest(expected, digest_file(expected.file))


def _check_digest(expected: Expected, digest: str | OSError) -> Finding | None:
    if isinstance(digest, OSError):
        return _unreadable(expected.path, digest)
    if digest == expected.sha256:
        return None
    detail = f"sha256 {digest[:12]}…, not {str(expected.sha256)[:12]}…"
    return Finding(FindingKind.ALTERED, expected.path, detail)


def _check_status(expected: Expected) -> Finding | None:
    try:
        status = os.lstat(expected.file)
    except OSError as error:
        return _unreadable(expected.path, error)
    if not stat.S_ISREG(status.st_mode):
        return Finding(FindingKind.ALTERED, expected.path, "not a regular file")
    if expected.size is not None and status.st_size != expected.size:
        detail = f"{status.st_size} bytes, not {expected.size}"
        return Finding(FindingKind.ALTERED, expected.path, detail)
    return None


def _unreadable(path: str, error: OSError) -> Finding:
    if isinstance(error, FileNotFoundError):
        return Finding(FindingKind.MISSING, path)
    return Finding(FindingKind.UNREADABLE, path, error.strerror or "")
