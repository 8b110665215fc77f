"""What is made under a hidden name: whose it is, and what is removed of processes that ended."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from valska.external_tools.core.partial import OWNER, clear_abandoned, whole_file, workshop

MAKER = """
import sys, time
from pathlib import Path
from valska.external_tools.core.partial import workshop
with workshop(Path(sys.argv[1])) as place:
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/er/file").write_text("x" * 1000)
    print(place.name, flush=True)
    time.sleep(100)
"""


@contextmanager
def maker(path):
    """Give a process that makes something, and its hidden directory."""
    command = [sys.executable, "-c", MAKER, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, path.parent / process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def killed(tmp_path):
    """The hidden directory of a process that was killed."""
    with maker(tmp_path / "it") as (process, place):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (place / "deep/er/file").stat().st_size == 1000
    return place


def test_what_a_killed_process_left_is_removed_by_the_next(killed, tmp_path, caplog):
    with workshop(tmp_path / "other"):
        assert not killed.exists()
    assert f"removing {killed}" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_leave_each_other_alone(tmp_path):
    with maker(tmp_path / "it") as (process, one), maker(tmp_path / "it") as (_, other):
        clear_abandoned(tmp_path)
        assert (one / "deep/er/file").exists()
        assert (other / "deep/er/file").exists()
        process.kill()
        process.wait()
        clear_abandoned(tmp_path)
        assert not one.exists()
        assert (other / "deep/er/file").exists()


def test_what_another_host_makes_stays(killed, tmp_path):
    owner = json.loads((killed / OWNER).read_text())
    (killed / OWNER).write_text(json.dumps({**owner, "host": "another"}))
    clear_abandoned(tmp_path)
    assert killed.exists()


def test_a_maker_that_is_not_seen_from_here_still_holds_its_lock(tmp_path):
    """In another process namespace of the same host a number says nothing."""
    with maker(tmp_path / "it") as (_, place):
        owner = json.loads((place / OWNER).read_text())
        (place / OWNER).write_text(json.dumps({**owner, "pid": 1 << 22, "start": 1}))
        clear_abandoned(tmp_path)
        assert place.exists()


def test_what_is_not_certain_stays(killed, tmp_path):
    file = tmp_path / ".it.0123456789ab.tmp"
    file.write_text("x")
    (tmp_path / ".it.0123456789ac.tmp").mkdir()
    (tmp_path / ".it.0123456789ad.tmp").symlink_to(killed)
    half = tmp_path / ".it.0123456789ae.tmp"
    half.mkdir()
    (half / OWNER).write_text('{"host": ')
    deep = tmp_path / ".it.0123456789ba.tmp"
    deep.mkdir()
    (deep / OWNER).write_text("[" * 4000)
    pipe = tmp_path / ".it.0123456789af.tmp"
    pipe.mkdir()
    os.mkfifo(pipe / OWNER)
    (killed / OWNER).unlink()
    before = sorted(tmp_path.rglob("*"))
    clear_abandoned(tmp_path)
    clear_abandoned(tmp_path / "nowhere")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_that_is_not_named_so_stays(killed, tmp_path):
    named = killed.rename(tmp_path / "mine")
    clear_abandoned(tmp_path)
    assert (named / OWNER).exists()


def test_links_in_what_was_left_are_not_followed(killed, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("x")
    (killed / "deep/link").symlink_to(mine)
    (killed / "link").symlink_to(mine)
    clear_abandoned(tmp_path)
    assert list(tmp_path.rglob("*")) == [mine, mine / "file"]


@pytest.mark.parametrize("is_link", [True, False])
def test_what_somebody_else_put_in_its_place_stays(tmp_path, is_link):
    """Who may write beside it can rename it."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("x")
    with workshop(tmp_path / "it") as place:
        (place / "half").write_text("x")
        place.rename(tmp_path / "moved")
        if is_link:
            place.symlink_to(mine)
        else:
            mine.rename(place)
    assert (place / "file").exists()
    assert list((tmp_path / "moved").iterdir()) == []


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with whole_file(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"
    with pytest.raises(TypeError), whole_file(path.with_name("other")) as file:
        file.write("no bytes")
    assert path.read_bytes() == b"all"
    assert list(tmp_path.iterdir()) == [path]


def _write(path, data):
    with whole_file(path) as file:
        file.write(data)


@pytest.mark.parametrize("links", [True, False])
def test_of_two_at_once_one_gets_the_name(tmp_path, monkeypatch, links):
    def refuse(path, target):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "file"
    with pytest.raises(FileExistsError), whole_file(path):
        _write(path, b"first")
    assert path.read_bytes() == b"first"
    assert (list(tmp_path.iterdir()), path.stat().st_nlink) == ([path], 1)


def test_a_link_whose_answer_was_lost_is_one(tmp_path, monkeypatch):
    link = Path.hardlink_to

    def lose(path, target):
        link(path, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(Path, "hardlink_to", lose)
    with whole_file(tmp_path / "file") as file:
        file.write(b"all")
    assert (tmp_path / "file").read_bytes() == b"all"


def test_the_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with whole_file(tmp_path / "file"):
            pass
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
