"""The same bundle gives the same bytes: whoever packs it, where, and in what surroundings."""

import hashlib
import io
import os
import shutil
import subprocess
import sys

import pytest
import zstandard
from archives import finished
from sweeps import make_sweep, shell
from toy import stage

from valska.external_tools.core.archive.members import directory, made
from valska.external_tools.core.archive.packing import Packer

TAR = "a698670ecc10c0303c0f2e1032719422aabea5562e02b4be43eaf62928040aef"
BYTES = {
    (1, 5, 6): "070592416f88d694073960eece926660b9ddf30e6a96e89a1cff30f08b4261bf",
    (1, 5, 7): "54cfb6d124f54609dd79c6c675acecc2cc771227c64fd41d33ad80dd6ce69dbd",
}
"""By the release of Zstandard: another one may compress otherwise, and this says so."""

PACK = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[3], 8))
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.selection import Choice
from valska.external_tools.core.archive.source import select
from valska.external_tools.core.archive.writing import write_archive
write_archive(select(Path(sys.argv[1]), Choice()), Path(sys.argv[2]), Description())
"""
SURROUNDINGS = {
    "as it is": ("022", {}),
    "a narrow umask, far away, in C": ("077", {"TZ": "Asia/Tokyo", "LC_ALL": "C", "LANG": "C"}),
    "a wide umask, half an hour off": (
        "000",
        {"TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"},
    ),
}
NAMES = ("b", "C", "a", "Z", "_", "-", "10", "9", "é", "ä", "a b", "long" * 40)


def one_bundle(folder):
    bundle = finished(folder)
    for name in NAMES:
        (bundle.logs / name).write_text(name * 50)
    (bundle.logs / "long.log").write_bytes(bytes(range(256)) * (1 << 14))
    (bundle.logs / "latest").symlink_to("long.log")
    return bundle.path


def one_sweep(folder):
    stages = [stage(), shell("cat ../config/run.yaml > two.txt", "two", outputs=("two.txt",))]
    sweep = make_sweep(folder, stages, points=("b", "B2", "a", "10", "9"))
    for point in ("a", "9"):
        for name in ("simulate", "two"):
            argv = ["bash", f"submit_{name}.sh", f"points/{point}"]
            subprocess.run(argv, cwd=sweep.path, check=True, capture_output=True)
    return sweep.path


def copied_backwards(place, target):
    """Copy a tree in another order, with other times and other modes for group and others."""
    for path in sorted(place.rglob("*"), reverse=True):
        to = target / path.relative_to(place)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            to.symlink_to(path.readlink())
        elif path.is_dir():
            to.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, to)
            to.chmod(0o755 if os.access(path, os.X_OK) else 0o666)
            os.utime(to, (1_000_000_000, 1_000_000_000.5))
    return target


def packed(place, target, umask, variables, one_cpu):
    env = {**os.environ, **variables}
    cpus = [min(os.sched_getaffinity(0))]
    done = subprocess.run(
        [sys.executable, "-c", PACK, place, target, umask],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if one_cpu else None,
    )
    assert done.returncode == 0, done.stderr
    return hashlib.sha256(target.read_bytes()).hexdigest()


@pytest.mark.parametrize("make", [one_bundle, one_sweep])
def test_surroundings_do_not_matter(make, tmp_path):
    place = make(tmp_path)
    elsewhere = copied_backwards(place, tmp_path / "else" / "where")
    found = set()
    for number, (umask, variables) in enumerate(SURROUNDINGS.values()):
        source = elsewhere if number % 2 else place
        target = tmp_path / f"{number}.tar.zst"
        found.add(packed(source, target, umask, variables, one_cpu=number > 1))
    assert len(found) == 1


def test_another_user_makes_the_same_bytes(tmp_path, tmp_path_factory):
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can be somebody else")
    place = one_bundle(tmp_path)
    mine = packed(place, tmp_path / "mine.tar.zst", "022", {}, one_cpu=False)
    target = tmp_path / "theirs.tar.zst"
    capabilities = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *capabilities)
    argv = [*as_nobody, sys.executable, "-c", PACK, place, target, "022"]
    env = {**os.environ, "HOME": "/nonexistent", "USER": "nobody", "LOGNAME": "nobody"}
    subprocess.run(argv, env=env, check=True, timeout=120)
    assert target.stat().st_uid == 65534
    assert hashlib.sha256(target.read_bytes()).hexdigest() == mine


def test_the_bytes_are_those_of_this_version():
    """They stay so until the form of archives or the release of Zstandard changes."""
    noise = hashlib.shake_256(b"valska").digest(3 << 20)
    members = [
        directory("data"),
        made("data/noise", noise),
        made("data/numbers", b"".join(b"%d %x\n" % (n * n, n**3) for n in range(60_000))),
        made("data/" + "long" * 60, b"x"),
        made("empty", b""),
    ]
    file = io.BytesIO()
    with Packer(file, 1_700_000_000, top="r1") as packer:
        for member in members:
            packer.add(member)
    plain = zstandard.ZstdDecompressor().stream_reader(file.getvalue()).read()
    assert hashlib.sha256(plain).hexdigest() == TAR
    assert hashlib.sha256(file.getvalue()).hexdigest() == BYTES[zstandard.ZSTD_VERSION]
