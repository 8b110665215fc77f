"""Archives: packing and verifying, against programs that only compress, or only digest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench.measuring import (
    ENVIRONMENT,
    ROOT,
    VALSKA,
    Figure,
    Measured,
    figure,
    ratio,
    run_pairs,
    timed,
)

LARGE_FILES, LARGE_BYTES = 4, 512 << 20
SMALL_FILES, SMALL_BYTES = 20_000, 4096
LARGE_PAIRS, SMALL_PAIRS = 3, 9
LIMIT = 1 / 0.9
MEMORY_MB = 200.0

_PATTERN = (b"the quick brown fox 0123456789 " * 34)[:1024]


def archives(scratch: Path, pairs: int) -> Iterator[Figure]:
    """Measure packing and verifying of few large files and of many small ones."""
    for kind, count, size, most in (
        ("2 GiB in 4 files", LARGE_FILES, LARGE_BYTES, LARGE_PAIRS),
        ("20,000 files of 4 KiB", SMALL_FILES, SMALL_BYTES, SMALL_PAIRS),
    ):
        place = scratch / f"files-{count}"
        outputs = _outputs(place, count, size)
        bundle = _bundle(place, outputs)
        yield from _packing(place, kind, outputs, bundle, min(pairs, most))
        yield from _verifying(place, kind, bundle, min(pairs, most))


def _outputs(place: Path, count: int, size: int) -> Path:
    """Write files, half of them incompressible and half repetitive."""
    outputs = place / "outputs"
    for number in range(count):
        path = outputs / f"{number // 1000:03}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, size, 1 << 20):
                part = min(1 << 20, size - start)
                file.write(os.urandom(part) if number % 2 else _PATTERN * (part // 1024))
    return outputs


def _bundle(place: Path, outputs: Path) -> Path:
    """Make a bundle whose run wrote these files, and run it."""
    bundle = place / "bundle"
    env = {**ENVIRONMENT, "PYTHONPATH": str(ROOT / "tests/data/linetool")}
    then = f'then="; cp -r {outputs}/. ."'
    words = ("bundle", "linetool", "--template", "three", "--runner", "host", "--override", then)
    timed([VALSKA, *words, "-o", bundle], env=env)
    timed([VALSKA, "submit", bundle, "--scheduler", "local", "--wait"], env=env)
    return bundle


def _packing(place: Path, kind: str, outputs: Path, bundle: Path, pairs: int) -> Iterator[Figure]:
    largest = 0.0

    def pair(number: int) -> Measured:
        nonlocal largest
        plain, ours = place / "plain.tar.zst", place / "ours.tar.zst"
        for path in (plain, ours):
            path.unlink(missing_ok=True)
        floor = timed(["bash", "-c", 'tar -cf - "$0" | zstd -q -3 -T0 -o "$1"', outputs, plain])
        used = timed([VALSKA, "archive", "-q", bundle, "-o", ours])
        largest = max(largest, used.memory)
        return floor, used

    name = f"valska archive / tar | zstd -3 -T0, {kind}"
    yield figure(name, run_pairs(pair, pairs), ratio, limit=LIMIT)
    yield Figure(f"memory of valska archive, {kind}", largest, "MB", MEMORY_MB)


def _verifying(place: Path, kind: str, bundle: Path, pairs: int) -> Iterator[Figure]:
    archive = place / "ours.tar.zst"
    largest = 0.0

    def pair(number: int) -> Measured:
        nonlocal largest
        floor = timed(["bash", "-c", 'zstd -dcq "$0" | openssl dgst -sha256', archive])
        used = timed([VALSKA, "verify", "-q", archive])
        largest = max(largest, used.memory)
        return floor, used

    name = f"valska verify FILE / zstd -dc | openssl dgst -sha256, {kind}"
    yield figure(name, run_pairs(pair, pairs), ratio, limit=LIMIT)
    yield Figure(f"memory of valska verify FILE, {kind}", largest, "MB", MEMORY_MB)
