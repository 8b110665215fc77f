"""Where a run lies: names, places, and what is a bundle."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import bundle

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.run_directory import (
    RunDirectoryError,
    build_run_dir,
    check_name,
    check_place,
    ensure_run_dir,
    open_bundle,
    run_inside,
    validate_run_dir,
)


def test_path_of_a_run(tmp_path):
    taxonomy = {"beam": "airy", "sky": "gleam-v2"}
    path = build_run_dir(tmp_path, "toy", taxonomy, "r1")
    assert path == tmp_path / "toy" / "airy" / "gleam-v2" / "r1"
    assert not (tmp_path / "toy").exists()


def test_unique_path_ends_in_the_time(tmp_path):
    path = build_run_dir(tmp_path, "toy", {}, "r1", unique=True)
    assert path.parent == tmp_path / "toy" / "r1"
    assert re.fullmatch(r"\d{8}T\d{6}Z", path.name)


@pytest.mark.parametrize("part", ["tool", "level", "run id"])
@pytest.mark.parametrize(
    "value", ["", "..", ".", "a/b", "a\n", "\n", "a\0b", "é", "-a", "a b", "~"]
)
def test_parts_that_are_no_names(tmp_path, part, value):
    parts = {"tool": "toy", "level": "x", "run id": "r1"} | {part: value}
    with pytest.raises(UsageError, match=part) as caught:
        build_run_dir(tmp_path, parts["tool"], {"my": parts["level"]}, parts["run id"])
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message


@given(st.text(max_size=20))
def test_a_name_is_one_plain_component_or_refused(value):
    try:
        assert check_name(value, "name") == value
    except UsageError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._+=-]+", value)
    assert value[0] not in ".-"


@given(st.text("ab./\n", max_size=8))
def test_a_place_stays_below_or_is_refused(tmp_path_factory, value):
    try:
        assert check_place(value) == value
    except UsageError:
        return
    root = tmp_path_factory.getbasetemp().resolve()
    assert (root / value).resolve() == root / value
    assert (root / value).is_relative_to(root)
    assert root / value != root


@pytest.mark.parametrize("place", ["a\0", "a\x7f", "a\udcff", "/a", "//", "a//b", "a/"])
def test_places_refused(place):
    with pytest.raises(UsageError):
        check_place(place)


def test_a_bundle_is_one(tmp_path, monkeypatch):
    made = bundle(tmp_path)
    validate_run_dir(made.path)
    monkeypatch.chdir(tmp_path)
    assert open_bundle(type(tmp_path)("bundle")).path == made.path


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(RunDirectoryError, match="no such bundle") as caught:
        validate_run_dir(tmp_path / "gone")
    assert (caught.value.exit_code, bool(caught.value.hint)) == (3, True)
    with pytest.raises(RunDirectoryError, match=r"manifest\.json and SHA256SUMS missing"):
        validate_run_dir(tmp_path)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(RunDirectoryError, match="not a bundle: SHA256SUMS missing"):
        open_bundle(tmp_path)
    with pytest.raises(RunDirectoryError, match="no such bundle"):
        validate_run_dir(tmp_path / "manifest.json")
    assert issubclass(RunDirectoryError, ValskaError)


@pytest.mark.parametrize("place", ["data/bundle", "bundle", "sweep"])
def test_the_bundle_in_a_directory_is_named(tmp_path, place):
    inside = tmp_path / place
    inside.mkdir(parents=True)
    assert run_inside(tmp_path) is None
    inside.rmdir()
    made = tmp_path / "made"
    made.mkdir()
    bundle(made).path.rename(inside)
    assert run_inside(tmp_path) == inside
    assert run_inside(inside) is None
    with pytest.raises(RunDirectoryError, match="not a bundle") as caught:
        open_bundle(tmp_path)
    assert str(inside) in caught.value.hint


def test_ensure(tmp_path):
    path = tmp_path / "a" / "b"
    ensure_run_dir(path)
    ensure_run_dir(path, exist_ok=True)
    with pytest.raises(RunDirectoryError, match="exists already"):
        ensure_run_dir(path)


def test_ensure_below_a_file(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(RunDirectoryError, match="Not a directory"):
        ensure_run_dir(tmp_path / "f" / "g")
    with pytest.raises(RunDirectoryError):
        ensure_run_dir(tmp_path / "f", exist_ok=True)
