"""The number of k bins: as the real BayesEoR counted them, and from what it reads the channels."""

import json
from pathlib import Path

import pytest

from valska.external_tools.bayeseor.kbins import Band, _count, count_bins
from valska.external_tools.core.errors import UsageError

RECORDED = json.loads((Path(__file__).parents[1] / "data/bayeseor/k_bins.json").read_text())
WIDTH, FIRST = 237618.0, 158.3e6
TINY = {"nu": 5, "fov_ra_eor": 12.9080728652}


@pytest.fixture
def uvh5(tmp_path):
    h5py = pytest.importorskip("h5py")

    path = tmp_path / "eor.uvh5"
    with h5py.File(path, "w") as file:
        file["Header/freq_array"] = [FIRST + i * WIDTH for i in range(38)]
    return path


@pytest.mark.parametrize("row", RECORDED["rows"])
def test_bins_are_those_that_bayeseor_counted(row):
    *model, channels, width, mean, bins = row
    assert _count(*model, Band(channels, width, mean)) == bins


@pytest.mark.parametrize(
    ("selection", "bins"),
    [
        ({}, 9),
        ({"nf": 6}, 9),
        ({"nf": 6, "freq_idx_min": 0}, 3),
        ({"nf": 6, "freq_min": FIRST + 2.5 * WIDTH}, 3),
        ({"nf": 6, "freq_center": FIRST + 10 * WIDTH}, 3),
        ({"freq_idx_min": 32}, 3),
        ({"neta": 6}, 3),
    ],
)
def test_channels_are_those_that_bayeseor_keeps(uvh5, selection, bins):
    assert count_bins({**TINY, "nu": 15, **selection}, uvh5) == bins


def test_more_channels_than_there_are_is_refused(uvh5):
    with pytest.raises(UsageError, match="has 38 channels"):
        count_bins({**TINY, "nf": 6, "freq_idx_min": 35}, uvh5)


def test_a_vector_has_the_channels_that_the_configuration_says(tmp_path):
    data = tmp_path / "vector.npy"
    written = {**TINY, "nf": 6, "df": WIDTH}
    assert count_bins({**written, "freq_min": FIRST}, data) == 3
    assert count_bins({**written, "freq_center": FIRST}, data) == 3
    assert count_bins(written, data) is None


@pytest.mark.parametrize("name", ["eor.uvfits", "text.uvh5", "missing.uvh5"])
def test_what_cannot_be_read_here_is_not_known(tmp_path, name):
    (tmp_path / "text.uvh5").write_text("{}")
    assert count_bins(TINY, tmp_path / name) is None
