"""A point of a sweep is shown as a bundle is; a sweep as a whole is no run."""

import json
import subprocess

import pytest


@pytest.fixture
def sweep(user):
    small = ("linetool", "--template", "three", "--runner", "host")
    user.ok("sweep", *small, "--values", "run=one,two", "-o", "here")
    return user.cwd / "here"


def test_a_point_is_shown_with_what_all_points_share(user, sweep):
    text = user.ok("show", sweep / "points/run_one").stdout
    assert ["run", "id", "run_one"] in [line.split() for line in text.splitlines()]
    assert "submit_count.sh" in text
    shown = json.loads(
        user.ok("show", sweep / "points/run_one", "--stage", "count", "--json").stdout
    )
    assert [stage["name"] for stage in shown["manifest"]["stages"]] == ["count"]
    assert shown["manifest"]["run_id"] == "run_one"


def test_the_command_of_a_point_is_its_scripts(user, sweep):
    found = user.ok("show", sweep / "points/run_two", "--stage", "count", "--command").stdout
    argv = ("bash", "submit_count.sh", "points/run_two", "--show")
    done = subprocess.run(argv, cwd=sweep, capture_output=True, text=True, check=True)
    assert "count" in found
    assert found.split() == done.stdout.split()


@pytest.mark.parametrize("verb", ["show", "plot"])
def test_a_sweep_as_a_whole_is_no_run(user, sweep, verb):
    done = user.run(verb, sweep)
    assert done.exit_code == 3
    assert "is a sweep, not a run" in done.stderr
    assert "points/LABEL" in done.stderr
