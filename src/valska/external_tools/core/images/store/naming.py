"""Which images are named: by noted bundles that are still there, and by what lies below a root."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from valska.external_tools.core.images.store.uses import Use
from valska.external_tools.core.results import Kind, find_results
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.layout import Sweep

_DIGESTS = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Names:
    """Why images are needed.

    Parameters
    ----------
    why
        Digest to reasons.
    dead
        Notes of bundles that are gone.
    unread
        Manifests that cannot be read, so that nobody knows what they name.
    """

    why: dict[str, list[str]] = field(default_factory=dict)
    dead: list[Use] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def add(self, sha256: str, reason: str) -> None:
        """Add a reason, once."""
        reasons = self.why.setdefault(sha256, [])
        if reason not in reasons:
            reasons.append(reason)


def look_at_notes(
    names: Names,
    uses: Iterable[Use],
    now: float,
    min_age_s: float,
    forgotten: Collection[Path],
    *,
    gone: bool = False,
) -> None:
    """Judge the notes of a store.

    Parameters
    ----------
    names
        What is found goes there.
    uses
        The notes.
    now
        Seconds since the epoch.
    min_age_s
        A note that is younger counts: its bundle may be in the making.
    forgotten
        What was at or below these is gone for good, where it is not there.
    gone
        Whether a bundle is gone for good that is not there, but the directory above it is;
        otherwise it may have been moved, and counts.
    """
    for use in uses:
        reason = _reason(use, now, min_age_s, forgotten)
        if reason is None and not gone and not _is_below(use.path, forgotten):
            reason = f"used by {use.path}, which is gone or moved"
        if reason is None:
            names.dead.append(use)
        else:
            names.add(use.sha256, reason)


def look_below(names: Names, root: Path, digests: Collection[str]) -> None:
    """Find which of some images the runs and sweeps below a root name.

    Raises
    ------
    UsageError
        If the root is no directory, or cannot be read.
    """
    for place, kind in find_results(root):
        path = Path(place)
        try:
            named = _digests_in(_manifest(path, kind))
        except OSError as error:
            names.unread.append(f"{path}: {error.strerror}")
            continue
        for sha256 in named.intersection(digests):
            names.add(sha256, f"{path} uses it")


def _reason(use: Use, now: float, min_age_s: float, forgotten: Collection[Path]) -> str | None:
    path = use.path
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _absent(use, now, min_age_s, forgotten)
    except OSError as error:
        return f"{path} uses it, as far as is known: it cannot be looked at ({error.strerror})"
    return f"{path} uses it" if _may_name(path, use.sha256) else None


def _absent(use: Use, now: float, min_age_s: float, forgotten: Collection[Path]) -> str | None:
    path = use.path
    if use.age_s(now) < min_age_s:
        return f"{path} is being made of it, or was lately"
    if path.parent.is_dir() or _is_below(path, forgotten):
        return None
    return (
        f"{path} used it; even the directory above is not there now "
        f"(gone for good? --forget {path.parent})"
    )


def _is_below(path: Path, directories: Iterable[Path]) -> bool:
    return any(path.is_relative_to(directory) for directory in directories)


def _may_name(path: Path, sha256: str) -> bool:
    """Return whether what lies at a path names an image, or cannot be asked."""
    for manifest in (Bundle(path).manifest, Sweep(path).common):
        try:
            return sha256 in _digests_in(manifest)
        except OSError:
            continue
    return True


def _manifest(path: Path, kind: Kind) -> Path:
    return Sweep(path).common if kind is Kind.SWEEP else Bundle(path).manifest


def _digests_in(path: Path) -> set[str]:
    return set(_DIGESTS.findall(os.fsdecode(path.read_bytes())))
