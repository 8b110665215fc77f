"""FITS files: headers and arrays count, history and the date of writing do not."""

import sys

import numpy as np
import pytest

from valska.external_tools.core.comparison.formats import compare_file
from valska.external_tools.core.comparison.verdict import OutputFile, Tolerances, Verdict
from valska.external_tools.core.utils import sha256_file


def output(path):
    return OutputFile("vis.uvfits", path.stat().st_size, sha256_file(path), path)


@pytest.fixture
def make(tmp_path):
    """Write a file of random groups, as UVFITS has them, and a table."""
    fits = pytest.importorskip("astropy.io.fits")

    def write(
        name, *, data=1.0, history="made", telescope="MWA", frequency=1e8, position=0.0, twice="a"
    ):
        visibilities = np.full((4, 1, 1, 1, 2, 1, 3), data, np.float32)
        parameters = [np.arange(4.0), np.arange(4.0), np.zeros(4)]
        groups = fits.GroupData(
            visibilities, parnames=["UU", "DATE", "DATE"], pardata=parameters, bitpix=-32
        )
        first = fits.GroupsHDU(groups)
        first.header["TELESCOP"] = telescope
        first.header["CRVAL4"] = frequency
        first.header["HISTORY"] = history
        first.header.extend([("TWICE", twice), ("TWICE", "the last")])
        first.header["DATE"] = f"2026-01-0{len(history) % 9 + 1}"
        column = fits.Column("STABXYZ", "3D", array=np.full((2, 3), position))
        table = fits.BinTableHDU.from_columns([column], name="AIPS AN")
        path = tmp_path / f"{name}.uvfits"
        fits.HDUList([first, table]).writeto(path)
        return output(path)

    return write


def parts_of(found):
    return {part.name: part for part in found.parts}


def test_another_history_does_not_count(make):
    found = compare_file(make("a"), make("b", history="made otherwise"), Tolerances())
    assert (found.verdict, found.method) == (Verdict.EQUIVALENT, "FITS")
    differ = [part for part in found.parts if part.verdict is not Verdict.IDENTICAL]
    assert [part.detail for part in differ] == [
        "HISTORY: none and otherwise; DATE: 2026-01-05 and 2026-01-06"
    ]


@pytest.mark.parametrize(
    ("change", "name", "index"),
    [
        ({"data": 1.5}, "PRIMARY DATA", (0,) * 7),
        ({"position": 0.1}, "AIPS AN STABXYZ", (0, 0)),
        ({"frequency": 1.1e8}, "PRIMARY header", ("CRVAL4",)),
    ],
)
def test_a_number_that_differs_is_found_with_its_place(make, change, name, index):
    found = compare_file(make("a"), make("b", **change), Tolerances())
    assert found.verdict is Verdict.DIFFERENT
    bad = [part for part in found.parts if part.verdict is Verdict.DIFFERENT]
    assert [part.name for part in bad] == [name]
    assert bad[0].absolute.index == index


def test_a_word_of_the_header_counts_and_tolerances_hold(make):
    one = make("a")
    assert compare_file(one, make("b", telescope="HERA"), Tolerances()).verdict is (
        Verdict.DIFFERENT
    )
    near = make("c", data=1.0001)
    assert compare_file(one, near, Tolerances(1e-3)).verdict is Verdict.EQUIVALENT


def test_a_card_that_stands_twice_hides_nothing(make):
    found = compare_file(make("a"), make("b", twice="b"), Tolerances())
    assert found.verdict is Verdict.DIFFERENT
    assert "'a' and 'b' at [TWICE]" in parts_of(found)["PRIMARY header"].detail


def test_what_is_no_fits_is_compared_by_its_bytes(make, tmp_path):
    (tmp_path / "bad").write_bytes(b"SIMPLE  =\n")
    found = compare_file(make("a"), output(tmp_path / "bad"), Tolerances())
    assert (found.verdict, found.method) == (Verdict.DIFFERENT, "bytes")


def test_without_astropy_it_is_not_said_that_files_differ(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    for name in ("astropy", "astropy.io", "astropy.io.fits"):
        monkeypatch.setitem(sys.modules, name, None)
    found = compare_file(output(tmp_path / "a"), output(tmp_path / "b"), Tolerances())
    assert found.verdict is Verdict.INCOMPLETE
    assert "pip install astropy" in found.notes[0]
