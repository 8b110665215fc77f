"""What is to be reproduced: a bundle, a sweep, a point of one, or an archive of these."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.container import TRAILER_BYTES
from valska.external_tools.core.archive.document import ArchiveDocument, parse_document
from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    VerificationError,
)
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.reproduction.replay import Parent, check_science
from valska.external_tools.core.run_directory import Bundle, TakenError, is_bundle
from valska.external_tools.core.seal import Finding, FindingKind, verify_bundle
from valska.external_tools.core.submission.outside import find_outside
from valska.external_tools.core.sweep.document import (
    SweepManifest,
    read_common,
    read_sweep_manifest,
)
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_sweep, open_unit
from valska.external_tools.core.utils import load_json, write_json_atomic

_OF_SWEEP = "../../"
"""What a point's seal begins the paths with of what it shares with others."""


@dataclass(frozen=True, slots=True)
class Located:
    """A bundle that was found, not yet checked.

    Parameters
    ----------
    bundle
        The bundle, or a point of a sweep.
    manifest
        Its manifest.
    top
        Directory of the archive that it was unpacked from; None for a bundle by itself.
    document
        What that archive says of itself.
    whole
        Whether all files are there that the archive has; else only what says what they are.
    """

    bundle: Bundle
    manifest: Manifest
    top: Path | None = None
    document: ArchiveDocument | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class LocatedSweep:
    """A sweep that was found, not yet checked; see `Located`."""

    sweep: Sweep
    manifest: SweepManifest
    common: Manifest
    top: Path | None = None
    document: ArchiveDocument | None = None
    whole: bool = True


def locate(
    path: Path, unpacked: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Located | LocatedSweep:
    """Find the bundle or the sweep that a path names, unpacking an archive.

    Of an archive of one point that point is found.

    Parameters
    ----------
    path
        A bundle, a sweep, a point of one, an archive, or the directory of one that was unpacked.
    unpacked
        Where an archive is unpacked, in a directory that is there; what an earlier call has
        unpacked there is taken.
    progress
        Told the bytes of an archive that were read, and all.

    Raises
    ------
    ValskaError
        If it is none of these, or the archive is not as it was packed.
    """
    if path.is_file():
        _unpack(path, unpacked, progress)
        return _in_archive(unpacked)
    if not path.is_dir():
        raise UsageError(f"no such bundle or archive: {path}", "Check the path.")
    if (path / places.DOCUMENT).is_file() and not is_bundle(path):
        return _in_archive(path)
    if is_sweep(path):
        return _sweep(open_sweep(path), *_archive_of(path.absolute()))
    unit = open_unit(path)
    return Located(unit, read_manifest(unit), *_archive_of(unit.shared_path))


def open_parent(located: Located, store: Path) -> Parent:
    """Return a bundle that can be reproduced: sealed, intact, and what its id says.

    Parameters
    ----------
    located
        The bundle.
    store
        The image store, which may hold inputs that were left out.

    Raises
    ------
    VerificationError
        If a sealed file or an input is altered, or the bundle id is not that of its content.
    PrerequisiteError
        If an input was left out of the archive, or is no longer there.
    """
    bundle, manifest = located.bundle, located.manifest
    outside = outside_of(located, bundle.site_env, manifest, store)
    bad = unless_left_out(located, verify_bundle(bundle, places=outside)) if located.whole else []
    if bad:
        raise not_as_made(bundle.path, bad)
    parent = parent_of(located, bundle, manifest, outside)
    check_science(parent)
    return parent


def outside_of(
    located: Located | LocatedSweep, site_env: Path, manifest: Manifest, store: Path
) -> dict[str, str]:
    """Return where is now what lies outside: place in the bundle to real path.

    Raises
    ------
    PrerequisiteError
        If inputs were left out of the archive, or are no longer there; it names them all.
    """
    supplies, packed = Supplies(store), dict(_packed(located))
    found = {**find_outside(site_env, manifest, supplies).places, **packed}
    missing = [
        f"{place} ({path})"
        for place, path in found.items()
        if place not in packed and not os.path.exists(path)  # noqa: PTH110 - Path.exists can fail
    ]
    for entry in manifest.inputs:
        if entry.path in _left_out(located):
            path = supplies.input(entry.sha256)
            found[entry.path] = os.fspath(path or "")
            missing += [] if path else [f"{entry.path} (left out of the archive)"]
    if missing:
        raise PrerequisiteError(
            f"not here, nor in the store {store}: {', '.join(missing)}",
            "Put them where they were, load them with `valska load`, or have them packed. Where "
            "inputs are that lie outside, a bundle's site.env says.",
        )
    return found


def unless_left_out(located: Located | LocatedSweep, found: Iterable[Finding]) -> list[Finding]:
    """Return findings but for those of files that the archive does not hold on purpose."""
    left_out = _left_out(located)
    return [
        one
        for one in found
        if one.kind is not FindingKind.MISSING or one.path.removeprefix(_OF_SWEEP) not in left_out
    ]


def not_as_made(path: Path, found: Iterable[Finding | str]) -> VerificationError:
    """Return the error that names what is wrong with what is to be reproduced."""
    return VerificationError(
        f"{path} is not as it was made: " + "; ".join(map(str, found)),
        "Restore these files, or say in site.env where inputs are that lie outside.",
    )


def parent_of(
    located: Located | LocatedSweep,
    bundle: Bundle,
    manifest: Manifest,
    outside: Mapping[str, str],
) -> Parent:
    """Return a bundle, or what points of a sweep share, with where its inputs and image are."""
    image = located.document.image if located.document else None
    return Parent(
        bundle,
        manifest,
        outside,
        _packed_image(located),
        image.published if image else (),
        located.document is not None,
        located.document is None or located.document.outputs,
    )


def archive_end(path: Path) -> str:
    """Return the last bytes of an archive, in hexadecimal; they tell it from another."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TRAILER_BYTES, 0))
        return file.read().hex()


def _unpack(path: Path, unpacked: Path, progress: Callable[[int, int], None]) -> None:
    """Unpack an archive, unless an earlier call has; its last bytes tell it from another."""
    note = unpacked.with_name(f"{unpacked.name}.json")
    mark = {"archive": path.name, "end": archive_end(path)}
    if not unpacked.is_dir():
        write_json_atomic(note, mark)
        try:
            unpack_archive(path, unpacked.parent, unpacked, progress=progress)
        except BaseException:
            note.unlink(missing_ok=True)
            raise
    elif not note.is_file() or load_json(note)["end"] != mark["end"]:
        raise TakenError(
            f"{unpacked} was not unpacked from {path}", "Choose another directory with -o DIR."
        )


def _in_archive(top: Path) -> Located | LocatedSweep:
    document = parse_document((top / places.DOCUMENT).read_bytes())
    path = top / places.BUNDLE
    if not is_sweep(path):
        bundle = open_unit(path)
        return Located(bundle, read_manifest(bundle), top, document)
    sweep = open_sweep(path)
    points = [one for one in document.units or () if one.startswith(f"{sweep.points.name}/")]
    if len(points) == 1:
        bundle = sweep.unit(points[0])
        return Located(bundle, read_manifest(bundle), top, document)
    return _sweep(sweep, top, document)


def _sweep(sweep: Sweep, top: Path | None, document: ArchiveDocument | None) -> LocatedSweep:
    return LocatedSweep(sweep, read_sweep_manifest(sweep), read_common(sweep), top, document)


def _archive_of(whole: Path) -> tuple[Path | None, ArchiveDocument | None]:
    """Return the archive that a bundle or sweep was unpacked from, if it still is one."""
    top = whole.parent.parent
    if whole != top / places.BUNDLE or not (top / places.DOCUMENT).is_file():
        return None, None
    return top, parse_document((top / places.DOCUMENT).read_bytes())


def _left_out(located: Located | LocatedSweep) -> set[str]:
    return {one.path for one in located.document.left_out} if located.document else set()


def _packed(located: Located | LocatedSweep) -> Iterator[tuple[str, str]]:
    if located.document is None or located.top is None:
        return
    for place, packed in located.document.references.items():
        if packed is not None:
            yield place, os.fspath(located.top / packed)


def _packed_image(located: Located | LocatedSweep) -> Path | None:
    if located.document is None or located.top is None or located.document.image is None:
        return None
    packed = located.document.image.path
    return located.top / packed if packed else None
