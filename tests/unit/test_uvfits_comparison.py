"""Two UVFITS files: visibilities, flags, weights and axes each by themselves."""

import numpy as np
import pytest

from valska.external_tools.core.comparison.verdict import (
    OutputFile,
    RunFiles,
    Tolerances,
    Verdict,
)
from valska.external_tools.core.utils import sha256_file
from valska.external_tools.pyuvsim import TOOL

DAY = 2457458.0
SECOND = 1 / 86400


@pytest.fixture
def compared(tmp_path):
    """Write two files of random groups, of which one is changed; return what was found."""
    fits = pytest.importorskip("astropy.io.fits")

    def write(name, change):
        parts = np.ones((4, 1, 1, 1, 2, 1, 3), np.float32)
        columns = {
            "UU": np.arange(4.0), "VV": np.arange(4.0), "WW": np.zeros(4),
            "BASELINE": np.arange(4.0) + 257, "DATE": np.full(4, DAY), "_DATE": np.arange(4) / 10,
        }  # fmt: skip
        cards = {"TELESCOP": "MWA", "CRVAL4": 1e8, "HISTORY": "made"}
        change(parts, columns, cards)
        names = [one.lstrip("_") for one in columns]
        data = fits.GroupData(parts, parnames=names, pardata=[*columns.values()], bitpix=-64)
        first = fits.GroupsHDU(data)
        first.header.update(cards)
        path = tmp_path / f"{name}.uvfits"
        fits.HDUList([first]).writeto(path, overwrite=True)
        return OutputFile("vis.uvfits", path.stat().st_size, sha256_file(path), path)

    def run(change, base=lambda *_: None, **tolerances):
        files = write("one", base), write("other", change)
        runs = [RunFiles(tmp_path, {}, {"vis.uvfits": one}) for one in files]
        (found,) = TOOL.compare(*runs, Tolerances(**tolerances))
        assert found.method == "UVFITS"
        return found, {part.name: part for part in found.parts}

    return run


def put(index, value):
    def change(parts, columns, cards):
        parts[index] = value

    return change


def shift(column, amount):
    def change(parts, columns, cards):
        columns[column] = columns[column] + amount

    return change


def say(**more):
    def change(parts, columns, cards):
        cards.update(more)

    return change


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (put((1, 0, 0, 0, 1, 0, 1), 1.5), {"data"}),
        (put((1, 0, 0, 0, 1, 0, 2), -1), {"flags"}),
        (put((1, 0, 0, 0, 1, 0, 2), 0), {"flags", "nsamples"}),
        (put((1, 0, 0, 0, 1, 0, 2), 2), {"nsamples"}),
        (shift("UU", 1e-9), {"baselines (u)"}),
        (shift("BASELINE", 1), {"baselines"}),
        (shift("DATE", SECOND), {"times"}),
        (shift("_DATE", SECOND), {"times (rest)"}),
        (say(CRVAL4=1e8 + 0.01), {"header"}),
        (say(TELESCOP="HERA"), {"header"}),
    ],
)
def test_each_part_is_named_when_it_differs(compared, change, name):
    found, parts = compared(change)
    assert found.verdict is Verdict.DIFFERENT
    assert {one for one, part in parts.items() if part.verdict is Verdict.DIFFERENT} == name


def test_the_place_of_a_visibility_is_told(compared):
    _, parts = compared(put((1, 0, 0, 0, 1, 0, 1), 1.5))
    assert parts["data"].absolute.index == (1, 0, 0, 0, 1, 0)
    assert parts["data"].absolute.value == 0.5


def test_the_history_is_explained_and_not_counted(compared):
    found, parts = compared(say(HISTORY="made otherwise"))
    assert found.verdict is Verdict.EQUIVALENT
    differ = [part for part in parts.values() if part.verdict is not Verdict.IDENTICAL]
    assert [(part.counted, "otherwise" in part.detail) for part in differ] == [(False, True)]


def test_a_relative_tolerance_holds_for_visibilities_and_not_for_times(compared):
    change = put((1, 0, 0, 0, 1, 0, 1), 1.0001)
    assert compared(change)[0].verdict is Verdict.DIFFERENT
    assert compared(change, rtol=1e-3)[0].verdict is Verdict.EQUIVALENT
    assert compared(shift("DATE", SECOND), rtol=1e-3)[0].verdict is Verdict.DIFFERENT
    assert compared(shift("DATE", SECOND), atol=1e-3)[0].verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize("imaginary", [np.nan, np.inf])
def test_an_imaginary_part_that_is_no_number_does_not_hide_the_real_one(compared, imaginary):
    def change(real):
        def both(parts, columns, cards):
            parts[..., 1] = imaginary
            parts[0, ..., 0] = real

        return both

    found, parts = compared(change(5.0), base=change(1.0))
    assert found.verdict is Verdict.DIFFERENT
    assert parts["data"].differing == 2
