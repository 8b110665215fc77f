"""A small bundle, and its job script."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measuring import (
    ENVIRONMENT,
    ROOT,
    VALSKA,
    Figure,
    Measured,
    Used,
    beyond,
    figure,
    run_pairs,
    timed,
)


def bundles(scratch: Path, pairs: int) -> Iterator[Figure]:
    """Measure both."""
    image = scratch / "tiny.sif"
    timed([ROOT / "tests/cluster/tiny-image.sh", image])
    yield bundling(scratch, image, pairs)
    yield job_script(scratch, image, pairs)


def bundling(scratch: Path, image: Path, pairs: int) -> Figure:
    """Time a small bundle beyond the interpreter's start."""
    definition, store = scratch / "tiny.def", scratch / "store"
    definition.write_text(f"Bootstrap: localimage\nFrom: {image}\n")
    timed([VALSKA, "build", definition, "--images", store])
    env = {**ENVIRONMENT, "VALSKA_IMAGES": str(store)}

    def pair(number: int) -> Measured:
        command = [VALSKA, "bundle", "pyuvsim", "--template", "hera_small", "--image", "tiny"]
        floor = timed([sys.executable, "-c", "pass"])
        return floor, timed([*command, "-o", scratch / f"bundle-{number}"], env=env)

    name = "valska bundle - interpreter start"
    return figure(name, run_pairs(pair, pairs), beyond, unit="s", limit=0.3)


def job_script(scratch: Path, image: Path, pairs: int) -> Figure:
    """Time a job beyond the bare container, the hashing of its image taken off."""
    bundle = job_bundle(scratch, image)
    timed(["bash", bundle / "submit_simulate.sh"])

    def pair(_: int) -> Measured:
        shutil.rmtree(bundle / "records")
        bare = timed(["apptainer", "exec", "--cleanenv", "--containall", image, "true"])
        hashing = timed(["openssl", "dgst", "-sha256", "-r", image])
        floor = Used(bare.wall + hashing.wall, bare.cpu + hashing.cpu, bare.memory)
        return floor, timed(["bash", bundle / "submit_simulate.sh"])

    name = "job script - (apptainer exec + image hash)"
    return figure(name, run_pairs(pair, pairs), beyond, unit="s", limit=0.1)


def job_bundle(scratch: Path, image: Path) -> Path:
    """Make a contained bundle whose payload does nothing."""
    from valska.external_tools.core.bundling import BundledImage, BundleRequest, create, draft
    from valska.external_tools.core.tool import Input, Read, RunPlan, RunSpec, Stage
    from valska.external_tools.core.utils import sha256_file

    @dataclass(frozen=True)
    class Nothing:
        name: str = "nothing"
        definition: str = "nothing.def"

        def discover(self, spec: RunSpec, read: Read) -> tuple[Input, ...]:
            return ()

        def plan(self, spec: RunSpec, inputs: tuple[Input, ...], read: Read) -> RunPlan:
            return RunPlan((Stage("simulate", ("true",)),), {}, {})

    nothing: Any = Nothing()
    bundled = BundledImage(image, sha256_file(image), image.stat().st_size)
    request = BundleRequest(
        tool=nothing,
        spec=RunSpec("nothing", "bench", image),
        image=bundled,
        output=scratch / "job",
    )
    return create(draft(request)).path
