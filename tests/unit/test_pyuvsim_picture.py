"""Pictures of simulated visibilities, drawn from small UVH5 files with known content."""

import builtins
import sys

import h5py
import numpy as np
import pytest
from uvh5 import CHANNELS, TIMES, png_chunks, write_uvh5

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.tool import Plots
from valska.external_tools.pyuvsim import TOOL
from valska.external_tools.pyuvsim.picture import Baseline, choose, draw, edges, read_visibilities

SECTION = {"output": "small.uvh5", "output_format": "uvh5"}


def test_the_tool_says_that_it_can_draw():
    assert isinstance(TOOL, Plots)


@pytest.mark.parametrize("compound", [False, True])
def test_what_is_drawn_is_what_the_file_holds(tmp_path, compound):
    write_uvh5(tmp_path / "small.uvh5", compound=compound)
    found = read_visibilities(tmp_path / "small.uvh5")
    assert [fall.baseline.antennas for fall in found.waterfalls] == [(0, 1), (0, 2), (1, 2)]
    assert [str(fall.baseline) for fall in found.waterfalls] == [
        "antennas 0 and 1: 14.6 m E, 0.0 m N",
        "antennas 0 and 2: 0.0 m E, 25.3 m S",
        "antennas 1 and 2: 14.6 m W, 25.3 m S",
    ]
    assert (found.unit, found.product, found.minutes) == ("Jy", "XX", 60.0)
    np.testing.assert_allclose(found.mhz, [99.5, 100.5, 101.5, 102.5, 103.5])
    for fall, amplitude in zip(found.waterfalls, [2, 3, 3], strict=True):
        assert fall.data.shape == (TIMES, CHANNELS)
        np.testing.assert_array_equal(fall.data, amplitude * 1j)
        np.testing.assert_allclose(np.diff(fall.jd), 1 / 24, rtol=1e-6)


def test_the_shortest_baselines_that_differ_are_drawn():
    def along(one, two, east, north=0.0):
        return Baseline((one, two), east, north)

    redundant = [along(0, 1, 14.6), along(1, 2, 14.61), along(3, 2, -14.6), along(0, 2, 29.2)]
    north = along(4, 5, 0.0, 14.6)
    assert choose([*redundant, north], 3) == [redundant[0], north, redundant[3]]
    assert choose([along(0, 0, 0.0), redundant[3]], 3) == [redundant[3]]
    assert choose([along(0, 0, 0.0)], 3) == [along(0, 0, 0.0)]


def test_one_bin_has_two_edges():
    np.testing.assert_array_equal(edges(np.array([7.0]), 2.0), [6.0, 8.0])


def test_a_picture_is_a_png_without_a_time_and_the_same_each_time(tmp_path):
    write_uvh5(tmp_path / "small.uvh5")
    picture = draw(tmp_path, SECTION, "run")
    assert not {"tIME", "tEXt", "iTXt", "zTXt"} & set(png_chunks(picture))
    assert picture == draw(tmp_path, SECTION, "run")
    assert picture != draw(tmp_path, SECTION, "another run")


def test_flagged_data_are_left_blank(tmp_path):
    write_uvh5(tmp_path / "small.uvh5", flagged=True)
    assert np.isnan(read_visibilities(tmp_path / "small.uvh5").waterfalls[0].data).all()
    assert png_chunks(draw(tmp_path, SECTION, "run"))[-1] == "IEND"


def test_a_run_that_has_not_run_has_no_picture(tmp_path):
    with pytest.raises(PrerequisiteError, match="no visibilities yet") as caught:
        draw(tmp_path, SECTION, "run")
    assert caught.value.exit_code == 3


def test_only_uvh5_is_drawn(tmp_path):
    with pytest.raises(UsageError, match="writes ms; only uvh5"):
        draw(tmp_path, {"output": "x.ms", "output_format": "ms"}, "run")


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "small.uvh5").write_bytes(content)
    with pytest.raises(UsageError, match=r"small\.uvh5 is not readable as UVH5"):
        draw(tmp_path, SECTION, "run")


def test_hdf5_of_another_kind_is_named(tmp_path):
    with h5py.File(tmp_path / "small.uvh5", "w") as file:
        file["other"] = 1
    with pytest.raises(UsageError, match="not readable as UVH5"):
        draw(tmp_path, SECTION, "run")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    write_uvh5(tmp_path / "small.uvh5")
    real = builtins.__import__

    def without(name, *args, **more):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    with pytest.raises(PrerequisiteError, match="not installed: matplotlib") as caught:
        draw(tmp_path, SECTION, "run")
    assert "valska[plot]" in caught.value.hint
