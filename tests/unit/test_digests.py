"""Digests of many files: the same whether threads or processes make them."""

import hashlib
import os
import subprocess
import sys
import threading

import pytest

from valska.external_tools.core import digests
from valska.external_tools.core.utils import sha256_file

BY_PROCESSES = """
import os, sys, threading
from valska.external_tools.core import digests

assert threading.active_count() == 1
digests.MANY = 2
os.sched_getaffinity = lambda process: {0, 1}
real = digests.sha256_file

def digest(path):
    pids.append(os.getpid())
    if path.name == sys.argv[1] and os.getpid() != parent:
        os.kill(os.getpid(), 9)
    return real(path)

pids, parent = [], os.getpid()
digests.sha256_file = digest
found = list(digests.digest_files(sys.argv[2:]))
print(len(pids))
print("\\n".join(map(str, found)))
"""


def by_processes(killed, paths):
    words = [sys.executable, "-c", BY_PROCESSES, killed, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    here, *found = done.stdout.splitlines()
    return int(here), found


@pytest.fixture
def files(tmp_path):
    """Return files, and the digests that they have."""
    paths = [tmp_path / str(number) for number in range(40)]
    contents = [bytes([number]) * number for number in range(40)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths, [hashlib.sha256(content).hexdigest() for content in contents]


def test_threads_digest_in_order_and_say_what_cannot_be_read(tmp_path, files):
    paths, wanted = files
    (tmp_path / "folder").mkdir()
    names = [*map(str, paths), str(tmp_path / "none"), str(tmp_path / "folder")]
    *found, absent, folder = digests.digest_files(names)
    assert found == wanted
    assert isinstance(absent, FileNotFoundError)
    assert isinstance(folder, IsADirectoryError)


def test_processes_digest_in_order(files):
    paths, wanted = files
    here, found = by_processes("none", paths)
    assert here == 0
    assert found == wanted


def test_what_a_killed_process_leaves_is_digested_here(files):
    paths, wanted = files
    here, found = by_processes("20", paths)
    assert here > 0
    assert found == wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_without_semaphores_threads_do_it(files):
    paths, wanted = files
    words = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro t /dev/shm && exec "$0" "$@"']
    done = subprocess.run(
        [*words, sys.executable, "-c", BY_PROCESSES, "none", *map(str, paths)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    here, *found = done.stdout.splitlines()
    assert (int(here), found) == (len(paths), wanted)


def test_no_files_have_no_digests():
    assert list(digests.digest_files([])) == []


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, 1 << 20])
def test_files_of_every_size_are_read_whole(tmp_path, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_a_few_files_start_no_thread(files, monkeypatch):
    def start(self):
        raise AssertionError

    monkeypatch.setattr(threading.Thread, "start", start)
    paths, wanted = files
    assert list(digests.digest_files([*map(str, paths[:3])])) == wanted[:3]


def test_two_large_files_are_digested_at_the_same_time(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.touch()
        os.truncate(path, 9 << 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    both = threading.Barrier(2, timeout=20)
    real = digests.digest_file

    def digest(path):
        both.wait()
        return real(path)

    monkeypatch.setattr(digests, "digest_file", digest)
    wanted = hashlib.sha256(bytes(9 << 20)).hexdigest()
    assert list(digests.digest_files([*map(str, paths)])) == [wanted, wanted]
