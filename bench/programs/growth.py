"""Processor time per point of sweeps of several sizes, beyond what a sweep of 2 points takes.

All in one process, so that the start does not count; the least of several runs in turn. The words
are those of ``valska``.
"""

import contextlib
import gc
import io
import json
import shutil
import sys
import time

from valska.cli import main

WORDS = sys.argv[1:]
OUTPUT = WORDS[WORDS.index("-o") + 1]
SIZES = (100, 1_000, 10_000)
ROUNDS = 4


def prepare(points: int) -> float:
    """Return what a sweep takes."""
    words = [f"{w.rpartition(':')[0]}:{points}" if w.startswith("fwhm_deg=") else w for w in WORDS]
    gc.collect()
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        main(words, standalone_mode=False)
    taken = time.process_time() - begin
    shutil.rmtree(OUTPUT)
    return taken


prepare(100)
found: dict[int, list[float]] = {points: [] for points in SIZES}
for _ in range(ROUNDS):
    for points in SIZES:
        for _ in range(max(1, 1_000 // points)):
            found[points].append(prepare(points))
fixed = min(prepare(2) for _ in range(20))
print(json.dumps({n: (min(times) - fixed) / (n - 2) for n, times in found.items()}))
