"""Disks that are full, and commands that are killed: real ones."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

SIZE = 60_000_000
INSIDE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o size=8m none "$1"'


@pytest.fixture
def run(user):
    """A run with an output that does not compress, which takes a while to pack."""
    keep = ("--override", f"then='; head -c {SIZE} /dev/urandom > noise'")
    bundle = user.bundle(*keep, "--override", "keep=noise", output="run")
    done = user.process("submit", bundle, "--scheduler", "local", "--wait")
    assert done.returncode == 0, done.stderr
    return bundle


@pytest.fixture
def archive(user, run):
    user.ok("archive", run, "-o", "run.tar.zst")
    return user.cwd / "run.tar.zst"


@pytest.fixture
def on_a_small_disk(user, require):
    """Run valska with a small disk mounted at a path; its exit code, stderr, what it left there."""
    path = user.cwd / "small"
    path.mkdir()
    probe = subprocess.run([*INSIDE, "bash", "-c", MOUNT, "x", path], check=False)
    require(probe.returncode == 0, "no user namespace to mount a small disk in")
    script = f"""{MOUNT}; at=$1; shift; "$@"; code=$?; find "$at" -mindepth 1; exit "$code\""""

    def on_a_small_disk(*args):
        command = [*INSIDE, "bash", "-c", script, "x", path, sys.executable, "-m", "valska", *args]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stderr, done.stdout

    return on_a_small_disk


@pytest.mark.parametrize("verb", [("unpack",), ("reproduce", "--scheduler", "local")])
def test_a_full_disk_is_no_fault_of_the_archive(user, archive, on_a_small_disk, verb):
    code, told, left = on_a_small_disk(*verb, archive, "-o", "small/it")
    assert code == 1
    assert "cannot unpack into" in told
    assert "small" in told.partition(":")[2]
    assert "no space left on device" in told
    assert "cannot read" not in told
    assert "`valska unpack --dry-run" in told
    assert left == ""


def test_a_dry_run_says_how_much_it_takes(user, archive):
    assert "60.0 MB" in user.ok("unpack", archive, "--dry-run").stderr


@contextmanager
def stopped(user, *args):
    """A command of valska that was stopped in the middle, and its hidden directory."""
    before = set(user.cwd.glob(".*.tmp"))
    command = [sys.executable, "-m", "valska", *map(str, args)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while not (found := written(user.cwd, before)):
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGSTOP)
            yield process, found
        finally:
            process.kill()


def written(folder, before):
    for place in set(folder.glob(".*.tmp")) - before:
        if any(path.is_file() and path.stat().st_size > 1 << 20 for path in place.rglob("*")):
            return place
    return None


@pytest.mark.parametrize(
    "args", [("archive", "run", "-o", "x.tar.zst"), ("unpack", "run.tar.zst", "-o", "x")]
)
def test_what_a_killed_command_left_is_removed_but_not_what_another_makes(user, archive, args):
    with stopped(user, *args) as (killed, left):
        killed.kill()
    with stopped(user, *args) as (_, made):
        done = user.process("unpack", archive, "-o", "other")
        assert done.returncode == 0
        assert not left.exists()
        assert written(user.cwd, set()) == made
        assert not (user.cwd / args[-1]).exists()


def test_a_stopped_command_goes_on_though_others_ran(user, archive):
    with stopped(user, "archive", "run", "-o", "x.tar.zst") as (process, _):
        for name in ("one", "two"):
            assert user.process("unpack", archive, "-o", name).returncode == 0
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0
    assert (user.cwd / "x.tar.zst").read_bytes() == archive.read_bytes()
    assert not list(user.cwd.glob(".*"))


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")],
)
def test_a_signal_ends_a_command_tidily(user, run, number, code, told):
    before = set(user.cwd.iterdir())
    command = [sys.executable, "-m", "valska", "archive", run, "-o", "x.tar.zst"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not written(user.cwd, set()):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error.split()) == (code, [told])
    assert set(user.cwd.iterdir()) == before
