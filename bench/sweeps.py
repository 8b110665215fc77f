"""Sweeps of BayesEoR: preparing them, alone and beside others; adding; submitting; status.

Prepared on a tmpfs, since a disk's file creation swamps every tool. The runner is ``host``, so that
no image is hashed, and the data are a vector whose channels the configuration tells: for UVH5 data
h5py is imported once besides, which is measured by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measuring import (
    PROGRAMS,
    VALSKA,
    Figure,
    Measured,
    Used,
    answer,
    figure,
    ratio,
    run_pairs,
    timed,
)
from bench.peers import compared
from bench.tracking import submitting, tracking

TMPFS = Path("/dev/shm")
PREPARING = 4.0
MEMORY_MB = 300.0
GROWTH = 1.5
ADDING = 1.0
WHOLE = 10_000
"""Points of the largest sweep."""


@dataclass(frozen=True)
class Case:
    """A configuration of BayesEoR, and where its sweeps are made."""

    folder: Path

    def command(self, output: Path, points: int, width: str = "8:12") -> list[object]:
        """Return the command that makes a sweep."""
        options = {
            "inst_model": self.folder / "model",
            "nf": 38,
            "df": 237618.98,
            "freq_min": 158304145.0,
        }
        overrides = [word for k, v in options.items() for word in ("--override", f"{k}={v}")]
        command = [VALSKA, "-q", "sweep", "bayeseor", "--template", "gaussian_achromatic", "--cpu"]
        data = ["--data", self.folder / "visibilities.npy"]
        software = ["--runner", "host", "--program", "/opt/run-analysis.py"]
        swept = ["--range", f"fwhm_deg={width}:{points}"]
        return [*command, *data, *overrides, *software, *swept, "-o", output]


def sweeps(_: Path, pairs: int) -> Iterator[Figure]:
    """Measure all about sweeps."""
    with tmpfs() as folder:
        case = make_case(folder)
        few = max(2, pairs // 2)
        small = prepared(case, 1_000, few)
        yield figure("plain loop for 1,000 points", small, lambda floor, _: floor, unit="s")
        yield figure("1,000 points / plain loop", small, ratio, limit=PREPARING)
        yield with_uvh5(case, few)
        yield from compared(folder, [used for _, used in small], few)
        large = prepared(case, WHOLE, max(2, pairs // 5))
        yield figure("10,000 points / plain loop", large, ratio, limit=PREPARING)
        memory = max(used.memory for _, used in large)
        yield Figure("memory for 10,000 points", memory, "MB", MEMORY_MB, pairs=len(large))
        yield growing(case)
        yield from with_whole(case, folder / "whole", few)


def with_whole(case: Case, sweep: Path, count: int) -> Iterator[Figure]:
    """Measure what is done with a sweep of 10,000 points."""
    timed(case.command(sweep, WHOLE))
    inodes = sum(len(folders) + len(files) for _, folders, files in os.walk(sweep / "points"))
    yield Figure("files and directories per point", inodes / WHOLE, "", None)
    yield adding(case, sweep, count)
    shutil.rmtree(sweep)
    timed(case.command(sweep, WHOLE))
    yield from submitting(sweep, WHOLE)
    yield from tracking(sweep, count)


@contextmanager
def tmpfs() -> Iterator[Path]:
    """Yield a directory on a tmpfs, or elsewhere, and say so, where there is none."""
    there = TMPFS.is_dir() and os.access(TMPFS, os.W_OK)
    if not there:
        print("There is no tmpfs: sweeps are measured with a disk's speed.", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="valska-bench-", dir=TMPFS if there else None) as name:
        yield Path(name)


def make_case(folder: Path) -> Case:
    """Make the files that a configuration names; they are hashed and copied, never read."""
    model = folder / "model"
    model.mkdir()
    for name in ("uvw_model", "redundancy_model", "antpairs", "phasor_vector"):
        (model / f"{name}.npy").write_text(name)
    (folder / "visibilities.npy").write_text("visibilities")
    return Case(folder)


def prepared(case: Case, points: int, count: int) -> list[Measured]:
    """Prepare points by a plain loop and by valska, each in a process of its own."""

    def pair(_: int) -> Measured:
        return plain_loop(case.folder, points), removed(
            case.folder / "sweep", case.command(case.folder / "sweep", points)
        )

    return run_pairs(pair, count)


def plain_loop(folder: Path, points: int) -> Used:
    """Write three small files for each point."""
    loop = folder / "loop"
    return removed(loop, [sys.executable, PROGRAMS / "floor.py", loop, points])


def removed(made: Path, argv: list[object]) -> Used:
    """Run a command, and remove what it made."""
    used = timed(argv)
    shutil.rmtree(made)
    return used


def with_uvh5(case: Case, count: int) -> Figure:
    """Time what reading UVH5 data adds to a sweep of any size: the import of h5py."""
    name = "import h5py / plain loop for 1,000 points"

    def pair(_: int) -> Measured:
        return plain_loop(case.folder, 1_000), timed([sys.executable, "-c", "import h5py"])

    return figure(name, run_pairs(pair, count), ratio)


def growing(case: Case) -> Figure:
    """Compare the processor time per point at 100, 1,000 and 10,000 points, in one process."""
    words = [str(word) for word in case.command(case.folder / "growing", 0)[1:]]
    program = [sys.executable, PROGRAMS / "growth.py", *words]
    times = json.loads(answer(program))
    per_point = sorted(times.values())
    told = ", ".join(f"{int(points):,}: {1e6 * s:.0f} µs" for points, s in times.items())
    name = f"time per point, largest / least ({told})"
    return Figure(name, per_point[-1] / per_point[0], "x", GROWTH)


def adding(case: Case, sweep: Path, count: int) -> Figure:
    """Compare adding 100 points to 10,000 with a plain loop for 10,000."""

    def pair(number: int) -> Measured:
        width = f"{20 + number}:{20.5 + number}"
        return plain_loop(case.folder, WHOLE), timed([*case.command(sweep, 100, width), "--add"])

    name = "adding 100 points to 10,000 / plain loop for 10,000"
    return figure(name, run_pairs(pair, count), ratio, limit=ADDING)
