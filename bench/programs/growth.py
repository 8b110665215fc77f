"""Time per point of sweeps of several sizes, beyond what a sweep of 2 points takes.

All in one process, so that the start does not count. The words are those of ``valska``.
"""

import contextlib
import gc
import io
import json
import shutil
import statistics
import sys
import time

from valska.cli import main

WORDS = sys.argv[1:]
OUTPUT = WORDS[WORDS.index("-o") + 1]
RUNS = {100: 15, 1_000: 5, 10_000: 2}


def prepare(points: int) -> float:
    """Return how long a sweep takes."""
    words = [f"{w.rpartition(':')[0]}:{points}" if w.startswith("fwhm_deg=") else w for w in WORDS]
    gc.collect()
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        main(words, standalone_mode=False)
    taken = time.perf_counter() - begin
    shutil.rmtree(OUTPUT)
    return taken


prepare(100)
found: dict[int, list[float]] = {points: [] for points in RUNS}
for points, runs in RUNS.items():
    for _ in range(runs):
        fixed = prepare(2)
        found[points].append((prepare(points) - fixed) / (points - 2))
print(json.dumps({points: statistics.median(times) for points, times in found.items()}))
