"""Archives: packing and verifying, against programs that only compress, or only digest.

A program that only compresses does less than an archive takes, whose every file is digested. Where
the processor has instructions for SHA-256 that is little, and the limit is on the ratio to it;
elsewhere the digest alone takes longer than the whole floor, and the limit is on the ratio to
programs that compress and digest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import keepers
from bench.measuring import (
    ENVIRONMENT,
    PROGRAMS,
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
FEW_FILES = 2_000
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
        yield from _verifying(place, kind, min(pairs, most))
        yield from _verifying_bundle(place, kind, bundle, min(pairs, most))
        yield from keepers.compared(place, kind, outputs, bundle, min(pairs, most))
    few = scratch / "few"
    outputs = _outputs(few, FEW_FILES, SMALL_BYTES)
    yield from keepers.datalad(few, f"{FEW_FILES:,} files of 4 KiB", outputs, _bundle(few, outputs))


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
    then = f'then="; cp -r {outputs} files"'
    words = ("bundle", "linetool", "--template", "three", "--runner", "host")
    timed(
        [VALSKA, *words, "--override", then, "--override", "keep=files/*/*", "-o", bundle], env=env
    )
    timed([VALSKA, "submit", bundle, "--scheduler", "local", "--wait"], env=env)
    return bundle


def _packing(place: Path, kind: str, outputs: Path, bundle: Path, pairs: int) -> Iterator[Figure]:
    compress = 'tar -cf - "$0" | zstd -q -3 -T0 -o "$1"'
    both = 'tar -cf - "$0" | tee >(openssl dgst -sha256 >"$1.digest") | zstd -q -3 -T0 -o "$1"'
    quick = _digests_quickly()
    plain, ours = place / "plain.tar.zst", place / "ours.tar.zst"
    largest = 0.0
    for name, floor, judged in (
        ("tar | zstd -3 -T0", compress, quick),
        ("tar | openssl dgst & zstd -3 -T0", both, not quick),
    ):

        def pair(number: int, floor: str = floor) -> Measured:
            for path in (plain, ours):
                path.unlink(missing_ok=True)
            other = timed(["bash", "-c", floor, outputs, plain])
            return other, timed([VALSKA, "archive", "-q", bundle, "-o", ours])

        measured = run_pairs(pair, pairs)
        largest = max(largest, *(used.memory for _, used in measured))
        limit = LIMIT if judged else None
        yield figure(f"valska archive / {name}, {kind}", measured, ratio, limit=limit)
    yield Figure(f"memory of valska archive, {kind}", largest, "MB", MEMORY_MB)


def _digests_quickly() -> bool:
    """Return whether the processor has instructions for SHA-256."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return any(word in ("sha_ni", "sha2") for word in text.split())


def _verifying(place: Path, kind: str, pairs: int) -> Iterator[Figure]:
    archive = place / "ours.tar.zst"

    def pair(number: int) -> Measured:
        floor = timed(["bash", "-c", 'zstd -dcq "$0" | openssl dgst -sha256', archive])
        return floor, timed([VALSKA, "verify", "-q", archive])

    measured = run_pairs(pair, pairs)
    name = f"valska verify FILE / zstd -dc | openssl dgst -sha256, {kind}"
    yield figure(name, measured, ratio, limit=LIMIT)
    largest = max(used.memory for _, used in measured)
    yield Figure(f"memory of valska verify FILE, {kind}", largest, "MB", MEMORY_MB)


def _verifying_bundle(place: Path, kind: str, bundle: Path, pairs: int) -> Iterator[Figure]:
    def pair(number: int) -> Measured:
        floor = timed([sys.executable, PROGRAMS / "digest_files.py", bundle / "outputs"])
        return floor, timed([VALSKA, "verify", "-q", bundle])

    measured = run_pairs(pair, pairs)
    name = f"valska verify BUNDLE / hashlib on all cores, {kind}"
    yield figure(name, measured, ratio, limit=LIMIT)
    largest = max(used.memory for _, used in measured)
    yield Figure(f"memory of valska verify BUNDLE, {kind}", largest, "MB", MEMORY_MB)
