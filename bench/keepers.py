"""Other tools that keep and check data, measured beside valska; those that are slow once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.measuring import (
    ENVIRONMENT,
    PROGRAMS,
    VALSKA,
    Figure,
    Measured,
    Used,
    figure,
    ratio,
    run_pairs,
    timed,
)
from bench.peers import beside, peers


def compared(place: Path, kind: str, outputs: Path, bundle: Path, pairs: int) -> Iterator[Figure]:
    """Compare with bagit-python at verifying, and with rocrate at packing."""
    verifying = f"valska verify BUNDLE / bagit.py --validate --processes 2, {kind}"
    packing = f"valska archive / rocrate's zip, {kind}"
    programs = peers()
    if programs is None:
        yield from _unmeasured(verifying, packing)
        return
    bag = place / "bag"
    shutil.copytree(outputs, bag)
    python = programs / "python"
    bagit = [programs / "bagit.py", "--quiet", "--processes", 2]
    timed([*bagit, "--sha256", bag])

    def pair(number: int) -> Measured:
        return timed([*bagit, "--validate", bag]), _verify(bundle)

    yield figure(verifying, run_pairs(pair, pairs), ratio, limit=1.0)
    shutil.rmtree(bag)
    zipped = place / "crate.zip"
    theirs = timed([python, PROGRAMS / "rocrate_zip.py", outputs, zipped])
    yield beside(packing, [_archive(place, bundle)], [theirs])
    zipped.unlink()


def datalad(place: Path, kind: str, outputs: Path, bundle: Path) -> Iterator[Figure]:
    """Compare with datalad: saving and exporting, and the check of git-annex."""
    packing = f"valska archive / datalad save and export-archive, {kind}"
    verifying = f"valska verify BUNDLE / git annex fsck, {kind}"
    programs = peers()
    if programs is None:
        yield from _unmeasured(packing, verifying)
        return
    env = _identity(place, programs)
    data = place / "dataset"
    shutil.copytree(outputs, data)
    command = [programs / "datalad", "-l", "error"]
    timed([*command, "create", "-f", "."], env=env, cwd=data)
    saved = timed([*command, "save", "-m", "all", "."], env=env, cwd=data)
    exported = timed([*command, "export-archive", place / "dataset.tar.gz"], env=env, cwd=data)
    checked = timed([programs / "git-annex", "fsck", "--quiet"], env=env, cwd=data)
    yield beside(packing, [_archive(place, bundle)], [_sum(saved, exported)])
    yield beside(verifying, [_verify(bundle)], [checked])
    timed(["chmod", "-R", "u+w", data])


def _unmeasured(*names: str) -> Iterator[Figure]:
    yield from (Figure(name, None, "x", 1.0) for name in names)


def _identity(place: Path, programs: Path) -> dict[str, str]:
    """Return an environment in which git knows who it works for."""
    who = {"NAME": "bench", "EMAIL": "bench@localhost"}
    names = {f"GIT_{role}_{key}": v for role in ("AUTHOR", "COMMITTER") for key, v in who.items()}
    path = f"{programs}{os.pathsep}{ENVIRONMENT['PATH']}"
    return {**ENVIRONMENT, **names, "PATH": path, "HOME": str(place)}


def _sum(first: Used, second: Used) -> Used:
    memory = max(first.memory, second.memory)
    return Used(first.wall + second.wall, first.cpu + second.cpu, memory)


def _archive(place: Path, bundle: Path) -> Used:
    path = place / "again.tar.zst"
    used = timed([VALSKA, "archive", "-q", bundle, "-o", path])
    path.unlink()
    return used


def _verify(bundle: Path) -> Used:
    return timed([VALSKA, "verify", "-q", bundle])
