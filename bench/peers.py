"""Other tools that prepare many runs, measured beside valska."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.measuring import ENVIRONMENT, PROGRAMS, Figure, Used, timed

LIST = Path(__file__).with_name("peers.txt")
POINTS = 1_000


def compared(folder: Path, ours: Sequence[Used], count: int) -> Iterator[Figure]:
    """Compare valska's time for 1,000 points with that of the others."""
    programs = peers()
    for name, prepare in {"signac-flow": signac_flow, "maestrowf": maestro}.items():
        shown = f"1,000 points: valska / {name}"
        if programs is None:
            yield Figure(shown, None, "x", 1.0)
        else:
            theirs = [prepare(programs, folder) for _ in range(count)][1:]
            yield beside(shown, ours, theirs)


def beside(name: str, ours: Sequence[Used], theirs: Sequence[Used]) -> Figure:
    """Return the ratio of medians, and those of the extremes."""

    def of(value: Callable[[Used], float], pick: Callable[[Sequence[float]], float]) -> float:
        return pick([value(used) for used in ours]) / pick([value(used) for used in theirs])

    value, cpu = of(lambda u: u.wall, statistics.median), of(lambda u: u.cpu, statistics.median)
    low = min(u.wall for u in ours) / max(u.wall for u in theirs)
    high = max(u.wall for u in ours) / min(u.wall for u in theirs)
    return Figure(name, value, "x", 1.0, low, high, cpu, len(theirs))


def signac_flow(programs: Path, folder: Path) -> Used:
    """Prepare points with signac-flow."""
    place = folder / "signac"
    place.mkdir()
    used = timed([programs / "python", PROGRAMS / "signac_points.py", POINTS], cwd=place)
    made = sum(1 for _ in place.glob("workspace/*/submit.sh"))
    return _checked("signac-flow", place, made, used)


def maestro(programs: Path, folder: Path) -> Used:
    """Prepare points with maestrowf."""
    place = folder / "maestro"
    values = ["--pgen", PROGRAMS / "maestro_points.py", "--pargs", f"points:{POINTS}"]
    command = [programs / "maestro", "run", "--dry", "--autoyes", "-fg", "--sleeptime", 0]
    env = {**ENVIRONMENT, "PATH": f"{programs}{os.pathsep}{ENVIRONMENT['PATH']}"}
    used = timed([*command, "--out", place, *values, PROGRAMS / "maestro.yaml"], env=env)
    return _checked("maestrowf", place, sum(1 for _ in place.glob("sample/*/*.sh")), used)


def _checked(name: str, place: Path, made: int, used: Used) -> Used:
    shutil.rmtree(place)
    if made != POINTS:
        raise SystemExit(f"{name} made {made} submit scripts, not {POINTS}")
    return used


def peers() -> Path | None:
    """Return where the others' programs are; they are installed once, and kept in the cache."""
    digest = hashlib.sha256(LIST.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "valska" / "bench" / digest
    done = place / "complete"
    if not done.exists():
        print(f"Installing what the bench compares with into {place} …", file=sys.stderr)
        try:
            _run([sys.executable, "-m", "venv", "--clear", place])
            _run([place / "bin/python", "-m", "pip", "install", "-qq", "--no-deps", "-r", LIST])
        except subprocess.CalledProcessError as error:
            print(f"It cannot be installed, and is not compared with: {error}", file=sys.stderr)
            return None
        done.touch()
    return place / "bin"


def _run(argv: Sequence[object]) -> None:
    subprocess.run([str(word) for word in argv], check=True, stdout=sys.stderr)
