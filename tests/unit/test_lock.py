import errno
import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.identity import identify, process_start, read_identity
from valska.external_tools.core.lock import LockedError, directory_lock, read_owner


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / ".submit.lock"


def test_a_lock_names_its_owner_and_is_gone_after(lock: Path) -> None:
    with directory_lock(lock):
        assert read_owner(lock) == identify()
    assert not lock.exists()


def test_a_lock_is_gone_after_an_error(lock: Path) -> None:
    with pytest.raises(KeyboardInterrupt), directory_lock(lock):
        raise KeyboardInterrupt
    assert not lock.exists()


def test_a_live_owner_is_named(lock: Path) -> None:
    with (
        directory_lock(lock),
        pytest.raises(LockedError, match=f"process {os.getpid()} on ") as caught,
        directory_lock(lock),
    ):
        pass
    assert caught.value.exit_code == 4


def test_an_owner_on_another_host_is_respected_and_the_hint_says_what_to_remove(lock: Path) -> None:
    elsewhere = replace(identify(), host="elsewhere")
    with (
        directory_lock(lock, me=elsewhere),
        pytest.raises(LockedError, match="on elsewhere") as caught,
        directory_lock(lock),
    ):
        pass
    assert str(lock) in (caught.value.hint or "")


def test_the_lock_of_a_killed_process_is_taken_over(
    lock: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from valska.external_tools.core.lock import directory_lock\n"
        "with directory_lock(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(lock)], check=False)
    assert killed.returncode == -9
    assert lock.exists()
    with caplog.at_level(logging.WARNING), directory_lock(lock):
        assert read_owner(lock) == identify()
    assert "taking over" in caplog.text


def test_a_reused_process_number_does_not_keep_a_lock(lock: Path) -> None:
    earlier = replace(identify(), start=(process_start(os.getpid()) or 0) - 1)
    lock.mkdir()
    (lock / "owner.json").write_text(json.dumps(earlier.as_json()))
    with directory_lock(lock):
        assert read_owner(lock) == identify()


def test_a_lock_from_before_a_reboot_is_taken_over(lock: Path) -> None:
    lock.mkdir()
    (lock / "owner.json").write_text(json.dumps(replace(identify(), boot="another").as_json()))
    with directory_lock(lock):
        assert read_owner(lock) == identify()


def test_a_lock_without_an_owner_counts_for_a_few_seconds_only(lock: Path) -> None:
    lock.mkdir()
    now = lock.stat().st_mtime
    with pytest.raises(LockedError), directory_lock(lock, clock=lambda: now + 1):
        pass
    with directory_lock(lock, clock=lambda: now + 60):
        assert read_owner(lock) == identify()


def test_of_many_that_find_a_stale_lock_one_gets_it_at_a_time(lock: Path) -> None:
    lock.mkdir()
    (lock / "owner.json").write_text(json.dumps(replace(identify(), boot="another").as_json()))
    inside, most, refused, done = 0, 0, 0, threading.Barrier(8)
    guard = threading.Lock()

    def contend() -> None:
        nonlocal inside, most, refused
        done.wait()
        try:
            with directory_lock(lock):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1
        except LockedError:
            refused += 1

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused < 8
    assert not lock.exists()


def test_a_process_is_known_by_its_start() -> None:
    me = identify()
    assert me.alive() is True
    assert replace(me, start=1).alive() is False
    assert replace(me, host="elsewhere").alive() is None
    assert read_identity(me.as_json()) == me


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    who = identify(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert who.alive() is False
    child.wait()


@pytest.mark.parametrize(
    "data", [{}, {"host": "h"}, {"host": 1, "pid": 2}, {"host": "h", "pid": "2"}]
)
def test_what_is_no_identity_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="identity"):
        read_identity(data)


def test_a_full_disk_is_told_with_what_to_do_and_leaves_no_lock(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ValskaError, match="No space left") as caught, directory_lock(lock):
        pass
    assert "free space" in (caught.value.hint or "")
    assert not lock.exists()
