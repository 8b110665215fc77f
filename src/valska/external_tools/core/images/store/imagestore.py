"""The store as a whole: adding images, finding them, checking them."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images.record import ImageRecord, read_record
from valska.external_tools.core.images.store.adding import place_image, restore, tells_as_much
from valska.external_tools.core.images.store.glance import glance
from valska.external_tools.core.images.store.holding import hold, unwritable
from valska.external_tools.core.images.store.layout import ASIDE_SUFFIX, DIGEST, Layout
from valska.external_tools.core.images.store.receipt import (
    is_unchanged,
    require_digest,
    write_receipt,
)
from valska.external_tools.core.utils import load_json, write_atomic

_PREFIX = re.compile(r"[0-9a-f]{1,64}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageStore(Layout):
    """Images below ``<root>/sha256/``: ``<digest>.sif``, its record, receipt, definition and lock.

    An image is in the store once its record (``<digest>.json``) is, which is written last.

    Parameters
    ----------
    root
        The store's directory; made when the first image is added.
    """

    def holding(self, key: str, what: str) -> AbstractContextManager[None]:
        """Return what holds a lock of the store for the length of a block, see `hold`.

        Parameters
        ----------
        key
            What is worked on, a digest for instance: who has the same waits.
        what
            What is done, for the message to those who wait (``building pyuvsim``).

        Raises
        ------
        PrerequisiteError
            If the store cannot be written.
        """
        return hold(self.locks.absolute(), key, what)

    def holding_image(self, sha256: str) -> AbstractContextManager[None]:
        """Return what holds one image's files for as long as they are moved about."""
        return self.holding(f"image-{sha256}", f"changing the image {sha256[:12]}")

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a hidden directory in the store for the length of a block.

        Those that killed builds left are removed.

        Raises
        ------
        PrerequisiteError
            If the store cannot be written.
        """
        from valska.external_tools.core.images.scratch import claim_directory

        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            path = claim_directory(self.root.absolute(), ".build-")
        except OSError as error:
            raise unwritable(self.root, error) from error
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def add(
        self, sif: Path, record: ImageRecord, files: Mapping[str, bytes] | None = None
    ) -> ImageRecord:
        """Take an image into the store; one that is there already stays where it is.

        Parameters
        ----------
        sif
            The image, on the store's own file system (see `workspace`); it is moved.
        record
            Its record.
        files
            Name to content of what lies beside it: definition, lock, and what has one of the
            suffixes ``.cdx.json`` and ``.files.gz``.

        Returns
        -------
        ImageRecord
            The record that the store has now: that of an image that valska built is not replaced
            by one of less.

        Raises
        ------
        ValskaError
            If the store cannot be written.
        """
        sha256 = record.sha256
        with self.holding_image(sha256):
            restore(self, sha256)
            known = self._known(sha256)
            if known is None or not self.is_unchanged(sha256):
                place_image(sif, self.sif(sha256))
            for name, data in (files or {}).items():
                write_atomic(self.source(sha256, name), data)
            self.write_receipt(sha256)
            if known is not None and not tells_as_much(record, known):
                os.utime(self.record(sha256))
                return known
            write_atomic(self.record(sha256), record.to_bytes())
        return record

    def get(self, sha256: str) -> ImageRecord:
        """Return the record of an image.

        Parameters
        ----------
        sha256
            Its digest, or the start of it.

        Raises
        ------
        PrerequisiteError
            If there is no such image, or more than one.
        """
        found = self.find(sha256)
        if not found:
            raise PrerequisiteError(
                f"no image {sha256} in the store {self.root}",
                "Build it with `valska build`, or name another store with $VALSKA_IMAGES.",
            )
        if len(found) > 1:
            digests = ", ".join(record.sha256[:16] for record in found)
            raise PrerequisiteError(
                f"{len(found)} images begin with {sha256}: {digests}", "Give more digits."
            )
        return found[0]

    def find(self, prefix: str) -> tuple[ImageRecord, ...]:
        """Return the records of the images whose digest begins so."""
        if not _PREFIX.fullmatch(prefix):
            return ()
        found = self.records(prefix)
        if not found and self._restored(prefix):
            found = self.records(prefix)
        return tuple(glance(path) or self.read(path) for path in found)

    def list(self) -> tuple[ImageRecord, ...]:
        """Return the records of all images, the newest first; what is not readable is left out."""
        return tuple(self._readable(path for path, _ in self._newest_first()))

    def newest(
        self,
        name: str | None = None,
        *,
        definition_sha256: str | None = None,
        lock_sha256: str | None = None,
        recipe_sha256: str | None = None,
        signed: bool = True,
    ) -> ImageRecord | None:
        """Return the newest image that agrees with all that is given, or None.

        Signed ones count unless `signed` is false; what a recipe makes has no signature yet.
        """
        given = {
            "name": name,
            "definition_sha256": definition_sha256,
            "lock_sha256": lock_sha256,
            "recipe_sha256": recipe_sha256,
        }
        wanted = {key: value for key, value in given.items() if value is not None}
        if not signed or recipe_sha256 is not None:
            wanted["signed"] = ""
        paths = (path for path, facts in self._newest_first() if wanted.items() <= facts.items())
        return next(self._readable(paths), None)

    def files(self, record: ImageRecord) -> dict[str, bytes]:
        """Return name and content of an image's definition and lock, as far as they are kept."""
        found = {}
        for entry in (record.definition, record.lock):
            if entry is not None:
                with suppress(OSError):
                    found[entry["name"]] = self.source(record.sha256, entry["name"]).read_bytes()
        return found

    def is_unchanged(self, sha256: str) -> bool:
        """Return whether an image is as its receipt says; nothing of it is read."""
        return is_unchanged(self.sif(sha256), self.receipt(sha256), sha256)

    def check(self, sha256: str) -> None:
        """Check that an image still has its digest, which is read only if its receipt is stale.

        Raises
        ------
        VerificationError
            If it has not.
        PrerequisiteError
            If it is not there or cannot be read.
        """
        if not self.is_unchanged(sha256):
            require_digest(self.sif(sha256), self.receipt(sha256), sha256)

    def write_receipt(self, sha256: str) -> None:
        """Note that an image's digest has been read, so that array tasks need not."""
        write_receipt(self.sif(sha256), self.receipt(sha256), sha256)

    def records(self, prefix: str = "") -> tuple[Path, ...]:
        """Return the places of the records of whole images whose digest begins so, sorted."""
        if DIGEST.fullmatch(prefix):
            paths: Iterable[Path] = (self.record(prefix),)
        else:
            paths = sorted(self.directory.glob(f"{prefix}*.json"))
        return tuple(
            path
            for path in paths
            if DIGEST.fullmatch(path.stem) and self.sif(path.stem).is_file() and path.is_file()
        )

    def read(self, path: Path) -> ImageRecord:
        """Read a record at its place in the store.

        Raises
        ------
        ValskaError
            If it cannot be read, or is of another image.
        """
        record = read_record(path)
        if record.sha256 != path.stem:
            raise ValskaError(f"{path} is the record of another image, {record.sha256}")
        return record

    def _known(self, sha256: str) -> ImageRecord | None:
        with suppress(ValskaError):
            return next(iter(self.find(sha256)), None)
        return None

    def _restored(self, prefix: str) -> bool:
        """Put back what a killed clearing away of images put aside; wait for one that runs."""
        digests = {path.name[:64] for path in self.directory.glob(f"{prefix}*{ASIDE_SUFFIX}")}
        for sha256 in filter(DIGEST.fullmatch, digests):
            with suppress(ValskaError, OSError), self.holding_image(sha256):
                restore(self, sha256)
        return bool(digests)

    def _newest_first(self) -> tuple[tuple[Path, Mapping[str, str | None]], ...]:
        """Return the records' places and what `newest` asks for, before any is checked."""
        found = []
        for path in self.records():
            try:
                data = load_json(path)
            except ValskaError as error:
                _leave_out(error)
            else:
                found.append((str(data.get("created_utc")), path, _facts(data)))
        found.sort(key=lambda entry: entry[:2], reverse=True)
        return tuple((path, facts) for _, path, facts in found)

    def _readable(self, paths: Iterable[Path]) -> Iterator[ImageRecord]:
        for path in paths:
            try:
                yield self.read(path)
            except ValskaError as error:
                _leave_out(error)


def _facts(data: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what `ImageStore.newest` asks for."""
    return {
        "name": data.get("name"),
        "definition_sha256": _sha256(data.get("definition")),
        "lock_sha256": _sha256(data.get("lock")),
        "recipe_sha256": data.get("recipe_sha256"),
        "signed": "yes" if data.get("signature") else "",
    }


def _sha256(entry: Any) -> str | None:
    return entry.get("sha256") if isinstance(entry, Mapping) else None


def _leave_out(error: ValskaError) -> None:
    log.warning("an image record is left out: %s", error.message)
