"""`valska lock` as it is typed: what it prints, what it writes, how it leaves."""

import json

import pytest
from simpleindex import add_wheel

DIGEST = f"sha256:{'a' * 64}"
TEXT = f"""\
Bootstrap: docker
From: 127.0.0.1:9/python@{DIGEST}
%files
    tool.lock /opt/tool.lock
%post
    pip install --require-hashes -r /opt/tool.lock
%labels
    org.opencontainers.image.base.name 127.0.0.1:9/python:3.11
    org.opencontainers.image.base.digest {DIGEST}
"""
OPTIONS = ("--python", "3.11", "--platform", "linux/amd64")


@pytest.fixture
def index(tmp_path, monkeypatch):
    index = tmp_path / "index"
    add_wheel(index, "tiny", "1.0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.as_uri())
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    return index


@pytest.fixture
def tool(user, index):
    user.write("tool.in", "tiny\n")
    return user.write("tool.def", TEXT)


def test_locking_and_checking(user, tool):
    lock = tool.with_suffix(".lock")
    checked = user.run("lock", "tool.def", "--check", *OPTIONS)
    assert (checked.exit_code, lock.exists()) == (5, False)
    assert "tool.lock: tiny 1.0" in checked.stdout
    assert "Hint: Bring it up to date: valska lock tool.def" in checked.stderr
    dry = user.ok("lock", "tool.def", "--dry-run", *OPTIONS)
    assert (dry.stdout, lock.exists()) == (checked.stdout, False)
    assert "Nothing was written." in dry.stderr
    done = user.ok("lock", "tool.def", *OPTIONS)
    assert done.stdout == checked.stdout
    assert "Written: tool.lock" in done.stderr
    again = user.ok("lock", "tool.def", "--check")
    assert (again.stdout, again.stderr) == ("", "tool.lock is current.\n")


def test_what_was_changed_is_named(user, tool, index):
    user.ok("lock", "tool.def", *OPTIONS)
    add_wheel(index, "tiny", "1.1")
    add_wheel(index, "more", "3")
    assert user.run("lock", "tool.def", "--check").exit_code == 0
    checked = user.run("lock", "tool.def", "--check", "--upgrade-package", "tiny")
    assert (checked.exit_code, checked.stdout) == (5, "tool.lock: tiny 1.0 -> 1.1\n")
    user.write("tool.in", "tiny\nmore\n")
    checked = user.run("lock", "tool.def", "--check", "--json")
    changes = json.loads(checked.stdout)["changes"]
    assert checked.exit_code == 5
    assert [change["what"] for change in changes] == ["requirements", "more"]
    assert changes[1] == {"file": "tool.lock", "what": "more", "old": None, "new": "3"}


def test_a_lock_of_nothing_is_told(user, tool):
    assert "asks for no package" not in user.ok("lock", "tool.def", *OPTIONS).stderr
    user.write("tool.in", "# nothing yet\n")
    done = user.ok("lock", "tool.def")
    assert "Note: tool.in asks for no package." in done.stderr
    assert "tool.lock: tiny 1.0 -> removed" in done.stdout


def test_json(user, tool):
    done = json.loads(user.ok("lock", "tool.def", "--json", *OPTIONS).stdout)
    assert (done["current"], done["written"]) == (False, ["tool.lock"])
    assert (done["base_digest"], done["python"]) == (DIGEST, "3.11")
    assert json.loads(user.ok("lock", "tool.def", "--json").stdout)["current"] is True


@pytest.mark.parametrize(
    ("arguments", "text", "requirements", "code", "told"),
    [
        (["none.def"], TEXT, "tiny\n", 2, "no such definition: none.def"),
        (["tool.def"], "hello\n", "tiny\n", 2, "no Bootstrap"),
        (["tool.def"], TEXT, None, 2, "tool.in, which tool.lock is made from, is not there"),
        (["tool.def", *OPTIONS], TEXT, "absent\n", 2, "tool.in cannot be resolved"),
        (
            ["tool.def", *OPTIONS],
            TEXT.replace(f"@{DIGEST}\n%f", ":1\n%f"),
            "tiny\n",
            3,
            "127.0.0.1",
        ),
        (["tool.def", "--upgrade"], TEXT, "tiny\n", 3, "127.0.0.1:9"),
        (["tool.def", "--python", "x"], TEXT, "tiny\n", 2, "no version of Python"),
    ],
)
def test_bad_input_is_one_error_and_writes_nothing(
    user, index, arguments, text, requirements, code, told
):
    definition = user.write("tool.def", text)
    if requirements:
        user.write("tool.in", requirements)
    done = user.run("lock", *arguments)
    assert done.exit_code == code
    assert told in done.stderr
    assert done.stderr.count("Error:") == 1
    assert definition.read_text() == text
    assert not definition.with_suffix(".lock").exists()
