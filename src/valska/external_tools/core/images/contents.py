"""What is in one image: its record, packages and files, read no sooner than they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.images.listing import SUFFIX, Listing, list_tree
from valska.external_tools.core.images.packages import (
    Ask,
    Package,
    Packages,
    read_packages,
    recorded_packages,
)
from valska.external_tools.core.images.packages.model import RPM
from valska.external_tools.core.images.packages.ownership import Key, read_owners
from valska.external_tools.core.images.record import ImageRecord, read_record
from valska.external_tools.core.images.tree import DirectoryTree, Tree
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.utils import sha256_file

if TYPE_CHECKING:
    from valska.external_tools.core.images.store import ImageStore

RECORD_SUFFIX = ".json"


class Contents:
    """What is in an image.

    Parameters
    ----------
    title
        How to call it.
    record
        Its record, if it has one.
    tree
        Its files, where they are at hand.
    listing
        File with its listing, if that is kept.
    sif
        The image itself, where it is at hand.
    ask
        Runs a program in the image, for rpm where no record has its answer.
    """

    def __init__(
        self,
        title: str,
        *,
        record: ImageRecord | None = None,
        tree: Path | Tree | None = None,
        listing: Path | None = None,
        sif: Path | None = None,
        ask: Ask | None = None,
    ) -> None:
        self.title, self.record = title, record
        self._tree = DirectoryTree(tree) if isinstance(tree, Path) else tree
        self._kept, self._sif, self._ask = listing, sif, ask

    @cached_property
    def sha256(self) -> str | None:
        """Digest of the SIF, where there is one."""
        if self.record is not None:
            return self.record.sha256
        return _digest(self._sif) if self._sif else None

    @cached_property
    def tree(self) -> Tree | None:
        """The files, where they are at hand."""
        return open_image(self._sif) if self._tree is None and self._sif else self._tree

    @cached_property
    def tree_sha256(self) -> str | None:
        """Digest of the listing, where it is known or can be made."""
        if self.record is not None and self.record.tree_sha256:
            return self.record.tree_sha256
        return self.listing.sha256 if self.listing else None

    @cached_property
    def listing(self) -> Listing | None:
        """The listing: the kept one if it is the record's, else made of the files."""
        kept = self._kept_listing()
        if kept is not None:
            return kept
        return list_tree(self.tree) if self.tree is not None else None

    @cached_property
    def packages(self) -> Packages:
        """The packages: of the files, else of the record; rpm's of the record, else of rpm."""
        recorded = recorded_packages(self.record.packages if self.record else {})
        if self.tree is None:
            return recorded
        if not recorded.of(RPM):
            return read_packages(self.tree, self._ask)
        found = read_packages(self.tree)
        return Packages(
            tuple(sorted((*found.all, *recorded.of(RPM)), key=Package.sort_key)),
            found.interpreters,
            found.distribution,
            asked=True,
        )

    @cached_property
    def owners(self) -> Mapping[bytes, Key]:
        """The package that each file belongs to; empty where the files are not at hand."""
        return read_owners(self.tree, self.packages.all) if self.tree is not None else {}

    def _kept_listing(self) -> Listing | None:
        if self._kept is None or not self._kept.is_file():
            return None
        with suppress(OSError, ValskaError):
            found = Listing.from_bytes(self._kept.read_bytes(), str(self._kept))
            if self.record is None or self.record.tree_sha256 in (None, found.sha256):
                return found
        return None


def find_contents(
    reference: str, store: ImageStore, apptainer: str | None = None, run: Run = run
) -> Contents:
    """Return what is in the image that a reference stands for.

    Parameters
    ----------
    reference
        A SIF, a record (``.json``), a directory with an image's files; or, of an image in the
        store, its digest, the start of it, or the name of its definition.
    store
        Where images are.
    apptainer
        Runs rpm in an image that has it and no record; without it such packages are not known.
    run
        Runs programs.

    Raises
    ------
    PrerequisiteError
        If there is no such image, or it cannot be read.
    VerificationError
        If the image in the store has been altered.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return Contents(str(path), tree=path)
    if path.suffix == RECORD_SUFFIX:
        return record_contents(path, store)
    if "/" in reference or path.suffix == ".sif":
        return image_contents(path, store=store, ask=_asking(apptainer, path, run))
    digest = reference.removeprefix("sha256:")
    record = store.newest(reference.removesuffix(".def")) if digest == reference else None
    record = record or store.get(digest)
    store.check(record.sha256)
    return image_contents(store.sif(record.sha256), record)


def image_contents(
    sif: Path,
    record: ImageRecord | None = None,
    store: ImageStore | None = None,
    ask: Ask | None = None,
) -> Contents:
    """Return what is in a SIF, with its record and listing: those beside it, or the store's.

    Raises
    ------
    PrerequisiteError
        If there is no such file, or it is no SIF.
    """
    if not sif.is_file():
        raise PrerequisiteError(f"no such image: {sif}", "Name a SIF, or an image in the store.")
    if record is not None:
        title = f"{record.name} {record.sha256[:12]}"
        return Contents(title, record=record, listing=sif.with_suffix(SUFFIX), sif=sif)
    record = _record_of(sif, store)
    listing = _listing_of(record, sif, store) if record is not None else None
    return Contents(str(sif), record=record, listing=listing, sif=sif, ask=ask)


def record_contents(path: Path, store: ImageStore | None = None) -> Contents:
    """Return what a record tells, with its listing and image: those beside it, or the store's.

    Raises
    ------
    UsageError
        If it is not an image record.
    """
    try:
        record = read_record(path)
    except UsageError:
        raise
    except ValskaError as error:
        raise UsageError(error.message, "Name an image, or a record of one.") from error
    beside = path.with_suffix(".sif")
    sif = beside if path.stem == record.sha256 and beside.is_file() else None
    if sif is None and store is not None and store.find(record.sha256):
        sif = store.sif(record.sha256)
    return Contents(str(path), record=record, listing=_listing_of(record, path, store), sif=sif)


def _asking(apptainer: str | None, sif: Path, run: Run) -> Ask | None:
    """Return what runs a program in an image."""
    from valska.external_tools.core.images.apptainer import ask

    if apptainer is None:
        return None
    return lambda argv: ask(apptainer, sif, tuple(argv), run=run)


def _digest(sif: Path) -> str:
    try:
        return sha256_file(sif)
    except OSError as error:
        raise PrerequisiteError(
            f"cannot read {sif}: {error.strerror}", "Check its permissions."
        ) from error


def _listing_of(record: ImageRecord, path: Path, store: ImageStore | None) -> Path | None:
    """Return where the listing of a record is: beside a file, or in the store."""
    beside = path.with_suffix(SUFFIX)
    if beside.is_file() or store is None:
        return beside
    return store.extras(record.sha256, SUFFIX)


def _record_of(sif: Path, store: ImageStore | None) -> ImageRecord | None:
    """Return the record of an image: the one beside it, or the store's."""
    sha256 = _digest(sif)
    with suppress(ValskaError):
        record = read_record(sif.with_suffix(RECORD_SUFFIX))
        if record.sha256 == sha256:
            return record
    found = store.find(sha256) if store is not None else ()
    return found[0] if found else None


def open_image(sif: Path) -> Tree:
    """Return the tree in a SIF, read in place.

    Raises
    ------
    PrerequisiteError
        If it is no SIF, or its root file system is no squashfs.
    """
    from valska.external_tools.core.images.sif import read_sif
    from valska.external_tools.core.images.squashfs import SquashfsTree

    system = read_sif(sif).system
    if system is None:
        raise PrerequisiteError(
            f"{sif} has no root file system that can be read",
            "It may be encrypted, or not packed as a squashfs.",
        )
    return SquashfsTree(sif, system.offset)
