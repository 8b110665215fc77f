"""Whether what two runs were to do lies on the disk as it was sealed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.comparison.intent import Side
from valska.external_tools.core.comparison.runs import software_of
from valska.external_tools.core.comparison.sweeps import Entry, SweepSide
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.manifest import FileEntry, Manifest, Science
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import (
    Expected,
    Finding,
    FindingKind,
    check_file,
    check_files,
    read_sums,
    sums_fault,
)
from valska.external_tools.core.site import reference_places
from valska.external_tools.core.sweep.dispatch.intact import altered_units
from valska.external_tools.core.sweep.dispatch.slices import Work
from valska.external_tools.core.utils import load_json

MOST_BYTES = 1 << 28
"""So much of a side is read, the small files first; of what is left the size is compared."""

_CONFIG = "config/"
_SAID = ("label", "bundle_id", "stage", "values", "perturbations", "shared")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What was found of the sealed files of a bundle, a sweep or an archive.

    Parameters
    ----------
    faults
        What is not as it was sealed, each with what is wrong with it; empty if all is.
    unread
        What was not read: large files, of which the size was compared, and what lies elsewhere.
    """

    faults: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def check_sealed(side: Side | SweepSide) -> Sealed:
    """Compare the sealed files of a bundle, a point or a sweep with their digests.

    Parameters
    ----------
    side
        What is compared.
    """
    checked = _Checked()
    if isinstance(side, SweepSide):
        checked.common(side.sweep.bundle, side.common, side.manifest.common_seal)
        checked.faults += _of_units(side)
    else:
        checked.bundle(side)
    return Sealed(tuple(checked.faults), tuple(checked.unread))


class _Checked:
    """Collects what is found; reads no more than `MOST_BYTES`."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.unread: list[str] = []
        self._left = MOST_BYTES

    def bundle(self, side: Side) -> None:
        """Check a bundle, or a point with what all points share."""
        bundle, manifest = side.bundle, side.manifest
        if bundle.common is None:
            self._directory(bundle, manifest.files)
            self._outside(bundle, manifest)
        else:
            self._directory(bundle, [one for one in manifest.files if _is_own(one)])
            self.common(Bundle(bundle.common), manifest)
        if not self.faults and _science(manifest) != manifest.bundle_id:
            self.faults.append(f"{bundle.manifest.name} (its bundle id is not that of its content)")

    def common(self, bundle: Bundle, manifest: Manifest, seal: str | None = None) -> None:
        """Check what the points of a sweep share, and what lies outside of it."""
        found = check_file(bundle.sums, bundle.sums.name, seal, None, False) if seal else None
        self._note([found] if found else [])
        self._directory(bundle, [one for one in manifest.files if not _is_own(one)])
        self._outside(bundle, manifest)

    def _directory(self, bundle: Bundle, files: Iterable[FileEntry]) -> None:
        try:
            listed = read_sums(bundle)
        except VerificationError as error:
            self._note([sums_fault(bundle, error)])
            return
        declared = {one.path: one for one in files}
        for path, one in declared.items():
            if listed.get(path) != one.sha256:
                self._note([Finding(FindingKind.ALTERED, path, "the manifest has another digest")])
        self._files(
            Expected(path, f"{bundle.path}/{path}", digest, _size(declared.get(path)))
            for path, digest in listed.items()
        )

    def _outside(self, bundle: Bundle, manifest: Manifest) -> None:
        places = reference_places(bundle.site_env, manifest.outside())
        lying = [one for one in manifest.inputs if one.mode == "reference"]
        there = [one for one in lying if Path(places[one.path]).exists()]
        self.unread += [one.path for one in lying if one not in there]
        self.unread += [one.path for one in manifest.borrowed]
        self._files(Expected(one.path, places[one.path], one.sha256, one.size) for one in there)

    def _files(self, expected: Iterable[Expected]) -> None:
        """Read the small ones; those of which the size is not known are small."""
        for one in sorted(expected, key=_order):
            self._left -= one.size or 0
            if self._left < 0:
                self.unread.append(one.path)
                one = Expected(one.path, one.file, None, one.size)
            self._note(check_files([one], fast=False))

    def _note(self, findings: Iterable[Finding]) -> None:
        self.faults += [f"{one.path} ({one.kind})" for one in findings]


def _order(one: Expected) -> tuple[bool, int]:
    return not one.path.startswith(_CONFIG), one.size or 0


def _size(entry: FileEntry | None) -> int | None:
    return entry.size if entry else None


def _is_own(entry: FileEntry) -> bool:
    """Return whether a file of a point's manifest lies in the point itself."""
    return entry.path.startswith(_CONFIG)


def _science(manifest: Manifest) -> str | None:
    inputs = {one.name: one.sha256 for one in manifest.inputs}
    borrowed = {one.path: one.sha256 for one in manifest.borrowed}
    configs = {one.path.removeprefix(_CONFIG): one.sha256 for one in manifest.files if _is_own(one)}
    try:
        known = Science(
            manifest.tool, manifest.stages, {**inputs, **borrowed}, software_of(manifest)
        )
    except UsageError:
        return None
    return known.bundle_id(configs)


def _of_units(side: SweepSide) -> Iterator[str]:
    """Yield what is wrong with points and shared work, each once."""
    works = (Work(one.place, one.seal, ()) for one in side.units)
    altered = altered_units(side.sweep, works)
    yield from (f"{place}: {reason}" for place, reason in altered.items())
    for entry in side.units:
        if entry.place not in altered:
            yield from _contradictions(entry, load_json(side.sweep.unit(entry.place).manifest))


def _contradictions(entry: Entry, said: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what the sweep's manifest, which is not sealed, contradicts a unit's own."""
    wrong = [
        name for name in _SAID if hasattr(entry, name) and said.get(name) != getattr(entry, name)
    ]
    if wrong:
        yield f"{entry.place}: sweep_manifest.json has another {', '.join(wrong)}"
