"""What is to be reproduced: a bundle, a point of a sweep, or an archive of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.container import TRAILER_BYTES
from valska.external_tools.core.archive.document import ArchiveDocument, parse_document
from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.errors import PrerequisiteError, UsageError, VerificationError
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.reproduction.replay import Parent, check_science
from valska.external_tools.core.run_directory import Bundle, TakenError, is_bundle
from valska.external_tools.core.seal import FindingKind, verify_bundle
from valska.external_tools.core.submission.outside import find_outside
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_unit
from valska.external_tools.core.utils import load_json, write_json_atomic


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
    """

    bundle: Bundle
    manifest: Manifest
    top: Path | None = None
    document: ArchiveDocument | None = None


def locate(
    path: Path, unpacked: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Located:
    """Find the bundle that a path names, unpacking an archive.

    Parameters
    ----------
    path
        A bundle, a point of a sweep, an archive, or the directory of one that was unpacked.
    unpacked
        Where an archive is unpacked; what an earlier call has unpacked there is taken.
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
    unit = open_unit(path)
    top = _top_of(unit)
    document = parse_document((top / places.DOCUMENT).read_bytes()) if top else None
    return Located(unit, read_manifest(unit), top, document)


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
    bundle, manifest, supplies = located.bundle, located.manifest, Supplies(store)
    known = find_outside(bundle.site_env, manifest, supplies).places
    outside = {**known, **dict(_packed(located))}
    left_out = {one.path for one in located.document.left_out} if located.document else set()
    found = verify_bundle(bundle, places=outside)
    bad = [one for one in found if one.kind is not FindingKind.MISSING or one.path not in left_out]
    if bad:
        raise VerificationError(
            f"{bundle.path} is not as it was made: " + "; ".join(map(str, bad)),
            "Restore these files, or say in site.env where inputs are that lie outside.",
        )
    parent = Parent(
        bundle,
        manifest,
        {**outside, **dict(_supplied(manifest, left_out, supplies))},
        _packed_image(located),
        located.document.image.published if located.document and located.document.image else (),
    )
    check_science(parent)
    return parent


def _unpack(path: Path, unpacked: Path, progress: Callable[[int, int], None]) -> None:
    """Unpack an archive, unless an earlier call has; its last bytes tell it from another."""
    note = unpacked.with_name(f"{unpacked.name}.json")
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TRAILER_BYTES, 0))
        mark = {"archive": path.name, "end": file.read().hex()}
    if not unpacked.is_dir():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(note, mark)
        unpack_archive(path, unpacked.parent, unpacked, progress=progress)
    elif not note.is_file() or load_json(note)["end"] != mark["end"]:
        raise TakenError(
            f"{unpacked} was not unpacked from {path}", "Choose another directory with -o DIR."
        )


def _in_archive(top: Path) -> Located:
    document = parse_document((top / places.DOCUMENT).read_bytes())
    bundle = _unit_of(top / places.BUNDLE)
    return Located(bundle, read_manifest(bundle), top, document)


def _unit_of(path: Path) -> Bundle:
    """Return the bundle of an archive; of a sweep's the only point."""
    if not is_sweep(path):
        return open_unit(path)
    points = sorted(one.name for one in Sweep(path).points.iterdir() if is_bundle(one))
    if len(points) != 1:
        raise UsageError(
            f"{path} is a sweep of {len(points)} points",
            f"Name one of them: {path}/points/{points[0] if points else 'LABEL'}",
        )
    return open_unit(Sweep(path).points / points[0])


def _top_of(unit: Bundle) -> Path | None:
    """Return the directory of the archive that a bundle was unpacked from, if it still is one."""
    whole = unit.shared_path
    top = whole.parent.parent
    is_one = whole == top / places.BUNDLE and (top / places.DOCUMENT).is_file()
    return top if is_one else None


def _packed(located: Located) -> Iterator[tuple[str, str]]:
    if located.document is None or located.top is None:
        return
    for place, packed in located.document.references.items():
        if packed is not None:
            yield place, os.fspath(located.top / packed)


def _packed_image(located: Located) -> Path | None:
    if located.document is None or located.top is None or located.document.image is None:
        return None
    packed = located.document.image.path
    return located.top / packed if packed else None


def _supplied(
    manifest: Manifest, left_out: set[str], supplies: Supplies
) -> Iterator[tuple[str, str]]:
    """Yield where inputs are that were not packed: in the store, by their digests."""
    for entry in manifest.inputs:
        if entry.path in left_out:
            path = supplies.input(entry.sha256)
            if path is None:
                raise PrerequisiteError(
                    f"the input {entry.name} was left out of the archive, and is not in the store",
                    "Pack it with its inputs, or load them: `valska load`.",
                )
            yield entry.path, os.fspath(path)
