"""Figures: processes run in turn, measured and judged."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(__file__).with_name("programs")
VALSKA = Path(sys.executable).with_name("valska")

ENVIRONMENT = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Byte code is kept, as it is wherever valska is installed."""


@dataclass(frozen=True)
class Used:
    """What a process used: wall and processor time in seconds, and its largest memory in MB."""

    wall: float
    cpu: float
    memory: float


Measured = tuple[Used, Used]


@dataclass(frozen=True)
class Figure:
    """One measured figure and the limit that it must keep, if there is one.

    `cpu` is the same in processor time, which a busy machine disturbs less. Without a value it
    could not be measured, and a limit is then not kept.
    """

    name: str
    value: float | None
    unit: str
    limit: float | None = None
    low: float | None = None
    high: float | None = None
    cpu: float | None = None
    pairs: int = 1

    @property
    def kept(self) -> bool:
        """Whether the limit is kept."""
        if self.limit is None or self.value is None:
            return self.limit is None
        return self.value <= self.limit


def figure(
    name: str,
    pairs: Sequence[Measured],
    value: Callable[[float, float], float],
    *,
    unit: str = "x",
    limit: float | None = None,
) -> Figure:
    """Take the median over pairs of processes, floor and measured, run in turn."""
    values = sorted(value(floor.wall, used.wall) for floor, used in pairs)
    cpu = statistics.median(value(floor.cpu, used.cpu) for floor, used in pairs)
    median = statistics.median(values)
    return Figure(name, median, unit, limit, values[0], values[-1], cpu, len(values))


def ratio(floor: float, used: float) -> float:
    """Return how many times the floor something is."""
    return used / floor


def beyond(floor: float, used: float) -> float:
    """Return what something takes beyond the floor."""
    return used - floor


def run_pairs(pair: Callable[[int], Measured], count: int) -> list[Measured]:
    """Measure pairs; the first is thrown away."""
    return [pair(number) for number in range(count + 1)][1:]


def timed(
    argv: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Used:
    """Run a program, expect exit code 0, and return what it used."""
    words = [str(word) for word in argv]
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=env or ENVIRONMENT,
            cwd=cwd,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}\n{said}")
    return Used(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def answer(argv: Sequence[object], *, env: Mapping[str, str] | None = None) -> str:
    """Run a program, expect exit code 0, and return what it printed."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=env or ENVIRONMENT
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout
