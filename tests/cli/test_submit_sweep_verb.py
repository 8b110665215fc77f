"""``valska submit`` and ``valska cancel`` on a sweep, as a user types them, on this machine."""

import json

import pytest

from valska.external_tools.core.lock import directory_lock
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


def test_what_cannot_be_sent_is_said_once(user, sweep):
    (sweep.points / "a/config/lines.yaml").unlink()
    done = user.run("submit", "S", "--scheduler", "local", "--only", "a")
    assert done.exit_code == 4
    assert done.stderr.count("config/lines.yaml cannot be read") == 1
    assert "valska verify" in done.stderr
    done = user.run("submit", "S", "--scheduler", "local")
    assert done.exit_code == 4
    assert done.stderr.count("config/lines.yaml cannot be read") == 1
    assert "1 point could not be sent; count, double of points/a: config/lines.yaml" in done.stderr


def test_a_dry_run_says_first_how_much_would_be_sent(user, sweep):
    done = user.ok("submit", "S", "--scheduler", "local", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["count: 2 tasks in 1 array", "double: 2 tasks in 1 array"]
    assert len(lines) == 4


def test_nothing_is_left_when_all_has_ended(user, sweep):
    user.ok("submit", "S", "--scheduler", "local", "--wait")
    done = user.run("submit", "S", "--scheduler", "local")
    assert done.exit_code == 4
    assert "all of it was sent before, and has ended" in done.stderr


def test_the_first_cause_is_what_is_told_of_a_chain(user):
    user.ok("sweep", "linetool", "--template", "three", "--runner", "host",
            "--values", "run=false,sleep 60", "-o", "S")  # fmt: skip
    done = user.run("submit", "S", "--scheduler", "local", "--wait", "--only", "*false")
    assert done.exit_code == 1
    assert "count is failed" in done.stderr
    user.ok("submit", "S", "--scheduler", "local")
    user.ok("cancel", "S")
    stages = {
        point["label"]: point["stages"]
        for point in json.loads(user.ok("status", "S", "--json").stdout)["points"]
    }
    assert stages["run_false"]["double"]["reason"] == "never started: count did not succeed"
    (other,) = stages.keys() - {"run_false"}
    assert stages[other]["double"]["reason"] == "cancelled before it began"


def test_what_is_said_of_a_sweep_does_not_call_it_a_bundle(user, sweep):
    done = user.run("submit", "S", "--stage", "cuont", "--dry-run")
    assert (done.exit_code, "bundle" in done.stderr) == (2, False)
    assert "no stage 'cuont'" in done.stderr
    with directory_lock(sweep.bundle.submit_lock):
        done = user.run("submit", "S", "--scheduler", "local")
    assert (done.exit_code, "bundle" in done.stderr) == (4, False)
    assert f"submitting or changing {sweep.path}" in done.stderr
