"""What can be cleared away below a root of results, and what has to stay."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.results import RUN_NAMES, SWEEP_NAME, Kind, Result
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.site import reference_places
from valska.external_tools.core.status import StageState, StageStatus, run_status
from valska.external_tools.core.sweep.document import read_common, read_sweep_manifest
from valska.external_tools.core.sweep.following.status import SweepStatus, sweep_status
from valska.external_tools.core.sweep.layout import Sweep

SCRATCH_AGE_S = 24 * 3600.0
"""What was begun and not finished is left alone for so long."""

_UNITS = {Sweep(Path()).points.name, Sweep(Path()).shared.name}
_LOG = re.compile(r".+\.log")
_ATTEMPT = re.compile(r"outputs\.[0-9]+")
_PARTIAL = re.compile(r"\.(.+\.)?[0-9a-f]{12}\.partial")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


class Category(StrEnum):
    """What can be cleared away."""

    LOGS = "logs"
    SCRATCH = "scratch"
    MATRICES = "matrices"
    ATTEMPTS = "attempts"
    RUNS = "runs"


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be cleared away.

    Parameters
    ----------
    category
        As what.
    place
        Of the run or sweep that it belongs to, relative to the root; empty for scratch.
    path
        The file or directory; absolute.
    size, files
        Bytes, and number of files.
    """

    category: Category
    place: str
    path: Path
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that stays, by its place relative to the root, and why."""

    place: str
    why: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What can be cleared away, and what of it has to stay."""

    items: tuple[Item, ...] = ()
    kept: tuple[Kept, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all that can be cleared away."""
        return sum(item.size for item in self.items)


@dataclass(frozen=True, slots=True)
class Loan:
    """A directory or file of one run that another one reads: real path, and who reads it."""

    source: str
    borrower: str


def survey(
    root: Path,
    results: Iterable[Result],
    scheduler: Scheduler,
    categories: Collection[Category],
    loans: Sequence[Loan],
) -> Survey:
    """Find what can be cleared away of some runs and sweeps; nothing is changed.

    What belongs to a job that waits or runs, or may do so as far as anybody knows, stays; so does
    work that unfinished points or other runs need.

    Parameters
    ----------
    root
        The root, absolute. Nothing outside of it is looked at, and no symbolic link followed.
    results
        The runs and sweeps.
    scheduler
        The scheduler of the jobs.
    categories
        What is looked for. `Category.SCRATCH` is only what is left in them, see `find_scratch`.
    loans
        What other runs read, see `find_loans`.
    """
    items: list[Item] = []
    kept: list[Kept] = []
    for result in results:
        try:
            found = _Found(root, result, frozenset(categories), loans)
            found.look(scheduler)
        except ValskaError as error:
            kept.append(Kept(result.place, error.message))
            continue
        items += found.items
        kept += found.kept
    return Survey(tuple(items), tuple(kept))


def find_loans(results: Iterable[Result]) -> list[Loan]:
    """Return what runs and sweeps read that lies elsewhere: borrowed directories, large inputs."""
    loans = []
    for result in results:
        try:
            sweep = Sweep(result.path)
            of_sweep = result.kind is Kind.SWEEP
            bundle = sweep.bundle if of_sweep else Bundle(result.path)
            manifest = read_common(sweep) if of_sweep else read_manifest(bundle)
        except ValskaError:
            continue
        places = reference_places(bundle.site_env, manifest.outside())
        loans += [Loan(os.path.realpath(path), result.place) for path in places.values()]
    return loans


def find_scratch(root: Path, now: float | None = None) -> list[Item]:
    """Find directories of bundles and sweeps that were begun below a root and never finished.

    Parameters
    ----------
    root
        The root, absolute.
    now
        Seconds since the epoch; the time now, if not given.
    """
    before = (time.time() if now is None else now) - SCRATCH_AGE_S
    return [
        Item(Category.SCRATCH, "", Path(path), *_measure(path))
        for path in _partials(os.fspath(root))
        if _newest(path) < before
    ]


def is_real(root: Path, path: Path) -> bool:
    """Return whether a path is below a root and no part of it between is a symbolic link."""
    try:
        parts = path.relative_to(root).parts
    except ValueError:
        return False
    if ".." in parts or not parts:
        return False
    while path != root:
        try:
            if stat.S_ISLNK(path.lstat().st_mode):
                return False
        except OSError:
            return False
        path = path.parent
    return True


@dataclass(frozen=True, slots=True)
class _Unit:
    """A run, a point, or shared work: its directory, and what became of its stages."""

    bundle: Bundle
    stages: tuple[StageStatus, ...]
    place: str

    @property
    def live(self) -> bool:
        return any(map(_may_live, self.stages))

    @property
    def completed(self) -> bool:
        return all(stage.state is StageState.COMPLETED for stage in self.stages)


def _may_live(stage: StageStatus) -> bool:
    return stage.state.live or stage.may_run or stage.state is StageState.UNKNOWN


class _Found:
    """Collects what can be cleared away of one run or sweep."""

    def __init__(
        self, root: Path, result: Result, categories: frozenset[Category], loans: Sequence[Loan]
    ) -> None:
        self.items: list[Item] = []
        self.kept: list[Kept] = []
        self._root = root
        self._result = result
        self._categories = categories
        own = os.path.realpath(result.path)
        self._loans = [
            loan for loan in loans if loan.borrower != result.place and _is_within(loan.source, own)
        ]

    def look(self, scheduler: Scheduler) -> None:
        """Find out what became of it, then collect."""
        if self._result.fault is not None:
            self._keep(f"it cannot be read: {self._result.fault}")
            return
        if self._result.kind is Kind.SWEEP:
            self._sweep(Sweep(self._result.path), scheduler)
        else:
            self._run(Bundle(self._result.path), scheduler)

    def _run(self, bundle: Bundle, scheduler: Scheduler) -> None:
        manifest = read_manifest(bundle)
        status = run_status(bundle, manifest, scheduler)
        unit = _Unit(bundle, status.stages, "")
        if status.silent or unit.live:
            self._keep(_SILENT if status.silent else _LIVE)
            return
        self._unit(unit, manifest, unit.completed)
        self._temporary(bundle)
        self._whole()

    def _sweep(self, sweep: Sweep, scheduler: Scheduler) -> None:
        document, common = read_sweep_manifest(sweep), read_common(sweep)
        status = sweep_status(sweep, document, scheduler)
        if status.silent:
            self._keep(_SILENT)
            return
        unfinished = {
            lent
            for point in document.points
            if status.state_of(point.label) is not StageState.COMPLETED
            for lent in point.shared.values()
        }
        units = [*_units_of(sweep, status)]
        for unit in units:
            if unit.live:
                self._keep(_LIVE, unit.place)
                continue
            finished = unit.completed and unit.bundle.path.name not in unfinished
            self._unit(unit, common, finished)
        if any(unit.live for unit in units):
            return
        self._logs(sweep.bundle)
        self._temporary(sweep.bundle)
        self._whole()

    def _unit(self, unit: _Unit, manifest: Manifest, finished: bool) -> None:
        if Category.LOGS in self._categories:
            self._logs(unit.bundle)
        if Category.ATTEMPTS in self._categories:
            for path in _entries(unit.bundle.path, _ATTEMPT):
                self._add(Category.ATTEMPTS, path)
        if Category.MATRICES in self._categories and finished:
            for lent in dict.fromkeys(path for s in manifest.stages for path in s.lends):
                self._add(Category.MATRICES, unit.bundle.outputs / lent)

    def _logs(self, bundle: Bundle) -> None:
        if Category.LOGS in self._categories:
            for path in _entries(bundle.logs, _LOG):
                self._add(Category.LOGS, path)

    def _temporary(self, bundle: Bundle) -> None:
        if Category.SCRATCH in self._categories:
            before = time.time() - SCRATCH_AGE_S
            for path in _entries(bundle.path, _TEMPORARY):
                if _newest(os.fspath(path)) < before:
                    self._add(Category.SCRATCH, path)

    def _whole(self) -> None:
        if Category.RUNS in self._categories:
            self._add(Category.RUNS, self._result.path)

    def _add(self, category: Category, path: Path) -> None:
        if not is_real(self._root, path):
            return
        if borrower := self._borrower(path):
            inside = os.path.relpath(path, self._result.path)
            self._keep(f"{borrower} reads what is in it", "" if inside == "." else inside)
            return
        size, files = _measure(os.fspath(path))
        if files or category is Category.RUNS:
            self.items.append(Item(category, self._result.place, path, size, files))

    def _borrower(self, path: Path) -> str | None:
        real = os.path.realpath(path) if self._loans else ""
        borrowers = (loan.borrower for loan in self._loans if _overlap(loan.source, real))
        return next(borrowers, None)

    def _keep(self, why: str, inside: str = "") -> None:
        place = f"{self._result.place}/{inside}" if inside else self._result.place
        self.kept.append(Kept(place, why))


_LIVE = "a job of it waits or runs, or may do so"
_SILENT = "its scheduler does not answer, so that its jobs may run"


def _units_of(sweep: Sweep, status: SweepStatus) -> Iterator[_Unit]:
    shared = {id(one) for one in status.shared.values()}
    for label, row in status.points.items():
        own = tuple(one for one in row.values() if id(one) not in shared)
        bundle = sweep.point(label)
        yield _Unit(bundle, own, f"{sweep.points.name}/{label}")
    for label, one in status.shared.items():
        yield _Unit(sweep.shared_unit(label), (one,), f"{sweep.shared.name}/{label}")


def _entries(directory: Path, name: re.Pattern[str]) -> list[Path]:
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []
    return [directory / one for one in sorted(names) if name.fullmatch(one)]


def _partials(directory: str) -> Iterator[str]:
    """Yield unfinished directories outside of runs, and those of points in sweeps."""
    try:
        with os.scandir(directory) as found:
            entries = list(found)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if names >= RUN_NAMES:
        return
    folders = _UNITS if SWEEP_NAME in names else names
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            continue
        if _PARTIAL.fullmatch(entry.name):
            yield entry.path
        elif entry.name in folders and not entry.name.startswith("."):
            yield from _partials(entry.path)


def _newest(path: str) -> float:
    """Return when something, or what is directly in it, was changed last."""
    paths = [path]
    try:
        with os.scandir(path) as found:
            paths += [entry.path for entry in found]
    except OSError:
        pass
    return max(_changed(one) for one in paths)


def _changed(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _measure(path: str) -> tuple[int, int]:
    """Return bytes and number of files of a file or directory; no link is followed."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size, 1
        with os.scandir(path) as found:
            parts = [_measure(entry.path) for entry in found]
    except OSError:
        return 0, 0
    return sum(size for size, _ in parts), sum(files for _, files in parts)


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _overlap(one: str, other: str) -> bool:
    return _is_within(one, other) or _is_within(other, one)
