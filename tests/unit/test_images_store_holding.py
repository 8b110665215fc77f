"""One works, the others wait; who was killed holds nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from valska.external_tools.core import lock
from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.holding import hold

WORKER = """
import sys, time
from pathlib import Path
from valska.external_tools.core.images.store import ImageStore
with ImageStore(Path(sys.argv[1])).holding(sys.argv[2], "building"):
    log = Path(sys.argv[3])
    log.write_text(log.read_text() + "in\\n") if log.exists() else log.write_text("in\\n")
    time.sleep(float(sys.argv[4]))
    log.write_text(log.read_text() + "out\\n")
"""


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "store")


@pytest.fixture
def worker(store, tmp_path):
    started = []

    def start(seconds, key="docker://host/image:1"):
        argv = [sys.executable, "-c", WORKER, store.root, key, tmp_path / "log", str(seconds)]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_works_and_the_others_wait(worker, tmp_path):
    workers = [worker(0.3) for _ in range(4)]
    told = [process.communicate(timeout=60)[1] for process in workers]
    assert [process.returncode for process in workers] == [0] * 4, told
    assert (tmp_path / "log").read_text() == "in\nout\n" * 4


def test_who_waits_is_told_once_for_whom(store, worker, tmp_path, caplog):
    first = worker(3)
    wait_for(tmp_path / "log")
    with store.holding("docker://host/image:1", "fetching the image"):
        assert (tmp_path / "log").read_text() == "in\nout\n"
    (record,) = caplog.records
    assert record.getMessage().startswith("fetching the image: process")
    assert f"process {first.pid} on " in record.getMessage()
    assert os.fspath(store.locks) in record.getMessage()


def test_who_was_killed_is_followed_at_once(store, worker, tmp_path):
    first = worker(60)
    wait_for(tmp_path / "log")
    waiting = worker(0)
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert waiting.wait(timeout=10) == 0
    assert (tmp_path / "log").read_text() == "in\nin\nout\n"
    assert list(store.locks.iterdir()) == []


def test_what_is_different_is_done_at_once(store, caplog):
    with store.holding("a", "building a"), store.holding("b", "building b"):
        assert sorted(path.name for path in store.locks.iterdir()) == ["a", "b"]
    assert caplog.records == []


def test_a_holder_on_another_host_is_named_and_waited_for(store, caplog):
    """A stand-in for what another machine wrote."""
    store.locks.mkdir(parents=True)
    (store.locks / "a").mkdir()
    owner = {"host": "node7", "boot": "x", "pid": 12, "start": 5}
    (store.locks / "a" / lock.OWNER).write_text(json.dumps(owner))
    polls = []

    def sleep(seconds):
        polls.append(seconds)
        if len(polls) == 30:
            (store.locks / "a" / lock.OWNER).unlink()
            (store.locks / "a").rmdir()

    with hold(store.locks, "a", "building a", sleep=sleep):
        assert len(polls) == 30
    (record,) = caplog.records
    assert "process 12 on node7" in record.getMessage()
    assert f"remove {store.locks / 'a'}" in record.getMessage()


@pytest.mark.parametrize("key", ["../../evil", "docker://h/x@sha256:0", ".", "", "x" * 300, "a b"])
def test_any_key_is_a_plain_name(store, key):
    with store.holding(key, "working"):
        (path,) = store.locks.iterdir()
    assert path.parent == store.locks
    assert len(path.name) <= 100


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PrerequisiteError, match="cannot be written"),
        ImageStore(tmp_path / "file").holding("a", "building"),
    ):
        pass
