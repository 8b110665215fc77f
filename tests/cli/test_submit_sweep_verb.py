"""``valska submit`` and ``valska cancel`` on a sweep, as a user types them, on this machine."""

import pytest

from valska.external_tools.core.sweep.layout import Sweep


@pytest.fixture
def sweep(user):
    """Two points of two stages."""
    user.write("points.csv", "label,run\na,true\nb,sleep 1\n")
    user.ok("sweep", "linetool", "--template", "three", "--runner", "host",
            "--points", "points.csv", "-o", "S")  # fmt: skip
    return Sweep(user.cwd / "S")


def test_one_point_that_cannot_be_sent_does_not_end_the_waiting(user, sweep):
    (sweep.points / "a/config/lines.yaml").unlink()
    done = user.run("submit", "S", "--scheduler", "local", "--wait")
    assert done.exit_code == 4, done.output
    assert (sweep.points / "b/outputs/double.txt").read_text().strip() == "6"
    assert not (sweep.points / "a/outputs").exists()
