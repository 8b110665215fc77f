"""Units that come to a sweep later: built aside, then moved in one by one."""

from __future__ import annotations

import filecmp
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.sweep.writing.units import CONFIG, MANIFEST, SUMS
from valska.external_tools.core.utils import fsync_directory, random_hex

log = logging.getLogger(__name__)

_MADE = frozenset({CONFIG, MANIFEST, SUMS})


@contextmanager
def building_place(sweep: Sweep) -> Iterator[Path]:
    """Give a hidden directory on the sweep's disk, and remove it and what killed ones left.

    Only under the sweep's lock: then nobody else builds.
    """
    for left in sweep.points.glob(".*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    place = sweep.points / f".{random_hex(6)}.partial"
    place.mkdir()
    try:
        (place / "points").mkdir()
        (place / "shared").mkdir()
        (place / "old").mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def move_in(place: Path, sweep: Sweep) -> None:
    """Move every unit that was built to where it belongs.

    One that a killed command left there is adopted if it is equal, and replaced otherwise.

    Raises
    ------
    ValskaError
        If one that is no part of the sweep has been run.
    """
    for built, target in ((place / "shared", sweep.shared), (place / "points", sweep.points)):
        for unit in sorted(built.iterdir()):
            _move(unit, target / unit.name, place / "old")
        fsync_directory(target)


def _move(built: Path, target: Path, old: Path) -> None:
    if target.exists():
        if _equal(built, target):
            return
        if not _MADE.issuperset(entry.name for entry in target.iterdir()):
            raise ValskaError(
                f"{target} is no part of the sweep, and has been run",
                "Move it away, and run this command again.",
            )
        log.info("replacing %s, which a killed command left", target)
        target.rename(old / f"{target.parent.name}-{target.name}")
    built.rename(target)


def _equal(one: Path, other: Path) -> bool:
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    there = {path.relative_to(other) for path in (other / CONFIG).rglob("*") if path.is_file()}
    there |= {Path(name) for name in (MANIFEST, SUMS) if (other / name).is_file()}
    return names == there and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in names
    )
