"""Time stamps, JSON files that are whole after any crash, digests."""

import json
import os
import re
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.utils import (
    load_json,
    sha256_bytes,
    sha256_file,
    utc_now_compact,
    utc_now_iso,
    write_atomic,
    write_json_atomic,
)


def test_time_stamps():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", utc_now_iso())
    assert re.fullmatch(r"\d{8}T\d{6}Z", utc_now_compact())


def test_json_comes_back_in_order(tmp_path):
    data = {"z": 1, "a": [None, True, 1.5, "é\u2028\x01"], "m": {}}
    write_json_atomic(tmp_path / "f.json", data)
    assert list(load_json(tmp_path / "f.json").items()) == list(data.items())
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


def test_indent(tmp_path):
    write_json_atomic(tmp_path / "f", {"a": 1}, indent=4)
    assert (tmp_path / "f").read_text() == '{\n    "a": 1\n}\n'


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.none(),
    )
)
def test_any_text_comes_back(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("json") / "f"
    write_json_atomic(path, data)
    assert load_json(path) == data


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("exists", [True, False])
def test_mode_follows_the_umask(tmp_path, mask, exists):
    path = tmp_path / "f"
    if exists:
        path.touch(0o600)
    old = os.umask(mask)
    try:
        write_json_atomic(path, {})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, 1j, "\udcff", b"x"], ids=repr)
def test_what_is_not_json_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "f"
    write_json_atomic(path, {"old": 1})
    with pytest.raises(ValskaError, match="cannot write"):
        write_json_atomic(path, {"x": value})
    assert load_json(path) == {"old": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["f"]


def test_place_that_is_a_directory_or_missing(tmp_path):
    (tmp_path / "d").mkdir()
    for path in (tmp_path / "d", tmp_path / "gone" / "f", tmp_path / ("x" * 300)):
        with pytest.raises(ValskaError, match="cannot write") as caught:
            write_json_atomic(path, {})
        assert caught.value.hint
    assert [one.name for one in tmp_path.iterdir()] == ["d"]


def test_error_while_writing_leaves_nothing(tmp_path):
    write_atomic(tmp_path / "f", b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from valska.external_tools.core.utils import write_atomic\n"
        "from valska.external_tools.core.errors import ValskaError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomic(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except ValskaError as error: print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "f"], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["f"]


KILLED = """
import os, signal, sys
from pathlib import Path
from valska.external_tools.core import utils
path = Path(sys.argv[1])
calls = 0

def trace(frame, event, argument):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return trace

last = 0
while True:
    last += 1
    pid = os.fork()
    if pid == 0:
        sys.settrace(trace)
        utils.write_json_atomic(path, {"new": "x" * 100})
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    print(path.read_text().replace("\\n", ""), flush=True)
    if status == 0:
        break
    path.write_text('{"old": 1}')
"""


def test_kill_at_any_line_leaves_the_old_or_the_new_file_whole(tmp_path):
    path = tmp_path / "f.json"
    path.write_text('{"old": 1}')
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=True
    )
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) > 50
    assert all(data in ({"old": 1}, {"new": "x" * 100}) for data in seen)
    assert {"old": 1} in seen[:-1]
    assert {"new": "x" * 100} in seen[:-1]


@pytest.mark.parametrize(
    ("data", "match"),
    [(b"", "not JSON"), (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[1]", "JSON object")],
)
def test_what_cannot_be_loaded(tmp_path, data, match):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(ValskaError, match=match) as caught:
        load_json(tmp_path / "f")
    assert str(tmp_path / "f") in caught.value.message


def test_loading_what_is_missing_or_a_directory(tmp_path):
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(ValskaError, match="cannot read"):
            load_json(path)


def test_digests(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "f") == known
