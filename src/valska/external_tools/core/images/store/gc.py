"""Clearing images away that nothing uses: what can go, what has to stay, and why."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images import shipped_digests
from valska.external_tools.core.images.definition import shipped_definitions
from valska.external_tools.core.images.scratch import remove_directory
from valska.external_tools.core.images.store.adding import files_of, put_aside, remove, restore
from valska.external_tools.core.images.store.imagestore import ImageStore
from valska.external_tools.core.images.store.layout import ASIDE_SUFFIX, DIGEST
from valska.external_tools.core.images.store.naming import Names, look_at_notes, look_below
from valska.external_tools.core.images.store.uses import forget, read_uses
from valska.external_tools.core.lock import read_owner
from valska.external_tools.core.utils import load_json

MIN_AGE_S = 24 * 3600.0
"""What is younger is left alone: somebody may be about to use it."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
_WORK = (".build-*", ".pull-*")
_YOUNG = "it is younger than a day"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be cleared away.

    Parameters
    ----------
    store
        From where.
    roots
        Roots of results: what is found below them stays usable.
    forgotten
        What was noted at or below these directories is gone for good, where it is not there.
    gone
        Whether a noted bundle that is neither at its place nor below a root is gone for good;
        otherwise it may have been moved, and its image stays.
    min_age_s
        What is younger stays; seconds.
    now
        Seconds since the epoch.
    """

    store: ImageStore
    roots: tuple[Path, ...] = ()
    forgotten: tuple[Path, ...] = ()
    gone: bool = False
    min_age_s: float = MIN_AGE_S
    now: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be cleared away.

    Parameters
    ----------
    sha256
        The image; empty for what a killed command left.
    name
        Of the image's definition, or of the file.
    paths
        Its files.
    size
        Of them all, in bytes.
    whole
        Whether it is an image, not the remains of one.
    """

    sha256: str
    name: str
    paths: tuple[Path, ...]
    size: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that stays, and why."""

    sha256: str
    name: str
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What can be cleared away, what stays, and what else the user should know."""

    items: tuple[Item, ...] = ()
    kept: tuple[Kept, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all that can be cleared away."""
        return sum(item.size for item in self.items)


def survey(order: Order) -> Survey:
    """Find the images that nothing uses, and what killed commands left; change nothing.

    What is younger than the order's age stays, and what a noted or found bundle names, and the
    current image of each definition that comes with valska. A noted bundle that may have been moved
    counts, unless the order says that it is gone.

    Raises
    ------
    UsageError
        If a root is no directory, or cannot be read.
    """
    found = _by_digest(order.store)
    names = _names(order, found)
    items: list[Item] = []
    kept: list[Kept] = []
    whole = {path.stem for path in order.store.records()}
    for sha256, paths in sorted(found.items()):
        name = _name(order.store, sha256) if sha256 in whole else "remains of an image"
        why = [*names.why.get(sha256, ()), *_young(order, paths)]
        if order.store.aside(sha256) in paths:
            why.append("it is being cleared away, or that was cut short")
        if why:
            kept.append(Kept(sha256, name, tuple(why)))
        else:
            items.append(Item(sha256, name, tuple(paths), _size(paths), sha256 in whole))
    items += _leftovers(order)
    unread = tuple(f"what it uses is not known: {text}" for text in names.unread)
    return Survey(tuple(items), tuple(kept), unread)


def collect(order: Order) -> Survey:
    """Clear away what `survey` finds, image by image.

    Returns
    -------
    Survey
        What was cleared away, and what stayed.

    Raises
    ------
    PrerequisiteError
        If the store cannot be written.
    """
    _recover(order.store)
    found = survey(order)
    done: list[Item] = []
    kept = list(found.kept)
    for item in found.items:
        try:
            why = _clear(order, item)
        except (ValskaError, OSError) as error:
            text = getattr(error, "strerror", None) or str(error)
            why = (f"it cannot be cleared away: {text}",)
        if why:
            kept.append(Kept(item.sha256, item.name, why))
        else:
            done.append(item)
    forget(order.store, _noted(order).dead)
    return Survey(tuple(done), tuple(kept), found.notes)


def _clear(order: Order, item: Item) -> tuple[str, ...]:
    """Clear one thing away; return why not, if something speaks against it now."""
    store, sha256 = order.store, item.sha256
    if not sha256:
        for path in item.paths:
            remove_directory(path) if path.is_dir() else path.unlink(missing_ok=True)
        return ()
    with store.holding_image(sha256):
        if why := _young(order, files_of(store, sha256)):
            return tuple(why)
        if item.whole:
            put_aside(store, sha256)
        elif store.records(sha256):
            return ("it is whole now",)
        if why := _noted(order).why.get(sha256, []):
            restore(store, sha256)
            return tuple(why)
        remove(store, sha256)
    return ()


def _recover(store: ImageStore) -> None:
    """Finish, or take back, what a killed clearing away began."""
    for aside in sorted(store.directory.glob(f"*{ASIDE_SUFFIX}")):
        sha256 = aside.name[:64]
        if DIGEST.fullmatch(sha256):
            with store.holding_image(sha256), suppress(OSError):
                restore(store, sha256)


def _noted(order: Order) -> Names:
    names = Names()
    uses = read_uses(order.store)
    look_at_notes(names, uses, order.now, order.min_age_s, order.forgotten, gone=order.gone)
    return names


def _names(order: Order, found: dict[str, list[Path]]) -> Names:
    names = _noted(order)
    for root in order.roots:
        look_below(names, root, found)
    for sha256, name in _current(order.store):
        names.add(sha256, f"it is the current image of {name}")
    return names


def _current(store: ImageStore) -> Iterator[tuple[str, str]]:
    """Yield the newest image of each shipped definition, and its newest one without signature."""
    for name, path in shipped_definitions().items():
        digest, lock = shipped_digests(path)
        recipes = {"definition_sha256": digest, "lock_sha256": lock}
        for signed in (True, False):
            record = store.newest(name, signed=signed, **recipes)
            if record is not None:
                yield record.sha256, path.name


def _by_digest(store: ImageStore) -> dict[str, list[Path]]:
    """Return the files of each image."""
    found: dict[str, list[Path]] = defaultdict(list)
    with suppress(FileNotFoundError):
        for entry in os.scandir(store.directory):
            if DIGEST.fullmatch(entry.name[:64]):
                found[entry.name[:64]].append(Path(entry.path))
    return {sha256: sorted(paths) for sha256, paths in found.items()}


def _leftovers(order: Order) -> list[Item]:
    """Return what killed commands left: half-written files, and workspaces.

    They are never taken before a day: somebody may still be writing.
    """
    order = replace(order, min_age_s=max(order.min_age_s, MIN_AGE_S))
    store = order.store
    files = [
        path
        for folder in (store.root, store.directory)
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if _TEMPORARY.fullmatch(path.name) and not _young(order, [path])
    ]
    folders = (store.root, store.bases)
    found = (path for folder in folders for name in _WORK for path in sorted(folder.glob(name)))
    work = [path for path in found if _is_abandoned(order, path)]
    return [Item("", path.name, (path,), _size([path])) for path in (*files, *work)]


def _is_abandoned(order: Order, path: Path) -> bool:
    owner = read_owner(path)
    if owner is None:
        return not _young(order, [path])
    return owner.alive() is False


def _young(order: Order, paths: list[Path]) -> list[str]:
    """Return that something was made or changed lately, if it was."""
    times = [changed(path) for path in paths]
    return [_YOUNG] if times and order.now - max(times) < order.min_age_s else []


def changed(path: Path) -> float:
    """Return when a file was made or changed, in seconds since the epoch; 0 where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return 0.0
    return max(status.st_mtime, status.st_ctime)


def _name(store: ImageStore, sha256: str) -> str:
    try:
        return str(load_json(store.record(sha256)).get("name", ""))
    except ValskaError:
        return "its record cannot be read"


def _size(paths: list[Path]) -> int:
    total = 0
    for path in paths:
        for folder, _, names in os.walk(path):
            total += _size([Path(folder, name) for name in names])
        with suppress(OSError):
            total += path.lstat().st_size
    return total
