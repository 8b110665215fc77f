"""A sweep of pyuvsim on real Slurm: the commands of docs/how-to/sweep-pyuvsim.md.

Each point's visibilities are those of the bundle that sets the same values.
"""

import json

import numpy as np
import pytest
from howto import Page
from test_slurm_pyuvsim import datasets, visibilities

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

SOURCE = ("--override", "sources.catalog=mock", "--override", "sources.mock_arrangement=zenith")
SMALL = ("--override", "time.Ntimes=1", "--override", "freq.Nfreqs=1")
TIMES = ("2460000.23", "2460000.25", "2460000.29")
PNG = b"\x89PNG\r\n\x1a\n"


def point(sweep, time):
    return sweep / "points" / f"time_{time}"


@pytest.fixture(scope="module")
def user(account):
    return account.in_directory("drift")


@pytest.fixture(scope="module")
def bundles(slurm, user, pyuvsim_image):
    """The single runs of some points, all sent at once."""
    made = {}
    for time in TIMES:
        values = ("--override", f"sources.time={time}")
        made[time] = user.bundle(
            "pyuvsim", "--template", "hera_small", *SOURCE, *SMALL, *values, output=f"at {time}"
        )
        user.valska("submit", made[time])
    return made


def test_the_page_and_the_runs_of_single_bundles(user, bundles):
    sweep = user.work / "drift"
    page = Page("sweep-pyuvsim", user)
    page.go_on("valska verify drift")
    before = {path: path.stat() for path in sweep.glob("points/*/outputs/*")}
    assert len(before) == 5
    page.go_on("valska submit drift --resume")
    assert {path: path.stat() for path in before} == before
    table = page.go_on("valska report drift")
    assert (user.work / "drift.png").read_bytes().startswith(PNG)
    assert page.done == len(page.blocks)
    user.valska("verify", sweep)
    assert len(list(sweep.rglob("layout.csv"))) == 1

    strengths = [np.abs(visibilities(folder)).mean() for folder in outputs(sweep)]
    assert len(strengths) == 9
    assert np.all(np.diff(strengths[:5]) > 0.01)
    assert np.all(np.diff(strengths[4:]) < -0.01)
    assert strengths[4] == pytest.approx(0.5, rel=1e-4)
    lines = sorted(line.split() for line in table.splitlines() if line.startswith("time_"))
    told = {float(words[1]): float(words[4]) for words in lines}
    assert list(told.values()) == pytest.approx(strengths, rel=1e-4)

    for time, bundle in bundles.items():
        user.valska("status", bundle, "--watch", timeout=300)
        assert user.states(bundle) == {"simulate": "completed"}
        same = [json.loads((path / "manifest.json").read_text())["bundle_id"]
                for path in (bundle, point(sweep, time))]  # fmt: skip
        assert same[0] == same[1]
        ours, theirs = (datasets(path / "outputs") for path in (point(sweep, time), bundle))
        assert ours.keys() == theirs.keys()
        for key, values in theirs.items():
            np.testing.assert_array_equal(ours[key], values, key)


def outputs(sweep):
    """Return the outputs of each point, in order."""
    points = json.loads((sweep / "sweep_manifest.json").read_text())["points"]
    return [sweep / "points" / label / "outputs" for label in sorted(p["label"] for p in points)]
