"""``valska diff``: what two bundles do not have in common, and the exit code that says so."""

import json
import shutil
from pathlib import Path

import pytest

from valska.external_tools.core.comparison import sealed
from valska.external_tools.core.schema import validate
from valska.external_tools.core.utils import sha256_file


@pytest.fixture
def pair(user):
    """Two bundles that differ in a parameter and a directive, none of them run."""
    one = user.bundle(output="one")
    other = user.bundle("--override", "then='; true'", "--slurm", "time=20", output="other")
    return one, other


def ran(user, output, *args):
    bundle = user.bundle(*args, output=output)
    done = user.process("submit", bundle, "--scheduler", "local", "--wait")
    assert done.returncode == 0, done.stderr
    return bundle


def test_a_bundle_differs_in_nothing_from_itself(user):
    bundle = user.bundle()
    result = user.ok("diff", bundle, bundle)
    assert result.stdout == ""
    assert "Nothing differs." in result.stderr


def test_bundles_of_one_intent_differ_in_nothing_wherever_they_lie(user):
    one, other = user.bundle(output="one"), user.bundle("--run-id", "again", output="other")
    moved = other.rename(other.parent / "moved away")
    assert user.ok("diff", one, moved).stdout == ""


def test_what_differs_is_listed_and_the_exit_code_is_5(user, pair):
    result = user.run("diff", *pair)
    assert result.exit_code == 5
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["what", "which", "A", "B"]
    assert any(line.startswith("parameter  lines.yaml: then") for line in lines)
    assert any(line.split()[:2] == ["directive", "count.time"] for line in lines)
    assert "The science is not the same" in result.stderr


def test_json_has_every_value_and_says_what_changes_the_science(user, pair):
    result = user.run("diff", *pair, "--json")
    assert result.exit_code == 5
    data = json.loads(result.stdout)
    assert data["same_science"] is False
    found = {(one["kind"], one["key"]): one for one in data["differences"]}
    assert found["directive", "count.time"] == {
        "kind": "directive", "key": "count.time", "a": "10", "b": "20", "science": False,
    }  # fmt: skip
    assert found["parameter", "lines.yaml: then"]["science"] is True
    assert found["parameter", "lines.yaml: then"]["a"] is None


def test_directives_alone_leave_the_science_the_same(user):
    one, other = user.bundle(output="one"), user.bundle("--slurm", "time=20", output="other")
    result = user.run("diff", one, other)
    assert result.exit_code == 5
    assert "The science is the same" in result.stderr


def test_points_of_a_sweep_are_bundles_too(user):
    user.ok("sweep", "linetool", "--template", "three", "--runner", "host",
            "--values", "run=true,false", "-o", "sweep")  # fmt: skip
    points = sorted((user.cwd / "sweep/points").iterdir())
    result = user.run("diff", *points, "--json")
    (found,) = json.loads(result.stdout)["differences"]
    assert (found["kind"], found["key"]) == ("parameter", "lines.yaml: run")


def sweep(user, output, *args, values="run=true,false"):
    command = ("sweep", "linetool", "--template", "three", "--runner", "host")
    user.ok(*command, "--values", values, *args, "-o", output)
    return user.cwd / output


def test_a_sweep_is_no_bundle_and_a_file_neither(user):
    sweep(user, "sweep")
    bundle = user.bundle()
    result = user.run("diff", "sweep", bundle)
    assert result.exit_code == 2
    assert "sweep is a sweep, and the other is none" in result.stderr
    assert user.run("diff", bundle, "nowhere").exit_code == 3
    assert user.run("diff", bundle, user.write("x", "")).exit_code == 5
    result = user.run("diff", "sweep", "sweep", "--outputs")
    assert result.exit_code == 2
    assert "--outputs is for runs" in result.stderr


def differences(user, *paths):
    """Return what is printed and what differs; all is as it was sealed."""
    result = user.run("diff", *paths, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == (5 if data["differences"] else 0)
    assert [data[side]["not_as_sealed"] for side in "ab"] == [[], []]
    return data, {(one["kind"], one["key"]): (one["a"], one["b"]) for one in data["differences"]}


def test_sweeps_differ_in_axes_and_in_what_all_points_share(user):
    one = sweep(user, "one")
    assert differences(user, one, one)[1] == {}
    other = sweep(user, "other", "--slurm", "time=20", values="run=true,echo")
    data, found = differences(user, one, other)
    assert data["same_science"] is False
    assert (data["a"]["points"], data["b"]["points"]) == (2, 2)
    assert found == {
        ("axis", "run"): ("true, false", 'true, "echo"'),
        ("directive", "count.time"): ("10", "20"),
        ("directive", "double.time"): ("10", "20"),
    }
    result = user.run("diff", one, other)
    assert "the points have other bundle ids" in result.stderr


def test_what_differs_in_all_points_of_sweeps_is_told_once(user):
    one, other = (sweep(user, name, "--override", f"share={name}") for name in ("one", "other"))
    _, found = differences(user, one, other)
    assert found == {("parameter", "lines.yaml: share"): ("'one'", "'other'")}


def test_points_that_the_axes_do_not_tell_are_named(user):
    both = ("--values", "share=a,b")
    one = sweep(user, "one", *both)
    table = user.write("t.csv", "run,share\ntrue,a\nfalse,b\ntrue,b\n")
    command = ("sweep", "linetool", "--template", "three", "--runner", "host")
    user.ok(*command, "--points", table, "-o", "other")
    _, found = differences(user, one, "other")
    assert list(found.values()) == [("run_false_share_a", None)]
    assert list(found) == [("point", 'run=false, share="a"')]


# --- what is not as it was sealed ----------------------------------------------------------------


def edited(path):
    path.write_text(path.read_text() + "then: edited\n")
    return path


def copied(path, name):
    return Path(shutil.copytree(path, path.parent / name))


def test_an_edited_configuration_is_told_first_and_its_bundle_id_is_not_believed(user):
    one = user.bundle(output="one")
    other = copied(one, "other")
    edited(other / "config/lines.yaml")
    result = user.run("diff", one, "other")
    assert result.exit_code == 5
    told, science, *_ = result.stderr.splitlines()
    assert told == (
        "other is not as it was sealed: config/lines.yaml (altered); "
        "`valska verify other` says more."
    )
    assert science == "The science is not the same."
    assert "lines.yaml: then" in result.stdout
    data = json.loads(user.run("diff", one, "other", "--json").stdout)
    assert data["same_science"] is False
    assert data["b"]["not_as_sealed"] == ["config/lines.yaml (altered)"]


def test_what_is_edited_in_both_is_not_said_to_be_as_it_was(user):
    one = user.bundle(output="one")
    edited(one / "config/lines.yaml")
    result = user.run("diff", one, one)
    assert result.exit_code == 5
    assert result.stderr.count("is not as it was sealed: config") == 1
    assert "Whether the science is the same is not said" in result.stderr
    assert "Nothing else differs." in result.stderr
    data = json.loads(user.run("diff", one, one, "--json").stdout)
    assert (data["same_science"], data["differences"]) == (None, [])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("inputs/data.txt", "inputs/data.txt (altered)"),
        ("submit_count.sh", "submit_count.sh (altered)"),
        ("manifest.json", "manifest.json (altered)"),
        ("SHA256SUMS", "manifest.json (altered)"),
    ],
)
def test_other_sealed_files_are_looked_at_too(user, name, told):
    one = user.bundle(output="one")
    other = copied(one, "other")
    text = (other / name).read_text()
    (other / name).write_text(
        text.replace(text[:1], "0", 1) if name == "SHA256SUMS" else f"{text} \n"
    )
    if name == "SHA256SUMS":
        lines = [f"{'0' * 64}{x[64:]}" if "manifest" in x else x for x in text.splitlines()]
        (other / name).write_text("\n".join(lines) + "\n")
    result = user.run("diff", one, other, "--json")
    assert result.exit_code == 5
    data = json.loads(result.stdout)
    assert told in data["b"]["not_as_sealed"]
    assert data["same_science"] is None


def test_a_configuration_that_is_gone_is_told(user):
    one = user.bundle(output="one")
    other = copied(one, "other")
    (other / "config/lines.yaml").unlink()
    result = user.run("diff", one, other)
    assert result.exit_code == 5
    assert "config/lines.yaml (missing)" in result.stderr
    assert "lines.yaml  is there  -" in result.stdout


def test_a_bundle_that_was_sealed_again_has_not_the_id_of_its_content(user):
    one = user.bundle(output="one")
    other = copied(one, "other")
    manifest, config = other / "manifest.json", other / "config/lines.yaml"
    old = sha256_file(config), config.stat().st_size
    data = json.loads(manifest.read_text())
    edited(config)
    for file in data["files"]:
        if file["path"] == "config/lines.yaml":
            file |= {"sha256": sha256_file(config), "size": config.stat().st_size}
    before = sha256_file(manifest)
    manifest.write_text(json.dumps(data))
    sums = (other / "SHA256SUMS").read_text()
    sums = sums.replace(old[0], sha256_file(config)).replace(before, sha256_file(manifest))
    (other / "SHA256SUMS").write_text(sums)
    result = user.run("diff", one, other)
    assert "its bundle id is not that of its content" in result.stderr
    assert "The science is not the same." in result.stderr


def test_an_edited_configuration_of_a_sweeps_point_is_found(user):
    one = sweep(user, "one")
    other = copied(one, "other")
    assert differences(user, one, other)[0]["same_science"] is True
    edited(other / "points/run_true/config/lines.yaml")
    result = user.run("diff", one, "other")
    assert result.exit_code == 5
    assert result.stderr.startswith(
        "other is not as it was sealed: points/run_true: config/lines.yaml was altered; "
    )
    assert "The science is not the same." in result.stderr
    assert "run_true: lines.yaml: then" in result.stdout
    point = user.run("diff", "one/points/run_true", "other/points/run_true")
    assert point.exit_code == 5
    assert "config/lines.yaml (altered)" in point.stderr


@pytest.mark.parametrize("name", ["", "manifest.json"])
def test_a_point_of_which_the_files_are_gone_is_told(user, name):
    one = sweep(user, "one")
    gone = copied(one, "other") / "points/run_true" / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    result = user.run("diff", one, "other")
    assert result.exit_code == 5
    assert result.stderr.startswith("other is not as it was sealed: points/run_true: ")
    assert "run_true: manifest.json  is there  -" in result.stdout


@pytest.mark.parametrize("name", ["inputs/data.txt", "common.json", "SHA256SUMS"])
def test_what_points_share_is_looked_at_in_a_sweep_and_in_a_point(user, name):
    one = sweep(user, "one")
    other = copied(one, "other")
    (other / name).write_text((other / name).read_text() + " \n")
    for place in ("", "points/run_true"):
        result = user.run("diff", one / place, other / place)
        assert result.exit_code == 5
        assert f"{name} (altered)" in result.stderr
        assert "The science is the same" not in result.stderr


def test_a_sweeps_manifest_that_contradicts_a_point_is_told(user):
    one = sweep(user, "one")
    other = copied(one, "other")
    manifest = other / "sweep_manifest.json"
    manifest.write_text(manifest.read_text().replace('"run": true', '"run": "x"'))
    result = user.run("diff", one, "other")
    assert "points/run_true: sweep_manifest.json has another values" in result.stderr
    assert result.exit_code == 5


@pytest.mark.parametrize("files", [["local"], [{"x": 1}], {}])
def test_a_points_manifest_that_is_none_is_told(user, files):
    one = sweep(user, "one")
    place = next((copied(one, "two") / "points").iterdir()) / "manifest.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "files": files}))
    result = user.run("diff", one, "two")
    assert result.exit_code == 5
    assert f"the manifest of points/{place.parent.name} is not valid" in result.stderr


def test_what_is_too_large_to_be_read_is_named(user, monkeypatch):
    one = user.bundle(output="one")
    edited(one / "inputs/data.txt")
    monkeypatch.setattr(sealed, "MOST_BYTES", (one / "config/lines.yaml").stat().st_size)
    data = json.loads(user.run("diff", one, one, "--json").stdout)
    assert data["a"]["not_as_sealed"] == ["inputs/data.txt (altered)"]
    assert "submit_count.sh" in data["a"]["not_read"]
    assert "config/lines.yaml" not in data["a"]["not_read"]
    result = user.run("diff", one, one)
    assert "Not read of " in result.stderr


def test_a_referenced_input_that_is_gone_is_not_read_and_one_that_is_there_is(user):
    data = user.write("mine.txt", "a\nb\n")
    user.write("c.yaml", "data: mine.txt\n")
    command = ("bundle", "linetool", "c.yaml", "--runner", "host", "--inputs", "reference")
    user.ok(*command, "-o", "one")
    assert user.ok("diff", "one", "one").stderr.count("Not read") == 0
    data.write_text("a\nc\n")
    assert "inputs/data.txt (altered)" in user.run("diff", "one", "one").stderr
    data.unlink()
    result = user.ok("diff", "one", "one")
    assert "Not read of one: inputs/data.txt; `valska verify one` does." in result.stderr


def test_with_outputs_it_is_told_too(user):
    one = ran(user, "one")
    edited(copied(one, "other") / "config/lines.yaml")
    result = user.run("diff", one, "other", "--outputs")
    assert result.stderr.startswith("other is not as it was sealed: config/lines.yaml")


# --- what it cannot compare ----------------------------------------------------------------------


def test_outputs_of_two_tools_are_a_fault_of_usage(user):
    one = user.bundle(output="one")
    other = copied(one, "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["tool"], manifest["another"] = "another", manifest.pop("linetool")
    (other / "manifest.json").write_text(json.dumps(manifest))
    result = user.run("diff", one, other, "--outputs")
    assert result.exit_code == 2
    assert "linetool, the other of another" in result.stderr


def test_the_hint_does_not_name_the_option_that_was_given(user, pair):
    assert "`valska diff --json` has" in user.run("diff", *pair).stderr
    assert "`valska diff --json`" not in user.run("diff", *pair, "--json").stderr


def test_a_directory_with_a_bundle_in_it_is_named(user):
    bundle = ran(user, "one")
    user.ok("archive", bundle, "-o", "one.tar.zst")
    user.ok("unpack", "one.tar.zst", "-o", "open")
    result = user.run("diff", "open", bundle)
    assert result.exit_code == 3
    assert "open/data/bundle" in result.stderr
    assert user.run("diff", "open/data/bundle", bundle).exit_code == 0


# --- archives ------------------------------------------------------------------------------------


def packed(user, path, name):
    assert user.process("submit", path, "--scheduler", "local", "--wait").returncode == 0
    user.ok("archive", path, "-o", name)
    return user.cwd / name


def test_an_archive_is_compared_without_being_unpacked(user):
    bundle = user.bundle(output="one")
    archive = packed(user, bundle, "one.tar.zst")
    before = sorted(user.cwd.rglob("*"))
    result = user.ok("diff", archive, bundle)
    assert "Nothing differs." in result.stderr
    other = user.bundle("--override", "then='; true'", output="other")
    data, found = differences(user, archive, other)
    assert data["a"]["bundle"] == str(archive)
    assert ("parameter", "lines.yaml: then") in found
    assert sorted(set(user.cwd.rglob("*")) - set(other.rglob("*")) - {other}) == before
    result = user.run("diff", archive, bundle, "--outputs")
    assert result.exit_code == 2
    assert "have to be unpacked" in result.stderr


def test_archives_of_sweeps_and_of_points_too(user):
    made = sweep(user, "one", values="run=true,echo")
    archive = packed(user, made, "sweep.tar.zst")
    assert differences(user, archive, made)[1] == {}
    point = next((made / "points").glob("*true"))
    user.ok("archive", point, "-o", "point.tar.zst")
    assert differences(user, "point.tar.zst", point)[1] == {}
    assert user.run("diff", archive, point).exit_code == 2


@pytest.mark.parametrize("cut", [10, 500])
def test_an_archive_that_ends_too_early_is_told(user, cut):
    bundle = user.bundle(output="one")
    archive = packed(user, bundle, "one.tar.zst")
    archive.write_bytes(archive.read_bytes()[:-cut])
    result = user.run("diff", archive, bundle)
    assert result.exit_code == 5
    assert "one.tar.zst" in result.stderr
    assert "Error:" in result.stderr


def test_control_characters_do_not_reach_the_terminal(user):
    one = user.bundle(output="one")
    other = user.bundle("--override", 'then="; true \\e[31m"', output="other")
    assert "\x1b" not in user.run("diff", one, other).output


# --- outputs -------------------------------------------------------------------------------------


def test_outputs_that_are_the_same_are_identical_whatever_the_intent(user):
    one = ran(user, "one")
    other = ran(user, "other", "--override", "then='; true'")
    result = user.ok("diff", one, other, "--outputs")
    assert result.stdout.splitlines()[-1] == "identical"
    assert "2 of 2 outputs have the same bytes." in result.stderr


def test_outputs_that_differ_are_told_with_their_numbers_and_written_down(user):
    one = ran(user, "one")
    other = ran(user, "other", "--override", "then='; echo 4 > count.txt'")
    result = user.run("diff", one, other, "--outputs", "-o", "cmp")
    assert result.exit_code == 5
    assert "largest difference 1 at [1, 1]: 3 and 4" in result.stdout
    assert result.stdout.splitlines()[-1] == "different"
    data = json.loads((user.cwd / "cmp/comparison.json").read_text())
    validate(data, "comparison-1", "it")
    assert [one["verdict"] for one in data["outputs"]] == ["different", "different"]
    assert "# Verdict: different" in (user.cwd / "cmp/comparison.md").read_text()


def test_tolerances_are_those_of_the_command_line(user):
    bundle = ran(user, "one")
    given = ("--rtol", "0.01", "--atol", "1e-3", "--sigma", "5")
    data = json.loads(user.ok("diff", bundle, bundle, "--outputs", *given, "--json").stdout)
    assert data["tolerances"] == {"rtol": 0.01, "rtol_given": True, "atol": 0.001, "sigma": 5.0}


def test_what_has_not_run_is_incomplete(user):
    one, other = ran(user, "one"), user.bundle(output="other")
    result = user.run("diff", one, other, "--outputs")
    assert result.exit_code == 5
    assert "Stage count: completed in the reference, not run now" in result.stderr
    assert result.stdout.splitlines()[-1] == "incomplete"


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "x"])
@pytest.mark.parametrize("option", ["--rtol", "--atol", "--sigma"])
def test_a_tolerance_is_a_number_that_is_not_negative(user, option, value):
    bundle = user.bundle()
    result = user.run("diff", bundle, bundle, "--outputs", option, value)
    assert result.exit_code == 2
    assert "is no tolerance" in result.stderr


def test_a_page_is_of_outputs_and_a_dry_run_writes_none(user):
    bundle = ran(user, "one")
    assert user.run("diff", bundle, bundle, "-o", "cmp").exit_code == 2
    user.ok("diff", bundle, bundle, "--outputs", "-o", "cmp", "--dry-run")
    assert not (user.cwd / "cmp").exists()


def test_a_page_takes_no_place_of_other_files(user):
    bundle, other = ran(user, "one"), ran(user, "other", "--override", "then='; true'")
    user.write("mine/comparison.md", "precious")
    user.write("yours/comparison.json", '{"my": 1}')
    before = {path: path.read_bytes() for path in user.cwd.rglob("*") if path.is_file()}
    for place in (bundle, other / "cmp", "mine", "yours"):
        result = user.run("diff", bundle, other, "--outputs", "-o", place)
        assert result.exit_code == 2
        assert "itself" in result.stderr or "holds other files" in result.stderr
    assert {path: path.read_bytes() for path in user.cwd.rglob("*") if path.is_file()} == before


def test_a_page_takes_the_place_of_an_earlier_one_of_the_same_reference(user):
    bundle, other = ran(user, "one"), ran(user, "other", "--override", "then='; true'")
    for new in (bundle, other):
        user.ok("diff", bundle, new, "--outputs", "-o", "cmp")
        data = json.loads((user.cwd / "cmp/comparison.json").read_text())
        assert data["new"]["place"] == str(new)
    result = user.run("diff", other, bundle, "--outputs", "-o", "cmp")
    assert result.exit_code == 2
    assert "cmp holds other files" in result.stderr
