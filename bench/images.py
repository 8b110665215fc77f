"""Images: building, finding and hashing them."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from bench.measuring import (
    PROGRAMS,
    ROOT,
    VALSKA,
    Figure,
    Measured,
    answer,
    figure,
    ratio,
    run_pairs,
    timed,
)

BUILDS = 2
IMAGES = 200
HASHED_BYTES = 1 << 30
HASHING = "import sys, pathlib; from valska.external_tools.core.utils import sha256_file as f; "


def images(scratch: Path, pairs: int) -> Iterator[Figure]:
    """Measure all three."""
    yield finding(scratch, pairs)
    yield hashing(pairs)
    yield building(scratch, min(pairs, BUILDS))


def building(scratch: Path, pairs: int) -> Figure:
    """Build pyuvsim's definition in turn plainly, and canonical and recorded."""
    base, definition = scratch / "base", ROOT / "containers/pyuvsim.def"
    timed([ROOT / "containers/bootstrap-base.sh", base])

    def pair(number: int) -> Measured:
        sif, store = scratch / "plain.sif", scratch / "images"
        plain = timed([sys.executable, PROGRAMS / "plain_build.py", definition, base, sif])
        sif.unlink()
        ours = timed([VALSKA, "build", definition, "--base", base, "--images", store])
        shutil.rmtree(store)
        return plain, ours

    name = "valska build / apptainer build"
    return figure(name, run_pairs(pair, pairs), ratio, limit=1.5)


def finding(scratch: Path, pairs: int) -> Figure:
    """Find one image among many, and check it against its receipt."""
    tiny, store = scratch / "tiny.sif", scratch / "many"
    timed([ROOT / "tests/cluster/tiny-image.sh", tiny])
    timed([VALSKA, "image", "import", tiny, "--images", store])
    digest = _multiply(store / "sha256")
    words = [sys.executable, PROGRAMS / "find_image.py", store, digest]
    times = sorted(float(answer(words)) * 1000 for _ in range(pairs + 1))
    name = f"finding and checking one of {IMAGES} images"
    return Figure(name, statistics.median(times), "ms", 20.0, times[0], times[-1], pairs=pairs)


def _multiply(directory: Path) -> str:
    """Fill a store with further images that differ in their last bytes; return a digest."""
    record = next(directory.glob("*.json"))
    image = record.with_suffix(".sif").read_bytes()
    data, digest = json.loads(record.read_text()), record.stem
    for number in range(1, IMAGES):
        content = image + number.to_bytes(4096, "little")
        digest = sha256(content).hexdigest()
        sif = directory / f"{digest}.sif"
        sif.write_bytes(content)
        changed = {"sha256": digest, "size": len(content), "definition": None, "sbom": None}
        sif.with_suffix(".json").write_text(json.dumps({**data, **changed}))
        status = sif.stat()
        line = f"{digest} {status.st_size} {int(status.st_mtime)} {status.st_ino}\n"
        Path(f"{sif}.receipt").write_text(line)
    return digest


def hashing(pairs: int) -> Figure:
    """Hash a large file in turn with OpenSSL's own program and as valska does."""
    path = Path("/dev/shm") / f"valska-bench-{os.getpid()}"
    try:
        with path.open("wb") as file:
            for _ in range(HASHED_BYTES >> 20):
                file.write(os.urandom(1 << 20))

        def pair(_: int) -> Measured:
            ours = [sys.executable, "-c", f"{HASHING} f(pathlib.Path(sys.argv[1]))", path]
            return timed(["openssl", "dgst", "-sha256", "-r", path]), timed(ours)

        pairs_measured = run_pairs(pair, pairs)
    finally:
        path.unlink(missing_ok=True)
    return figure("hashing a 1 GiB image / openssl dgst", pairs_measured, ratio, limit=1 / 0.9)
