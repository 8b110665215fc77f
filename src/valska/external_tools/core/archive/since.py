"""What was written into an unpacked archive since: told apart from what must stay as it was packed.

Who has unpacked an archive may run what is in it. That writes logs, records and outputs, a new
``jobs.json`` and a new ``site.env``, and new points of a sweep. All else stays as it was packed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from valska.external_tools.core.archive import bag, places
from valska.external_tools.core.archive.contents import Contents, in_bundle, units_of
from valska.external_tools.core.archive.directory import OnDisk
from valska.external_tools.core.archive.document import LeftOut, parse_json
from valska.external_tools.core.archive.reading import MOST_DOCUMENT_BYTES
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import VerificationError

_SITE_ENV, _JOBS = in_bundle("site.env"), in_bundle("jobs.json")
_SWEEP = in_bundle("sweep_manifest.json")
_IN_UNIT = re.compile(rf"({places.UNIT})/(records|logs|arrays|outputs(?:\.\d+)?)/.+", re.DOTALL)
_EARLIER_JOBS = re.compile(rf"{places.BUNDLE}/jobs_[0-9TZ-]+\.json")
_UNIT_FILE = re.compile(rf"({places.BUNDLE}/(?:points|shared)/[^/]+)/.+", re.DOTALL)
_OXUM = re.compile(rb"^Payload-Oxum: *[0-9]+\.[0-9]+$", re.MULTILINE)
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Settled:
    """An unpacked archive as it would be, had it been packed with what was written since.

    Parameters
    ----------
    contents
        What is to be judged; what it says of itself covers what was written since.
    written
        Paths of what was written since, sorted.
    """

    contents: Contents
    written: tuple[str, ...]


def settle(found: OnDisk, root: Path) -> Settled:
    """Find what was written since an archive was unpacked, and have its manifests cover that.

    Whether what was written is as it should be is not asked here: the records of the jobs say it.

    Parameters
    ----------
    found
        What is in the directory.
    root
        The directory.
    """
    contents = found.contents
    try:
        listed = bag.parse_manifest(contents.documents[places.MANIFEST])
        data = parse_json(contents.documents[places.DOCUMENT])
    except (KeyError, bag.BagError, VerificationError):
        return Settled(contents, ())
    since = _Since(contents, listed, data, root)
    written = tuple(sorted(since.written()))
    unread = {name for name in listed if found.is_unread(name)}
    return Settled(_covering(since, set(written), unread), written)


class _Since:
    """Tells what may have been written since from what may not.

    Parameters
    ----------
    contents
        What is there.
    listed
        What was packed: path to SHA-256.
    document
        What the archive says of itself.
    root
        Where it was unpacked.
    """

    def __init__(
        self, contents: Contents, listed: Mapping[str, str], document: Mapping[str, Any], root: Path
    ) -> None:
        self.contents, self.listed, self.document = contents, listed, document
        self._root = root
        self._new = {name for name, _ in contents.files() if name not in listed}
        self._left_out = dict(_left_out(document))
        self._added = self._added_units()
        self.ran = {*self._units_that_ran(), *self._added}
        self._submitted = self._was_submitted()

    def written(self) -> Iterator[str]:
        """Yield every file that is not as it was packed, and need not be."""
        for name in {*self._new, *filter(self.is_free, self.listed)}:
            entry = self.contents.file(name)
            if entry is None or not self.is_free(name):
                continue
            packed = self.listed.get(name)
            if packed is None or entry.sha256 not in (None, packed):
                yield name

    def is_free(self, name: str) -> bool:
        """Return whether a file need not be as it was packed."""
        if name == _SITE_ENV:
            return True
        if name == _JOBS:
            return self._submitted
        if name == _SWEEP:
            return bool(self._added)
        if match := _IN_UNIT.fullmatch(name):
            return self._is_free_in_unit(match[1], match[2], name in self.listed)
        if name in self.listed:
            return False
        unit = _UNIT_FILE.fullmatch(name)
        if _EARLIER_JOBS.fullmatch(name) or (unit and unit[1] in self._added):
            return True
        return self._is_put_back(name)

    def _is_free_in_unit(self, unit: str, folder: str, packed: bool) -> bool:
        if folder.startswith("outputs"):
            return unit in self.ran and (folder == "outputs" or not packed)
        return not packed

    def _is_put_back(self, name: str) -> bool:
        """Return whether this is a sealed file that was left out of the archive."""
        left_out, entry = self._left_out.get(name), self.contents.file(name)
        if left_out is None or entry is None:
            return False
        digests = (None, left_out.sha256)
        return entry.size == left_out.size and entry.sha256 in digests

    def _units_that_ran(self) -> Iterator[str]:
        """Yield bundle or units of a sweep that have a record of an attempt since."""
        for unit, names in self.contents.by_folder("records").items():
            if any(self._began(name) for name in self._new.intersection(names)):
                yield unit

    def _began(self, name: str) -> bool:
        try:
            record = self.contents.json(name)
        except (KeyError, VerificationError):
            return False
        return record.get("state") != "refused" or bool(record.get("set_aside"))

    def _added_units(self) -> set[str]:
        """Return the units of a sweep that it has now, and of which nothing was packed."""
        if _SWEEP not in self.contents.documents or self.document.get("units") is not None:
            return set()
        try:
            known = {in_bundle(place) for place in units_of(self.contents.json(_SWEEP))}
        except (VerificationError, KeyError, TypeError):
            return set()
        return known - {match[1] for match in map(_UNIT_FILE.fullmatch, self.listed) if match}

    def _was_submitted(self) -> bool:
        """Return whether something says that jobs were submitted since."""
        if any(_IN_UNIT.fullmatch(name) or _EARLIER_JOBS.fullmatch(name) for name in self._new):
            return True
        if _JOBS not in self.listed:
            return True
        entry = self.contents.entries.get(_JOBS)
        if entry is None or entry.kind is not Kind.FILE or entry.size > MOST_DOCUMENT_BYTES:
            return False
        try:
            jobs = parse_json((self._root / _JOBS).read_bytes())
        except (OSError, VerificationError):
            return False
        there = jobs.get("run_dir", jobs.get("sweep"))
        here = self._root.absolute() / places.BUNDLE
        return there in (os.path.normpath(here), os.path.realpath(here))


def _left_out(document: Mapping[str, Any]) -> Iterator[tuple[str, LeftOut]]:
    try:
        for one in document["left_out"]:
            entry = LeftOut(**{name: one[name] for name in LeftOut.__dataclass_fields__})
            yield in_bundle(entry.path), entry
    except (KeyError, TypeError):
        return


def _covering(since: _Since, written: set[str], unread: set[str]) -> Contents:
    """Return the contents, with manifests that cover what was written."""
    found = Contents(dict(since.contents.entries), dict(since.contents.documents))
    free = {name for name in since.listed if since.is_free(name)}
    gone = {name for name in free if _may_go(name) and found.file(name) is None}
    digests = {name: digest for name, digest in since.listed.items() if name not in gone}
    for name in written:
        entry = found.file(name)
        digests[name] = (entry.sha256 if entry else None) or _NO_DIGEST
    if since.ran and since.document.get("outputs") is False:
        _expect_outputs(found, since, digests)
    found.documents[places.MANIFEST] = bag.manifest_text(digests)
    if written or gone:
        _cover_sizes(found)
    _cover_crate(found, free | unread)
    return found


def _may_go(name: str) -> bool:
    """Return whether jobs move such a file away: what an earlier attempt has written."""
    match = _IN_UNIT.fullmatch(name)
    return bool(match and match[2] == "outputs")


def _expect_outputs(found: Contents, since: _Since, digests: dict[str, str]) -> None:
    """Have outputs compared, of jobs since only: those before are not in the archive."""
    document = {**since.document, "outputs": True}
    found.documents[places.DOCUMENT] = json.dumps(document).encode()
    for names in found.by_folder("records").values():
        for name in names:
            entry = found.entries[name]
            if name in since.listed and entry.sha256 == since.listed[name]:
                del found.entries[name], digests[name]


def _cover_sizes(found: Contents) -> None:
    sizes = [entry.size for name, entry in found.files() if bag.is_payload(name)]
    info = found.documents.get(places.BAG_INFO)
    if info is not None:
        now = f"Payload-Oxum: {bag.payload_oxum(sizes)}".encode()
        found.documents[places.BAG_INFO] = _OXUM.sub(now, info)


def _cover_crate(found: Contents, passed_over: set[str]) -> None:
    """Leave out of the crate what it says of files that are not as they were packed."""
    if not passed_over:
        return
    try:
        crate = found.json(places.CRATE)
        graph = [one for one in crate["@graph"] if _file_of(one) not in passed_over]
    except (KeyError, TypeError, VerificationError):
        return
    found.documents[places.CRATE] = json.dumps({**crate, "@graph": graph}).encode()


def _file_of(entity: Any) -> str | None:
    name = entity.get("@id") if isinstance(entity, dict) else None
    return f"{places.DATA}/{unquote(name)}" if isinstance(name, str) else None
