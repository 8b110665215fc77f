"""Images for bundles: what a reference stands for."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images import apptainer as programs
from valska.external_tools.core.images.definition import SUFFIX, shipped_definitions
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.beside import (
    definition_inside,
    files_beside,
    record_beside,
)
from valska.external_tools.core.images.store.receipt import digest_image
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.utils import sha256_bytes, sha256_file, utc_now_iso

__all__ = [
    "RECORD_SUFFIX",
    "adopt",
    "digest_image",
    "find_record",
    "resolve_image",
    "shipped_digests",
]

RECORD_SUFFIX = ".image.json"

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")

log = logging.getLogger(__name__)


def resolve_image(
    reference: str | None,
    store: ImageStore,
    *,
    definition: str | None = None,
    apptainer: str = "apptainer",
    run: Run = run,
) -> BundledImage:
    """Return the image that a reference stands for.

    Parameters
    ----------
    reference
        A path of a SIF, a digest (``sha256:<digits>``, or their start), or the name of a
        definition. None: the newest image of the tool's definition as shipped.
    store
        Where images are.
    definition
        File name of the tool's shipped definition.
    apptainer
        Asked about an image that has no record.
    run
        Runs programs.

    Raises
    ------
    PrerequisiteError
        If there is no such image, or only one of an older definition.
    VerificationError
        If the image in the store has been altered.
    """
    if reference is None:
        return _bundled(store, _current(store, definition or ""))
    if "/" in reference or reference.endswith(".sif"):
        return adopt(Path(reference), store, apptainer=apptainer, run=run)
    return _bundled(store, find_record(reference, store))


def find_record(reference: str, store: ImageStore) -> ImageRecord:
    """Return the record of the image in the store that a digest or a name stands for.

    Parameters
    ----------
    reference
        A digest (``sha256:<digits>``, or their start), or the name of a definition: its newest
        image.
    store
        Where images are.

    Raises
    ------
    PrerequisiteError
        If there is no such image, or several digests begin so.
    """
    match = _DIGEST.fullmatch(reference)
    if match and (len(match[1]) == 64 or ":" in reference or store.records(match[1])):
        return store.get(match[1])
    record = store.newest(reference.removesuffix(SUFFIX))
    if record is None:
        raise _missing(store, reference.removesuffix(SUFFIX))
    return record


def adopt(
    path: Path, store: ImageStore, *, apptainer: str = "apptainer", run: Run = run
) -> BundledImage:
    """Return an image that lies somewhere else, and stays there.

    Its record is the store's, if the store knows the digest, or the one beside it
    (``<name>.json``), if that is of this digest; else it is made from what the image says
    of itself.

    Raises
    ------
    PrerequisiteError
        If there is no such file, it cannot be read, or it is not an image.
    """
    path = path.expanduser().absolute()
    sha256 = digest_image(path)
    known = store.find(sha256)
    if known:
        return _image(path, known[0], store.files(known[0]))
    return _image(path, *describe(path, sha256, apptainer=apptainer, run=run))


def describe(
    path: Path, sha256: str, *, apptainer: str = "apptainer", run: Run = run
) -> tuple[ImageRecord, dict[str, bytes]]:
    """Return the record of an image outside of the store, and name and content of its files.

    Parameters
    ----------
    path, sha256
        The image and its digest.
    apptainer
        Asked about an image that has no record of this digest beside it.
    run
        Runs programs.

    Raises
    ------
    PrerequisiteError
        If it is not an image, or is cut off or, as far as its file system's head tells, altered.
    """
    for place in dict.fromkeys((path, Path(os.path.realpath(path)))):
        record = record_beside(place, sha256)
        if record is not None:
            return record, files_beside(place, record)
    return _unknown(path, sha256, apptainer, run)


def shipped_digests(path: Path) -> tuple[str, str | None]:
    """Return the digests of a definition that comes with valska and of its lock."""
    lock = path.with_suffix(".lock")
    return sha256_file(path), sha256_file(lock) if lock.is_file() else None


def _current(store: ImageStore, definition: str) -> ImageRecord:
    name = definition.removesuffix(SUFFIX)
    shipped = shipped_definitions().get(name)
    if shipped is None:
        raise PrerequisiteError(f"no definition named {name!r} comes with valska")
    digest, lock = shipped_digests(shipped)
    record = store.newest(name, definition_sha256=digest, lock_sha256=lock)
    if record is not None:
        return record
    older = store.newest(name)
    if older is None:
        raise _missing(store, name)
    raise PrerequisiteError(
        f"the newest image of {name} in {store.root}, {older.sha256[:12]}, is of another "
        "definition or lock than valska has now",
        f"Build it: valska build containers/{name}{SUFFIX} "
        f"(or take that one: --image sha256:{older.sha256[:12]}).",
    )


def _missing(store: ImageStore, name: str) -> PrerequisiteError:
    if name in shipped_definitions():
        hint = f"Build one: valska build containers/{name}{SUFFIX} (or name a file: --image PATH)."
    else:
        known = sorted({record.name for record in store.list()})
        hint = f"It has images of: {', '.join(known) or 'nothing'}. For a file, write ./{name}."
    return PrerequisiteError(f"no image of {name} in the store {store.root}", hint)


def _bundled(store: ImageStore, record: ImageRecord) -> BundledImage:
    store.check(record.sha256)
    return _image(store.sif(record.sha256).absolute(), record, store.files(record))


def _image(path: Path, record: ImageRecord, sources: Mapping[str, bytes]) -> BundledImage:
    files = {f"{record.name}{RECORD_SUFFIX}": ("image-record", record.to_bytes())}
    for role, entry in (("definition", record.definition), ("lock", record.lock)):
        if entry is not None and entry["name"] in sources:
            files[entry["name"]] = (role, sources[entry["name"]])
    return BundledImage(path, record.sha256, record.size, record.facts, files)


def _file_system(path: Path) -> str | None:
    """Return the digest of a SIF's file system, or None of one that is encrypted or no squashfs.

    It is refused if it does not begin as a squashfs, or does not fit in.
    """
    from valska.external_tools.core.images.sif import read_sif
    from valska.external_tools.core.images.squashfs import require_whole

    sif = read_sif(path)
    if sif.system is None:
        return None
    require_whole(path, sif.system.offset, sif.system.size)
    return sif.sha256(sif.system)


def _packages(path: Path, apptainer: str, run: Run) -> dict[str, Any]:
    """Return what an image's files say of its packages, and rpm where it needs rpm."""
    from valska.external_tools.core.images.contents import open_image
    from valska.external_tools.core.images.packages import read_packages

    try:
        found = read_packages(
            open_image(path), lambda argv: programs.ask(apptainer, path, tuple(argv), run=run)
        )
    except PrerequisiteError as error:
        log.warning("its record does not name its packages: %s", error.message)
        return {"python": None, "system": None}
    return found.to_json()


def _unknown(
    path: Path, sha256: str, apptainer: str, run: Run
) -> tuple[ImageRecord, dict[str, bytes]]:
    file_system = _file_system(path)
    inside = definition_inside(path)
    attributes = programs.inspect(apptainer, path, run=run)
    text = inside or str(attributes.get("deffile") or "").encode()
    name = re.sub(r"[^A-Za-z0-9._+=-]", "_", path.stem).lstrip("._+=-") or "image"
    definition = {"name": f"{name}{SUFFIX}", "sha256": sha256_bytes(text)} if text else None
    record = ImageRecord(
        sha256=sha256,
        size=path.stat().st_size,
        rootfs_sha256=file_system,
        name=name,
        created_utc=utc_now_iso(),
        origin="adopted",
        definition=definition,
        apptainer_version=programs.built_with(attributes),
        packages=_packages(path, apptainer, run),
        labels=programs.own_labels(attributes),
    )
    log.info("%s was not built by valska: its record says what it tells of itself", os.fspath(path))
    return record, {definition["name"]: text} if definition else {}
