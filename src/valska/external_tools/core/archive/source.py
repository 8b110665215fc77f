"""Which bundle, sweep or point is packed, where its image is, and what the archive is called."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.selection import (
    Choice,
    Selection,
    select_bundle,
    select_sweep,
)
from valska.external_tools.core.comparison.written import COMPLETED, read_states
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.store.layout import PUBLISHED_SUFFIX
from valska.external_tools.core.manifest import StageEntry
from valska.external_tools.core.run_directory import Bundle, open_bundle
from valska.external_tools.core.site import path_said
from valska.external_tools.core.sweep.document import read_sweep_manifest
from valska.external_tools.core.sweep.layout import is_sweep, open_sweep, sweep_of
from valska.external_tools.core.utils import load_json

if TYPE_CHECKING:
    from valska.external_tools.core.images.store.layout import Layout


def select(path: Path, choice: Choice) -> Selection:
    """Return what is packed of the bundle, the sweep or the point of one at a path.

    Raises
    ------
    RunDirectoryError
        If there is none.
    LeftOutError, ArchiveError
        See `select_bundle`.
    """
    if is_sweep(path):
        return select_sweep(open_sweep(path), choice)
    if sweep := sweep_of(path):
        return select_sweep(sweep, choice, path.absolute().name)
    return select_bundle(open_bundle(path), choice)


def archive_name(path: Path) -> str:
    """Return the file name of an archive that was given none: that of the directory.

    A point of a sweep has that of the sweep before its own, and what was unpacked has that of
    the directory that was unpacked.
    """
    sweep = None if is_sweep(path) else sweep_of(path)
    if sweep:
        return f"{_directory_name(sweep.path)}-{_plain(path).name}{places.SUFFIX}"
    return f"{_directory_name(path)}{places.SUFFIX}"


def _directory_name(path: Path) -> str:
    whole = _plain(path)
    bag = whole.parents[1] if len(whole.parents) > 1 else whole
    is_unpacked = whole == bag / places.BUNDLE and (bag / places.BAGIT).is_file()
    return bag.name if is_unpacked else whole.name


def _plain(path: Path) -> Path:
    """Return a whole path without dots; links keep their names."""
    return Path(os.path.normpath(path.absolute()))


def unfinished(path: Path, selection: Selection) -> dict[str, dict[str, int]]:
    """Return what has not completed of what is packed: stage to state to how often.

    Parameters
    ----------
    path, selection
        See `select`.
    """
    states: dict[str, Counter[str]] = {}
    for unit, stages in _units(path, selection):
        manifest = replace(selection.manifest, stages=stages)
        for stage, state in read_states(unit, manifest).items():
            if state != COMPLETED:
                states.setdefault(stage, Counter())[state] += 1
    order = [stage.name for stage in selection.manifest.stages]
    return {name: dict(sorted(states[name].items())) for name in order if name in states}


def _units(path: Path, selection: Selection) -> Iterator[tuple[Bundle, tuple[StageEntry, ...]]]:
    """Yield the directories that jobs write into, and the stages of each."""
    stages, units = selection.manifest.stages, selection.document.units
    sweep = open_sweep(path) if is_sweep(path) else sweep_of(path)
    if sweep is None:
        yield open_bundle(path), stages
        return
    whole = read_sweep_manifest(sweep)
    does = {one.place: [each for each in stages if each.name == one.stage] for one in whole.shared}
    for point in whole.points:
        does[point.place] = [each for each in stages if each.name not in point.shared]
    for place, own in does.items():
        if units is None or place in units:
            yield sweep.unit(place), tuple(own)


class ImageFinder:
    """Finds the image of a run: in the store, or where the run's ``site.env`` says.

    Parameters
    ----------
    path
        A bundle, a sweep, or a point of one.
    store
        Where images are.
    """

    def __init__(self, path: Path, store: Layout) -> None:
        sweep = sweep_of(path)
        self._site_env = Bundle(sweep.path if sweep else path).site_env
        self._store = store

    def __call__(self, sha256: str) -> tuple[Path | None, tuple[str, ...]]:
        """Return where the image is, and the references at which registries have it."""
        candidates = [self._store.sif(sha256), *_said(self._site_env)]
        found = next((one for one in candidates if one.is_file()), None)
        return found, _published(self._store.extras(sha256, PUBLISHED_SUFFIX))


def _said(site_env: Path) -> list[Path]:
    prefix = "VALSKA_IMAGE="
    try:
        lines = site_env.read_text(encoding="utf-8").splitlines()
        words = [
            shlex.split(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)
        ]
    except (OSError, ValueError):
        return []
    return [path_said(site_env, words[-1][0])] if words and words[-1] and words[-1][0] else []


def _published(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        notes: Any = load_json(path).get("published")
    except ValskaError:
        return ()
    entries = notes if isinstance(notes, list) else []
    uris = [one.get("uri") for one in entries if isinstance(one, dict)]
    return tuple(dict.fromkeys(uri for uri in uris if isinstance(uri, str) and "@sha256:" in uri))
