"""Staging: copies, links and references, and what is written down of each."""

import tempfile
from pathlib import Path

import pytest

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.staging import StagingMode, stage_input
from valska.external_tools.core.tool import Input
from valska.external_tools.core.utils import sha256_bytes


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "Source File.DAT"
    path.write_bytes(b"data\n")
    return path


@pytest.fixture
def inputs(tmp_path):
    path = tmp_path / "bundle" / "inputs"
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("mode", StagingMode)
def test_entry_says_what_was_staged(source, inputs, mode):
    entry = stage_input(Input("the.data", source, "sub/data.dat"), inputs, mode)
    assert (entry.name, entry.path, entry.mode) == ("the.data", "inputs/sub/data.dat", mode.value)
    assert (entry.sha256, entry.size) == (sha256_bytes(b"data\n"), 5)
    assert entry.source == str(source)


def test_copy_is_independent_of_the_source(source, inputs):
    stage_input(Input("a", source, "a"), inputs, StagingMode.COPY)
    source.write_bytes(b"other")
    assert (inputs / "a").read_bytes() == b"data\n"


def test_link_shares_or_copies_the_content(source, inputs):
    stage_input(Input("a", source, "a"), inputs, StagingMode.LINK)
    assert (inputs / "a").read_bytes() == b"data\n"
    assert not (inputs / "a").is_symlink()


def test_link_to_a_link_is_a_file(source, inputs, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(source)
    stage_input(Input("a", link, "a"), inputs, StagingMode.LINK)
    assert (inputs / "a").is_file()
    assert not (inputs / "a").is_symlink()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system")
def test_link_across_file_systems_copies(source, tmp_path, caplog):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        stage_input(Input("a", source, "a"), Path(folder), StagingMode.LINK)
        assert (Path(folder) / "a").read_bytes() == b"data\n"
        assert (Path(folder) / "a").stat().st_nlink == 1
    assert "it is copied" in caplog.text


def test_reference_is_an_empty_placeholder_and_the_real_path(source, inputs, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(source)
    entry = stage_input(Input("a", link, "a"), inputs, StagingMode.REFERENCE)
    assert (inputs / "a").stat().st_size == 0
    assert entry.source == str(source)
    assert entry.size == 5


@pytest.mark.parametrize(("limit", "mode"), [(5, "copy"), (4, "reference")])
def test_size_decides_where_the_user_does_not(source, inputs, limit, mode):
    assert stage_input(Input("a", source, "a"), inputs, copy_limit=limit).mode == mode


def test_empty_input(source, inputs):
    source.write_bytes(b"")
    assert stage_input(Input("a", source, "a"), inputs).sha256 == sha256_bytes(b"")


def test_missing_input_names_it(tmp_path, inputs):
    with pytest.raises(UsageError, match=r"the\.data.*gone"):
        stage_input(Input("the.data", tmp_path / "gone", "a"), inputs)
    assert list(inputs.iterdir()) == []


def test_taken_place_is_refused(source, inputs):
    (inputs / "a").write_text("mine")
    with pytest.raises(ValskaError, match="File exists"):
        stage_input(Input("a", source, "a"), inputs, StagingMode.COPY)
    assert (inputs / "a").read_text() == "mine"


@pytest.mark.parametrize("target", ["../a", "/a", "", "a/../../b", "."])
def test_place_outside_is_refused(source, inputs, target):
    with pytest.raises(UsageError, match="leads out"):
        stage_input(Input("a", source, target), inputs)
    assert list(inputs.parent.rglob("*")) == [inputs]


def test_what_is_the_tools_own_is_always_copied(source, inputs):
    entry = stage_input(Input("a", source, "a", own=True), inputs, StagingMode.REFERENCE, 0)
    assert entry.mode == "copy"
    assert (inputs / "a").read_bytes() == b"data\n"
