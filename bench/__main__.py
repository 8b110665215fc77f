"""Measure the start, the bundling and the job script; print a table and check it against limits.

Run it with ``make bench``. Each figure comes from pairs of processes run in turn, floor and
valska, so that a machine whose speed drifts slows both; the median of the pairs counts.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
VALSKA = Path(sys.executable).with_name("valska")

ENVIRONMENT = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Byte code is kept, as it is wherever valska is installed."""

Measured = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """One measured figure and the limit that it must keep."""

    name: str
    value: float
    unit: str
    limit: float
    low: float
    high: float
    pairs: int

    @property
    def kept(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit


def main() -> int:
    """Measure all, print, and return 1 if a limit is not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="pairs of runs for each figure")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="valska-bench-") as name:
        figures = list(measure(Path(name), options.pairs))
    if options.json:
        print(json.dumps([{**asdict(figure), "kept": figure.kept} for figure in figures], indent=2))
    else:
        print_table(figures)
    return 0 if all(figure.kept for figure in figures) else 1


def measure(scratch: Path, pairs: int):
    """Measure every figure."""
    yield starting(pairs)
    image = scratch / "tiny.sif"
    run([ROOT / "tests/cluster/tiny-image.sh", image])
    yield bundling(scratch, image, pairs)
    yield job_script(scratch, image, pairs)


def starting(pairs: int) -> Figure:
    """Compare the CLI's start with that of the library that it is made of."""
    return figure(
        "valska --version / python -c 'import click'",
        lambda _: (
            timed([sys.executable, "-c", "import click"]),
            timed([VALSKA, "--version"]),
        ),
        lambda pair: pair[1] / pair[0],
        unit="x",
        limit=2.0,
        pairs=pairs,
    )


def bundling(scratch: Path, image: Path, pairs: int) -> Figure:
    """Time a small bundle beyond the interpreter's start."""

    definition, store = scratch / "tiny.def", scratch / "store"
    definition.write_text(f"Bootstrap: localimage\nFrom: {image}\n")
    run([VALSKA, "build", definition, "--images", store])
    ENVIRONMENT["VALSKA_IMAGES"] = str(store)

    def pair(number: int) -> Measured:
        command = [VALSKA, "bundle", "pyuvsim", "--template", "hera_small", "--image", "tiny"]
        return timed([sys.executable, "-c", "pass"]), timed(
            [*command, "-o", scratch / f"bundle-{number}"]
        )

    return figure(
        "valska bundle - interpreter start",
        pair,
        lambda pair: pair[1] - pair[0],
        unit="s",
        limit=0.3,
        pairs=pairs,
    )


def job_script(scratch: Path, image: Path, pairs: int) -> Figure:
    """Time a job beyond the bare container, the hashing of its image taken off."""
    bundle = job_bundle(scratch, image)
    run(["bash", bundle / "submit_simulate.sh"])

    def pair(_: int) -> Measured:
        shutil.rmtree(bundle / "records")
        bare = timed(["apptainer", "exec", "--cleanenv", "--containall", image, "true"])
        hashing = timed(["openssl", "dgst", "-sha256", "-r", image])
        return bare + hashing, timed(["bash", bundle / "submit_simulate.sh"])

    return figure(
        "job script - (apptainer exec + image hash)",
        pair,
        lambda pair: pair[1] - pair[0],
        unit="s",
        limit=0.1,
        pairs=pairs,
    )


def job_bundle(scratch: Path, image: Path) -> Path:
    """Make a contained bundle whose payload does nothing."""
    from valska.external_tools.core.bundling import BundledImage, BundleRequest, create, draft
    from valska.external_tools.core.tool import RunPlan, RunSpec, Stage
    from valska.external_tools.core.utils import sha256_file

    class Nothing:
        name = "nothing"
        definition = "nothing.def"

        def discover(self, spec, read):
            return ()

        def plan(self, spec, inputs, read):
            return RunPlan((Stage("simulate", ("true",)),), {}, {})

    bundled = BundledImage(image, sha256_file(image), image.stat().st_size)
    request = BundleRequest(
        tool=Nothing(),
        spec=RunSpec("nothing", "bench", image),
        image=bundled,
        output=scratch / "job",
    )
    return create(draft(request)).path


def figure(
    name: str,
    pair: Callable[[int], Measured],
    value: Callable[[Measured], float],
    *,
    unit: str,
    limit: float,
    pairs: int,
) -> Figure:
    """Measure pairs, the first thrown away, and take the median."""
    pair(0)
    values = sorted(value(pair(number)) for number in range(1, pairs + 1))
    median = statistics.median(values)
    return Figure(name, median, unit, limit, values[0], values[-1], len(values))


def timed(argv: Sequence[object]) -> float:
    """Return the wall time of a process in seconds."""
    start = time.perf_counter()
    run(argv)
    return time.perf_counter() - start


def run(argv: Sequence[object]) -> None:
    """Run a program and expect exit code 0."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")


def print_table(figures: Sequence[Figure]) -> None:
    """Print the figures for a person."""
    width = max(len(figure.name) for figure in figures)
    print(f"{'':{width}}   median      min      max    limit")
    for item in figures:
        numbers = "".join(f"{n:9.3f}" for n in (item.value, item.low, item.high, item.limit))
        verdict = "kept" if item.kept else "NOT KEPT"
        print(f"{item.name:{width}}{numbers} {item.unit}  {verdict} ({item.pairs} pairs)")


if __name__ == "__main__":
    raise SystemExit(main())
