"""The seal of a bundle: digests of every sealed file, and what does not agree with them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import Manifest, ManifestError, read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.utils import sha256_file, write_atomic

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
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


def require_intact(bundle: Bundle) -> None:
    """Check every sealed file.

    Raises
    ------
    VerificationError
        Naming every file that is missing, altered, unexpected or unreadable.
    """
    found = verify_bundle(bundle)
    if found:
        raise VerificationError(
            f"{bundle.path} is not as it was made: " + "; ".join(map(str, found)),
            "Restore these files, or make the bundle again; a bundle is never edited.",
        )


def verify_bundle(bundle: Bundle, fast: bool = False) -> tuple[Finding, ...]:
    """Compare a bundle with its seal and its manifest.

    Parameters
    ----------
    bundle
        The bundle.
    fast
        Compare presence and sizes only, not content.

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
        *_disagreements(manifest, listed),
        *_unexpected(bundle, listed),
        *_check_files(bundle, manifest, listed, fast),
        *_check_references(manifest, fast),
    ]
    return tuple(sorted(found, key=lambda finding: (finding.path, finding.kind)))


def read_sums(bundle: Bundle) -> dict[str, str]:
    """Read ``SHA256SUMS``: place in the bundle to SHA-256.

    Raises
    ------
    VerificationError
        If it is unreadable, or a line is not of its format, or names a place outside.
    """
    try:
        lines = bundle.sums.read_bytes().decode().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VerificationError(f"cannot be read: {error}") from error
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if not match or not _is_inside(match[2]) or match[2] in digests:
            raise VerificationError(f"line {number} is not usable")
        digests[match[2]] = match[1]
    return digests


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))


def _disagreements(manifest: Manifest, listed: Mapping[str, str]) -> Iterator[Finding]:
    declared = {entry.path: entry.sha256 for entry in manifest.files}
    for path in sorted(declared.keys() | listed.keys() - {"manifest.json"}):
        if declared.get(path) != listed.get(path):
            yield Finding(FindingKind.ALTERED, path, "manifest.json and SHA256SUMS disagree")
    if "manifest.json" not in listed:
        yield Finding(FindingKind.ALTERED, "SHA256SUMS", "manifest.json is not in it")


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

    def check(path: str) -> Finding | None:
        return check_file(bundle.path / path, path, listed[path], sizes.get(path), fast)

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for finding in pool.map(check, listed) if finding]


def _check_references(manifest: Manifest, fast: bool) -> Iterator[Finding]:
    for entry in manifest.inputs:
        if entry.mode == "reference":
            finding = check_file(Path(entry.source), entry.path, entry.sha256, entry.size, fast)
            if finding:
                detail = f"referenced from {entry.source}"
                yield Finding(finding.kind, entry.path, f"{detail}: {finding.detail}")


def check_file(
    file: Path, path: str, sha256: str | None, size: int | None, fast: bool
) -> Finding | None:
    """Compare one file with its size in bytes and its SHA-256, as far as they are known.

    Parameters
    ----------
    file
        Where it lies.
    path
        Its name in the finding.
    sha256, size
        What it should have.
    fast
        Do not look at its content.
    """
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            return Finding(FindingKind.ALTERED, path, "not a regular file")
        if size is not None and status.st_size != size:
            detail = f"{status.st_size} bytes, not {size}"
            return Finding(FindingKind.ALTERED, path, detail)
        if not fast and sha256 and (digest := sha256_file(file)) != sha256:
            return Finding(FindingKind.ALTERED, path, f"sha256 {digest[:12]}…, not {sha256[:12]}…")
    except FileNotFoundError:
        return Finding(FindingKind.MISSING, path)
    except OSError as error:
        return Finding(FindingKind.UNREADABLE, path, error.strerror or "")
    return None
