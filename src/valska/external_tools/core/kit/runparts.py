"""What runs need: the image, and the inputs that lie outside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.layout import suffix_of
from valska.external_tools.core.kit.document import Kind
from valska.external_tools.core.kit.parts import STORE, KitRequest, Part, Purpose, small_part
from valska.external_tools.core.kit.supplies import SHORT, Supplies
from valska.external_tools.core.kit.targets import Target, TargetImage

_IMAGE_FILE = re.compile(r"[0-9a-f]{64}((?:\.[a-z0-9]{1,16}){1,2})")
_NOT_PACKED = frozenset((".sif", ".sif.receipt", ".aside"))


def parts_to_run(request: KitRequest, notes: list[str]) -> list[Part]:
    """Return what runs need; what will be missing is added to the notes.

    Raises
    ------
    PrerequisiteError
        Naming everything that is not here.
    """
    missing: list[str] = []
    parts = [*_inputs(request, missing), *_image(request, missing, notes)]
    notes += _not_packed(request.target)
    if missing:
        raise PrerequisiteError(
            f"a kit for {request.target.name} needs what is not here: {'; '.join(missing)}",
            "Bring it back, or fetch what a build needs: --for build.",
        )
    return parts


def _not_packed(target: Target) -> Iterator[str]:
    for entry in target.borrowed:
        yield (
            f"the directory {entry.source} ({entry.files} files, {entry.size} bytes): copy it "
            f"yourself, and name its place for {entry.path} in site.env"
        )
    if target.left_out:
        yield (
            f"what {target.name} has left out of its bundle: {', '.join(target.left_out)}; "
            "take an archive that has it"
        )


def _image(request: KitRequest, missing: list[str], notes: list[str]) -> list[Part]:
    target, root = request.target, request.store.root
    if target.image is not None and _image_path(target.image, request.store):
        return [*_image_parts(target.image, request.store)]
    if target.image is not None:
        digest = target.image.sha256[:SHORT]
        missing.append(f"the image {digest}, neither in {root} nor where the bundle was made")
    elif target.kind == "definition":
        text = f"no image of {target.name} as it is now is in the store {root}"
        if request.purpose is Purpose.RUN:
            hint = "Build it first, or fetch what a build needs: --for build."
            raise PrerequisiteError(text, hint)
        notes.append(f"the image: {text}")
    return []


def _inputs(request: KitRequest, missing: list[str]) -> Iterator[Part]:
    supplies = Supplies(request.store.root)
    for entry, place in request.target.inputs:
        path = place or supplies.input(entry.sha256)
        if path is None:
            missing.append(f"the input {entry.name}, {entry.source}")
            continue
        yield Part(
            kind=Kind.INPUT,
            name=entry.name,
            path=f"inputs/sha256/{entry.sha256}",
            origin=os.fspath(path) if place else STORE,
            source=path,
            sha256=entry.sha256,
            size=entry.size,
        )


def _image_path(image: TargetImage, store: ImageStore) -> Path | None:
    stored = store.sif(image.sha256)
    return stored if store.find(image.sha256) and stored.is_file() else image.path


def _image_parts(image: TargetImage, store: ImageStore) -> Iterator[Part]:
    path = _image_path(image, store)
    assert path is not None  # noqa: S101 - the caller has looked
    stored = path == store.sif(image.sha256)
    origin = STORE if stored else os.fspath(path)
    name = image.record.name if image.record else path.stem
    yield Part(
        kind=Kind.IMAGE,
        name=name,
        path=f"images/sha256/{image.sha256}.sif",
        origin=origin,
        source=path,
        sha256=image.sha256,
        size=path.stat().st_size,
    )
    files = _stored_files(store, image.sha256) if stored else _own_files(image)
    for suffix, data in files:
        yield small_part(
            Kind.IMAGE_FILE,
            f"{name}{suffix}",
            f"images/sha256/{image.sha256}{suffix}",
            data,
            origin,
        )


def _stored_files(store: ImageStore, sha256: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(store.directory.glob(f"{sha256}.*")):
        match = _IMAGE_FILE.fullmatch(path.name)
        if match and match[1] not in _NOT_PACKED:
            yield match[1], path.read_bytes()


def _own_files(image: TargetImage) -> Iterator[tuple[str, bytes]]:
    """Yield what a bundle has of an image that is in no store."""
    if image.record is None:
        return
    yield ".json", image.record.to_bytes()
    for name, path in image.files.items():
        known = [entry["name"] for entry in (image.record.definition, image.record.lock) if entry]
        if name in known:
            yield suffix_of(name), path.read_bytes()
