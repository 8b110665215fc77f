"""The listing of an image's files."""

import gzip
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images import listing
from valska.external_tools.core.images.listing import Entry, Listing, list_tree
from valska.external_tools.core.utils import sha256_bytes

NAME = st.binary(min_size=1, max_size=12).filter(lambda b: not set(b) & set(b"/\0") and b != b".")
PATH = st.lists(NAME, min_size=1, max_size=3).map(b"/".join)
DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
MODE = st.integers(0, 0o7777)
ENTRY = st.one_of(
    st.builds(Entry, PATH, st.just("f"), MODE, st.integers(0, 1 << 50), DIGEST),
    st.builds(Entry, PATH, st.just("l"), MODE, st.just(0), NAME),
    st.builds(Entry, PATH, st.just("c"), MODE, st.just(0), st.just("1,3")),
    st.builds(Entry, PATH, st.just("d"), MODE, st.just(0), st.just("-")),
)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    (root / "usr" / "bin" / "tool").chmod(0o755)
    (root / "usr-local").write_bytes(b"")
    (root / "usr-local").chmod(0o644)
    (root / "bin").symlink_to("usr/bin")
    for directory in (root, root / "usr", root / "usr" / "bin"):
        directory.chmod(0o755)
    return root


def test_the_text_is_as_documented(root):
    tool = sha256_bytes(b"#!/bin/sh\n")
    empty = sha256_bytes(b"")
    assert list_tree(root).text.decode() == (
        "valska-files 1\n"
        "d\t0755\t0\t-\t.\n"
        "l\t0777\t0\tusr/bin\tbin\n"
        "d\t0755\t0\t-\tusr\n"
        f"f\t0644\t0\t{empty}\tusr-local\n"
        "d\t0755\t0\t-\tusr/bin\n"
        f"f\t0755\t10\t{tool}\tusr/bin/tool\n"
    )


def test_the_digest_is_of_the_text_and_of_nothing_else(root):
    first = list_tree(root)
    assert first.sha256 == sha256_bytes(first.text)
    os.utime(root / "usr-local", (1, 1))
    assert list_tree(root).sha256 == first.sha256


@pytest.mark.parametrize("change", ["content", "mode", "link", "name", "directory"])
def test_every_change_changes_the_digest(root, change):
    first = list_tree(root).sha256
    if change == "content":
        (root / "usr" / "bin" / "tool").write_bytes(b"#!/bin/s!\n")
    elif change == "mode":
        (root / "usr-local").chmod(0o600)
    elif change == "link":
        (root / "bin").unlink()
        (root / "bin").symlink_to("usr/sbin")
    elif change == "name":
        (root / "usr-local").rename(root / "usr-lokal")
    else:
        (root / "empty").mkdir()
    assert list_tree(root).sha256 != first


def test_a_file_larger_than_one_read_is_hashed_whole(tmp_path):
    content = os.urandom(1000) * 3000
    (tmp_path / "large").write_bytes(content)
    assert list_tree(tmp_path).by_path()[b"large"].detail == sha256_bytes(content)


def test_links_are_told_and_never_followed(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "out").symlink_to("/etc/passwd")
    found = list_tree(tmp_path).by_path()
    assert (found[b"loop"].kind, found[b"loop"].detail) == ("l", b"loop")
    assert (found[b"out"].kind, found[b"out"].detail) == ("l", b"/etc/passwd")


def test_pipes_and_sockets_are_told_and_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        found = list_tree(tmp_path).by_path()
    assert found[b"pipe"].kind == "p"
    assert found[b"socket"].kind == "s"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_told_by_its_numbers(tmp_path):
    try:
        os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this root may not make devices")
    entry = list_tree(tmp_path).by_path()[b"null"]
    assert (entry.kind, entry.detail) == ("c", "1,3")


def test_odd_names_come_back_from_the_file(tmp_path):
    names = [b"new\nline", b"tab\t", b"\xff\xfe", b"100%", b"%0A", "ü".encode(), b" ", b"a\\b"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    listing = list_tree(tmp_path)
    assert {entry.path for entry in listing.entries} == {b".", *names}
    assert Listing.from_bytes(listing.to_bytes()) == listing
    assert listing.text.isascii()
    assert listing.text.count(b"\n") == len(names) + 2


@given(st.lists(ENTRY, max_size=8))
def test_any_listing_survives_its_file(entries):
    listing = Listing(tuple(entries))
    again = Listing.from_bytes(listing.to_bytes())
    assert again == listing
    assert again.sha256 == listing.sha256


def test_the_file_has_no_time_and_no_name_in_it(root):
    data = list_tree(root).to_bytes()
    assert data == list_tree(root).to_bytes()
    assert data[3:8] == bytes(5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not compressed",
        gzip.compress(b"something else\n", mtime=0),
        gzip.compress(b"valska-files 1\nf\t0644", mtime=0),
        gzip.compress(b"valska-files 1\nx\t0644\t0\t-\ta\n", mtime=0),
        gzip.compress(b"valska-files 1\nd\tmode\t0\t-\ta\n", mtime=0),
        gzip.compress(b"valska-files 1\n" * 9, mtime=0)[:-3],
        gzip.compress("valska-files 1\nd\t0755\t0\t-\tü\n".encode(), mtime=0),
    ],
)
def test_what_is_no_listing_is_refused(data):
    with pytest.raises(ValskaError, match=r"x\.gz is not a list of an image's files"):
        Listing.from_bytes(data, "x.gz")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(PrerequisiteError, match=r"cannot read .*/nowhere: No such file"):
        list_tree(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(root):
    (root / "usr-local").chmod(0)
    with pytest.raises(PrerequisiteError, match="usr-local: Permission denied"):
        list_tree(root)


def test_a_listing_that_would_fill_the_memory_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(listing, "_MOST_BYTES", 1000)
    with pytest.raises(ValskaError, match="it is too long"):
        Listing.from_bytes(gzip.compress(b"valska-files 1\n" + b"\n" * 1000))
