"""Images from a file into the store: a SIF, or what `valska image export` made."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images import describe
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store.beside import require_named
from valska.external_tools.core.images.store.copying import cannot_copy, copy_file
from valska.external_tools.core.images.store.exporting import SUMS
from valska.external_tools.core.images.store.holding import unwritable
from valska.external_tools.core.images.store.imagestore import ImageStore
from valska.external_tools.core.images.store.receipt import digest_image
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.tarring import (
    NotPlainError,
    begins_as_tar,
    contents,
    next_member,
    require_end,
)
from valska.external_tools.core.utils import sha256_file

_SUFFIXES = r"\.[A-Za-z0-9._+-]{1,40}"
_MEMBER = re.compile(rf"(?:\./)?({re.escape(SUMS)}|sha256/[0-9a-f]{{64}}(?:\.[a-z]+){{1,3}})")
_FOLDER = re.compile(r"\.|(?:\./)?sha256/?")
_SUM = re.compile(rf"([0-9a-f]{{64}})  (sha256/[0-9a-f]{{64}}{_SUFFIXES})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Imported:
    """An image in the store.

    Parameters
    ----------
    record
        Its record.
    new
        Whether it came now; otherwise it was there.
    """

    record: ImageRecord
    new: bool


def import_images(
    path: Path, store: ImageStore, *, apptainer: str = "apptainer", run: Run = run
) -> list[Imported]:
    """Take images into the store; those that are there already stay as they are.

    Parameters
    ----------
    path
        A SIF, with or without its record beside it (``<name>.json``), or an export: a directory
        or a tar file.
    store
        Where to.
    apptainer
        Asked about an image that has no record.
    run
        Runs programs.

    Raises
    ------
    PrerequisiteError
        If there is no such file, it cannot be read, it is not an image, or the store cannot be
        written.
    UsageError
        If a tar file or a directory is not an export.
    VerificationError
        If an image, or what belongs to it, is altered or cut off.
    ValskaError
        If it cannot be copied.
    """
    path = path.expanduser().absolute()
    if os.path.isdir(path):  # noqa: PTH112 - of a name that is too long, pathlib raises
        return _import_export(path, path, store, apptainer, run)
    if _is_tar(path):
        with store.workspace() as work:
            _unpack(path, work)
            return _import_export(work, path, store, apptainer, run, move=True)
    return [_import_sif(path, store, apptainer, run)]


def rehearse_import(
    path: Path, store: ImageStore, *, apptainer: str = "apptainer", run: Run = run
) -> list[Imported]:
    """Return what `import_images` would take, checked as that does; nothing is stored.

    Parameters and errors are those of `import_images`. A tar file is unpacked where that unpacks
    it, for as long as this takes.
    """
    path = path.expanduser().absolute()
    if os.path.isdir(path):  # noqa: PTH112 - of a name that is too long, pathlib raises
        return _examined(_places(path, path), store, apptainer, run)
    if _is_tar(path):
        with _scratch(store) as work:
            _unpack(path, work)
            return _examined(_places(work, path), store, apptainer, run)
    return _examined([path], store, apptainer, run)


@contextmanager
def _scratch(store: ImageStore) -> Iterator[Path]:
    """Make a directory on the store's file system: where others are, there may be less room."""
    from valska.external_tools.core.images.scratch import claim_directory

    place = store.root.absolute()
    while not os.path.lexists(place):
        place = place.parent
    try:
        work = claim_directory(place, ".build-")
    except OSError as error:
        raise unwritable(store.root, error) from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _examined(
    places: Iterable[Path], store: ImageStore, apptainer: str, run: Run
) -> list[Imported]:
    return [_examine(place, store, apptainer, run) for place in places]


def _examine(path: Path, store: ImageStore, apptainer: str, run: Run) -> Imported:
    sha256 = digest_image(path)
    require_named(path, sha256)
    if known := _known(store, sha256):
        return Imported(known, new=False)
    record, _ = describe(path, sha256, apptainer=apptainer, run=run)
    with _scratch(store):  # what is new needs a store that can be written
        return Imported(record, new=True)


def _import_sif(
    path: Path, store: ImageStore, apptainer: str, run: Run, *, move: bool = False
) -> Imported:
    sha256 = digest_image(path)
    require_named(path, sha256)
    if known := _known(store, sha256):
        return Imported(known, new=False)
    with store.holding(sha256, f"importing {path.name}"):
        if known := _known(store, sha256):
            return Imported(known, new=False)
        record, files = describe(path, sha256, apptainer=apptainer, run=run)
        with store.workspace() as work:
            copy = path if move else work / "image.sif"
            if not move and copy_file(path, copy) != sha256:
                raise VerificationError(
                    f"{path} was changed while it was copied", "Import it again."
                )
            return Imported(store.add(copy, record, files), new=True)


def _known(store: ImageStore, sha256: str) -> ImageRecord | None:
    """Return the record of an image that is in the store, whole and readable."""
    try:
        for record in store.find(sha256):
            store.check(sha256)
            return record
    except ValskaError as error:
        log.warning("what the store has is replaced: %s", error.message)
    return None


def _import_export(
    directory: Path, named: Path, store: ImageStore, apptainer: str, run: Run, *, move: bool = False
) -> list[Imported]:
    places = _places(directory, named)
    return [_import_sif(place, store, apptainer, run, move=move) for place in places]


def _places(directory: Path, named: Path) -> list[Path]:
    """Return the images of an export, the files beside which are as its list of digests says."""
    export = ImageStore(directory)
    places = [export.sif(place.stem) for place in export.records()]
    if not places or not (directory / SUMS).is_file():
        raise UsageError(
            f"{named} is not an export of images",
            "Name a .sif file, or what `valska image export` made.",
        )
    _check_sums(directory, named)
    return places


def _check_sums(directory: Path, named: Path) -> None:
    """Check what an export's list of digests names, but for the images: they are read anyway."""
    for line in (directory / SUMS).read_text(errors="replace").splitlines():
        match = _SUM.fullmatch(line)
        if match is None:
            raise VerificationError(f"{named}: {SUMS} has been altered", "Export it again.")
        path = directory / match[2]
        if not path.is_file():
            raise VerificationError(f"{named}: {match[2]} is missing", "Export it again.")
        if path.suffix != ".sif" and sha256_file(path) != match[1]:
            raise VerificationError(f"{named}: {match[2]} has been altered", "Export it again.")


def _is_tar(path: Path) -> bool:
    try:
        return begins_as_tar(path)
    except FileNotFoundError as error:
        raise PrerequisiteError(
            f"no such image: {path}", "Name a .sif file, an export, or oras://… or docker://…."
        ) from error
    except OSError as error:
        raise PrerequisiteError(
            f"cannot read the image {path}: {error.strerror}", "Check its permissions."
        ) from error


def _unpack(path: Path, directory: Path) -> None:
    """Write the members of an export below a directory; no other name is taken."""
    with _readable(path, directory), path.open("rb") as file:
        (directory / "sha256").mkdir()
        while (member := next_member(file, str(path), directories=_FOLDER)) is not None:
            match = _MEMBER.fullmatch(member.name)
            if match is None:
                raise _no_export(path, member.name)
            with (directory / match[1]).open("xb") as target:
                target.writelines(contents(file, member, str(path)))
        require_end(file, str(path))


def _no_export(path: Path, what: str, hint: str | None = None) -> UsageError:
    return UsageError(
        f"{path} is not an export of images: it holds {what}",
        hint or "A kit is taken in by `valska load`.",
    )


@contextmanager
def _readable(path: Path, directory: Path) -> Iterator[None]:
    try:
        yield
    except NotPlainError as error:
        hint = "Export it again." if _MEMBER.fullmatch(error.name) else None
        what = f"{error.name}, which is no plain file"
        raise _no_export(path, what, error.hint or hint) from error
    except FileExistsError as error:
        raise UsageError(f"{path} holds one name twice", "Export it again.") from error
    except OSError as error:
        raise cannot_copy(path, directory / "x", error) from error
