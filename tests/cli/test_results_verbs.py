"""Sweeps and whole roots of results, as a user sees them: status, verify, list and clean."""

import json
import os
import pty
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from valska.cli import sweep_view


@pytest.fixture
def sweep(user):
    """A sweep of three points below a root, one of which fails, run to its end."""
    place = user.cwd / "results/_sweeps/s1"
    values = "run=true,\"printf 'no data' >&2; false\",echo"
    made = user.ok(
        "sweep", "linetool", "--template", "three", "--runner", "host", "--sweep-id", "s1",
        "--values", values, "-o", place,
    )  # fmt: skip
    assert Path(made.stdout.splitlines()[-1]) == place
    user.run("submit", place, "--scheduler", "local", "--wait")
    return place


@pytest.fixture
def run(user):
    """A run below the same root, not submitted."""
    return user.bundle(output="results/r1")


def document(result):
    return json.loads(result.stdout)


def failing(sweep):
    return next(path.name for path in (sweep / "points").iterdir() if "false" in path.name)


def test_status_of_a_sweep_is_a_table_counts_and_what_failed(user, sweep):
    shown = user.ok("status", sweep).stdout
    blocks = [block.splitlines() for block in shown.split("\n\n")]
    table, counts, failures = blocks
    assert table[0].split() == ["point", "count", "double"]
    assert [line.split()[1:] for line in table[1:]] == [
        ["completed", "completed"],
        ["failed", "cancelled"],
        ["completed", "completed"],
    ]
    assert counts[0].split() == ["stage", "completed", "failed", "cancelled", "points"]
    assert counts[1].split() == ["count", "2", "1", "-", "3"]
    assert len(failures) == 2, "the first cause only"
    bad = failures[1].split()
    assert bad[:3] == [failing(sweep), "count", "failed"]
    assert (sweep / bad[3]).read_text().startswith("no data")
    assert "exit code 1" in failures[1]


def test_status_of_a_sweep_as_json(user, sweep):
    data = document(user.ok("status", sweep, "--json"))
    assert (data["sweep_id"], data["state"], data["stages"]) == (
        "s1",
        "failed",
        ["count", "double"],
    )
    assert data["counts"]["count"] == {"completed": 2, "failed": 1}
    assert [point["state"] for point in data["points"]] == ["completed", "failed", "completed"]
    first = data["points"][0]
    assert first["values"] == {"run": True}
    assert first["stages"]["count"]["exit_code"] == 0
    assert (sweep / first["stages"]["count"]["record"]).is_file()


def test_only_some_points(user, sweep):
    label = failing(sweep)
    for words in (["failed"], [label], [label[:-3] + "*"]):
        options = [word for value in words for word in ("--only", value)]
        table = user.ok("status", sweep, *options).stdout.split("\n\n")[0].splitlines()
        assert [line.split()[0] for line in table[1:]] == [label]
    data = document(user.ok("status", sweep, "--only", "failed", "--json"))
    assert [point["label"] for point in data["points"]] == [label]
    refused = user.run("status", sweep, "--only", "nothing")
    assert refused.exit_code == 2
    assert "no point of this sweep fits 'nothing'" in refused.stderr


def test_many_points_are_counted_and_only_what_is_open_is_shown(user, sweep, monkeypatch):
    monkeypatch.setattr(sweep_view, "MANY", 1)
    shown = user.ok("status", sweep).stdout
    assert shown.splitlines()[1].split()[0] == failing(sweep)
    assert "… and 2 completed; --all shows them." in shown
    assert len(user.ok("status", sweep, "--all").stdout.split("\n\n")[0].splitlines()) == 4


def test_status_of_a_point_is_as_that_of_a_run(user, sweep):
    label = failing(sweep)
    found = user.ok("status", sweep / "points" / label)
    assert [line.split()[:2] for line in found.stdout.splitlines()[1:]] == [
        ["count", "failed"],
        ["double", "cancelled"],
    ]
    assert f"The log of count: points/{label}/logs/count-" in found.stderr
    data = document(user.ok("status", sweep / "points" / label, "--json"))
    assert (data["run_id"], data["state"]) == (label, "failed")
    os.chdir(sweep / "points" / label)
    assert user.ok("status", ".").stdout == found.stdout


def test_check_gives_an_exit_code_and_says_what_failed(user, sweep, run):
    assert user.run("status", sweep, "--check").exit_code == 1
    assert failing(sweep) in user.run("status", sweep, "--check").stderr
    assert user.run("status", run, "--check").exit_code == 0
    whole = user.run("status", sweep.parents[1], "--check")
    assert (whole.exit_code, "_sweeps/s1" in whole.stderr) == (1, True)


def test_options_of_sweeps_are_refused_elsewhere(user, run):
    assert user.run("status", run, "--all").exit_code == 2
    assert user.run("status", run.parent, "--watch").exit_code == 2


def test_watch_follows_a_sweep_to_its_end(user, sweep):
    user.ok("submit", sweep, "--resume", "--only", "failed", "--scheduler", "local")
    shown = user.ok("status", sweep, "--watch").stdout
    assert shown.splitlines()[-1].split()[:3] == [failing(sweep), "count", "failed"]


def test_verify_a_sweep_a_point_and_a_root(user, sweep, run):
    assert "is as it was made (3 units)" in user.ok("verify", sweep).stderr
    data = document(user.ok("verify", sweep, "--json"))
    assert (data["intact"], data["units"], data["outputs"]) == (True, 3, {"count": 2, "double": 2})
    assert "All 2 are as they were made." in user.ok("verify", sweep.parents[1]).stderr
    output = next(sweep.glob("points/*/outputs/count.txt"))
    output.write_text("0\n")
    place = output.relative_to(sweep)
    found = user.run("verify", sweep)
    assert (found.exit_code, found.stdout.split()[:2]) == (5, ["altered:", str(place)])
    assert user.run("verify", output.parents[1]).exit_code == 5
    assert user.run("verify", sweep / "points" / failing(sweep)).exit_code == 0
    whole = user.run("verify", sweep.parents[1])
    assert whole.exit_code == 5
    assert [line.split() for line in whole.stdout.splitlines()[1:3]] == [
        ["_sweeps/s1", "sweep", "altered"],
        ["r1", "run", "intact"],
    ]
    assert f"altered: _sweeps/s1/{place}" in whole.stdout


def test_list_a_root(user, sweep, run):
    root = sweep.parents[1]
    rows = [line.split() for line in user.ok("list", root).stdout.splitlines()]
    assert rows[0] == ["path", "kind", "tool", "id", "state", "done", "made"]
    assert rows[1][:6] == ["_sweeps/s1", "sweep", "linetool", "s1", "failed", "2/3"]
    assert rows[2][:6] == ["r1", "run", "linetool", "three", "not-submitted", "0/2"]
    data = document(user.ok("list", root, "--json"))
    assert [one["points"] for one in data] == [{"done": 2, "total": 3}, None]
    assert data[0]["failures"][0]["point"] == failing(sweep)


@pytest.mark.parametrize(
    ("options", "places"),
    [
        (["--kind", "run"], ["r1"]),
        (["--state", "failed"], ["_sweeps/s1"]),
        (["--state", "failed", "--state", "not-submitted"], ["_sweeps/s1", "r1"]),
        (["--run-id", "s*"], ["_sweeps/s1"]),
        (["--tool", "pyuvsim"], []),
        (["--since", "2020-01-01"], ["_sweeps/s1", "r1"]),
        (["--since", "9999-01-01"], []),
    ],
)
def test_list_with_filters(user, sweep, run, options, places):
    data = document(user.ok("list", sweep.parents[1], "--json", *options))
    assert [one["place"] for one in data] == places


def test_the_configured_root_is_the_default(user, sweep, run):
    assert user.run("list").exit_code == 2
    user.write("config/runtime_paths.yaml", f"results_root: {json.dumps(str(sweep.parents[1]))}\n")
    assert len(user.ok("list").stdout.splitlines()) == 3
    assert "logs" in user.ok("clean").stdout


def test_a_configured_root_that_is_a_file_is_one_clear_error(user):
    user.write("results", "")
    settings = user.write("settings.yaml", "results_root: results\n")
    make = ("pyuvsim", "--template", "hera_small", "--runner", "host")
    for verb in (("list",), ("clean",), ("bundle", *make), ("bundle", *make, "--dry-run"),
                 ("sweep", *make, "--values", "time.Ntimes=4")):  # fmt: skip
        done = user.run("--config", settings, *verb)
        assert done.exit_code == 2
        assert f"the results root {user.cwd / 'results'} is not a directory" in done.stderr


def test_nothing_goes_without_being_told(user, sweep):
    before = sorted(sweep.rglob("*"))
    shown = user.ok("clean", sweep.parents[1])
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [["logs", "_sweeps/s1"]]
    assert "Nothing was done" in shown.stderr
    assert sorted(sweep.rglob("*")) == before
    assert user.run("clean", sweep.parents[1], "--execute").exit_code == 2


def test_logs_go_to_the_trash_and_the_sweep_is_as_it_was_made(user, sweep):
    logs = sorted(sweep.rglob("*.log"))
    done = document(user.ok("clean", sweep.parents[1], "--logs", "--execute", "--json"))
    assert (done["executed"], len(done["items"])) == (True, len(logs))
    trash = Path(done["trash"])
    assert trash.parent == sweep.parents[1] / ".trash"
    assert len(list(trash.rglob("*.log"))) == len(logs)
    assert list(sweep.rglob("*.log")) == []
    assert user.ok("verify", sweep).exit_code == 0
    assert document(user.ok("status", sweep, "--json"))["counts"]["count"]["completed"] == 2
    assert len(user.ok("list", sweep.parents[1]).stdout.splitlines()) == 2


def test_attempts_are_deleted_for_good_where_that_is_wanted(user, sweep):
    user.ok("submit", sweep, "--resume", "--scheduler", "local")
    user.ok("status", sweep, "--watch")
    attempt = sweep / "points" / failing(sweep) / "outputs.1"
    assert attempt.is_dir()
    user.ok("clean", sweep, "--attempts", "--execute", "--delete")
    assert not attempt.exists()
    assert not (sweep.parent / ".trash").exists()


def test_what_an_interrupted_command_left_goes_after_a_day(user, sweep):
    name = "points/.0123456789ab.partial"
    (sweep / name).mkdir()
    (sweep / name / "manifest.json").write_text("{}")
    assert "Nothing can go." in user.ok("clean", sweep, "--scratch").stderr
    long_ago = time.time() - 100_000
    for path in (sweep / name / "manifest.json", sweep / name):
        os.utime(path, (long_ago, long_ago))
    for place in (sweep, sweep.parents[1]):
        found = document(user.ok("clean", place, "--scratch", "--json"))["items"]
        assert [one["path"] for one in found] == [str(sweep / name)]
    user.ok("clean", sweep, "--scratch", "--execute", "--delete")
    assert not (sweep / name).exists()


def test_nothing_of_a_sweep_that_runs_goes(user):
    place = user.cwd / "results/s2"
    user.ok(
        "sweep", "linetool", "--template", "three", "--runner", "host",
        "--values", "run=sleep 60", "-o", place,
    )  # fmt: skip
    user.ok("submit", place, "--scheduler", "local")
    try:
        words = ["--runs", "--logs", "--execute", "--yes-remove", "s2"]
        shown = user.run("clean", place.parent, *words)
        assert (shown.exit_code, "not removed: s2" in shown.stderr) == (3, True)
        assert "a job of it waits or runs" in shown.stderr
        assert (place / "sweep_manifest.json").is_file()
        assert list(place.rglob("*.log"))
    finally:
        user.ok("cancel", place, "--grace", "0")


def test_whole_runs_go_only_after_they_were_named(user, sweep, run):
    root = sweep.parents[1]
    assert "r1" in user.ok("clean", root, "--runs").stdout
    refused = user.run("clean", root, "--runs", "--execute")
    assert (refused.exit_code, "--yes-remove" in refused.stderr) == (2, True)
    assert user.run("clean", root, "--runs", "--execute", "--yes-remove", "x").exit_code == 2
    user.ok("clean", root, "--runs", "--execute", "--yes-remove", "r1")
    assert not run.exists()
    assert sweep.is_dir()
    assert len(list((root / ".trash").glob("*/r1/manifest.json"))) == 1


def test_an_id_of_several_is_refused(user, run):
    user.bundle(output="results/r2")
    refused = user.run("clean", run.parent, "--runs", "--execute", "--yes-remove", "three")
    assert (refused.exit_code, "r1, r2" in refused.stderr) == (2, True)
    assert run.is_dir()


@pytest.mark.parametrize(("typed", "goes"), [("three", True), ("", False), ("r1", False)])
def test_the_id_is_typed_at_a_terminal(user, run, typed, goes):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "valska", "clean", str(run.parent), "--runs", "--execute"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(0.2)
    os.write(ours, f"{typed}\n".encode())
    _, said = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert b"Type three to remove r1" in said
    assert (process.returncode, run.exists()) == (0, not goes)


def test_a_point_is_not_cleaned_alone(user, sweep):
    refused = user.run("clean", sweep / "points" / failing(sweep), "--logs")
    assert (refused.exit_code, "point of a sweep" in refused.stderr) == (2, True)


def test_another_runs_borrowed_directory_stays(user, run):
    other = user.bundle("--inputs", "reference", output="results/r2")
    lines = (other / "site.env").read_text().splitlines()
    where = shlex.quote(str(run / "inputs/data.txt"))
    said = f"VALSKA_REFERENCES=([inputs/data.txt]={where})"
    lines = [said if line.startswith("VALSKA_REFERENCES=") else line for line in lines]
    (other / "site.env").write_text("\n".join(lines) + "\n")
    shown = user.run("clean", run.parent, "--runs", "--execute", "--yes-remove", "r1")
    assert shown.exit_code == 3
    assert "r2 reads what is in it" in shown.stderr
    assert run.is_dir()
