"""``valska reproduce`` on sweeps: every point made again from its seal alone, run, and compared."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from valska.external_tools.core.schema import validate

LOCAL = ("--scheduler", "local")
SHARED = ("--values", "run=true,false || true,echo 7 > double.txt", "--override", "share=all")


def ran(user, *args, output="sweep", code=0):
    """Make a sweep of the small tool and run it; three points with shared work, if not told."""
    command = ("sweep", "linetool", "--template", "three", "--runner", "host")
    user.ok(*command, *(args or SHARED), "-o", output)
    done = user.process("submit", output, *LOCAL, "--wait")
    assert done.returncode == code, done.stderr
    return user.cwd / output


def reproduced(user, path, *args, code=0, output="again"):
    done = user.process("reproduce", path, *LOCAL, "-o", output, *args)
    assert done.returncode == code, done.stdout + done.stderr
    return done, user.cwd / output


def comparison(place):
    data = json.loads((place / "comparison.json").read_text())
    validate(data, "comparison-1", "it")
    return data


def sweep_of(place):
    return json.loads((place / "sweep_manifest.json").read_text())


def verdicts(data):
    return {one["label"]: one["verdict"] for one in data["points"]}


def label_with(sweep, word):
    (found,) = [p["label"] for p in sweep_of(sweep)["points"] if word in str(p["values"])]
    return found


def test_a_sweep_says_identical_for_each_point_and_shared_work_is_done_once(user):
    sweep = ran(user)
    moved = sweep.rename(user.cwd / "elsewhere")
    done, place = reproduced(user, moved)
    assert done.stdout.splitlines()[-1] == "identical"
    old, new = sweep_of(moved), sweep_of(place / "sweep")
    for kind in ("points", "shared"):
        keys = ("label", "bundle_id")
        assert [[one[key] for key in keys] for one in new[kind]] == [
            [one[key] for key in keys] for one in old[kind]
        ]
    assert [one["values"] for one in new["points"]] == [one["values"] for one in old["points"]]
    assert [one["shared"] for one in new["points"]] == [one["shared"] for one in old["points"]]
    assert new["instance"] != old["instance"]
    common = json.loads((place / "sweep/common.json").read_text())
    assert common["parent"] == old["common_seal"]
    assert len(list((place / "sweep").glob("shared/*/records/*"))) == 1
    assert user.ok("verify", place / "sweep").exit_code == 0
    data = comparison(place)
    assert (data["kind"], data["verdict"], data["left_out"]) == ("sweep", "identical", [])
    assert {one["kind"] for one in data["intent"]} <= {"version"}
    assert [one["values"] for one in data["points"]] == [one["values"] for one in old["points"]]
    (shared,) = data["shared"]
    assert [out["path"] for out in shared["outputs"]] == ["lines/count.txt"]
    outputs = [[out["path"] for out in one["outputs"]] for one in data["points"]]
    assert outputs == [["double.txt"]] * 3
    page = (place / "comparison.md").read_text()
    assert page.startswith("# Verdict: identical")
    assert "3 points: 3 identical." in page
    for point in old["points"]:
        assert f"`{point['label']}`" in page


def test_a_point_that_depends_on_the_clock_is_different_and_named(user):
    values = "run=true,date +%s%N > double.txt,echo"
    sweep = ran(user, "--values", values, "--override", "share=all")
    bad = label_with(sweep, "date")
    done, place = reproduced(user, sweep, code=5)
    assert done.stdout.splitlines()[-1] == "different"
    assert f"1 of 3 points: {bad}: double.txt" in done.stderr
    data = comparison(place)
    assert verdicts(data) == {**dict.fromkeys(verdicts(data), "identical"), bad: "different"}
    (point,) = [one for one in data["points"] if one["label"] == bad]
    assert point["outputs"][0]["parts"][0]["largest_absolute"]["value"] > 0
    page = (place / "comparison.md").read_text()
    assert "3 points: 2 identical, 1 different." in page
    assert f"## `points/{bad}`: different" in page
    assert 'run="date +%s%N > double.txt"'.replace(">", "\\>") in page
    shutil.rmtree(sweep / "points" / label_with(sweep, "True"))
    done, _ = reproduced(user, sweep, code=5, output="without")
    assert f"is different, 2 of 3 points: {bad}: double.txt" in done.stderr


def test_shared_work_that_differs_makes_all_points_different_that_use_it(user):
    then = ("--override", "then='; date +%s%N > lines/count.txt'", "--override", "share=all")
    sweep = ran(user, "--values", "run=echo 1 > double.txt,echo 2 > double.txt", *then)
    _, place = reproduced(user, sweep, code=5)
    data = comparison(place)
    assert set(verdicts(data).values()) == {"different"}
    assert [one["verdict"] for one in data["shared"]] == ["different"]
    for point in data["points"]:
        assert {out["verdict"] for out in point["outputs"]} == {"identical"}
        assert point["notes"] == [f"what it shares is different: {data['shared'][0]['place']}"]


def test_a_point_whose_directory_is_gone_is_incomplete_and_the_others_are_judged(user):
    sweep = ran(user)
    gone = sweep_of(sweep)["points"][1]["label"]
    shutil.rmtree(sweep / "points" / gone)
    done, place = reproduced(user, sweep, code=5)
    assert done.stdout.splitlines()[-1] == "incomplete"
    assert f"Without point {gone}" in done.stderr
    data = comparison(place)
    assert verdicts(data)[gone] == "incomplete"
    assert sorted(verdicts(data).values()) == ["identical", "identical", "incomplete"]
    (point,) = [one for one in data["points"] if one["label"] == gone]
    assert point["new"] is None
    assert "is not there" in point["notes"][0]
    assert len(list((place / "sweep/points").iterdir())) == 2


@pytest.fixture
def flag():
    """A file whose name no shell has to quote."""
    with tempfile.TemporaryDirectory(prefix="flag-") as folder:
        path = Path(folder) / "flag"
        path.write_text("")
        yield path


def test_a_point_that_fails_is_incomplete_with_its_reason_and_the_next_call_goes_on(user, flag):
    values = f"run=true,test -e {flag}"
    sweep = ran(user, "--values", values, "--override", "share=all")
    bad = label_with(sweep, "test -e")
    flag.unlink()
    done, place = reproduced(user, sweep, code=5)
    assert done.stdout.splitlines()[-1] == "incomplete"
    (point,) = [one for one in comparison(place)["points"] if one["label"] == bad]
    (stage,) = point["stages"]
    assert (stage["name"], stage["reference"], stage["new"]) == ("double", "completed", "failed")
    assert "exit code 1" in stage["reason"]
    assert "exit code 1" in (place / "comparison.md").read_text()
    flag.write_text("")
    instance = sweep_of(place / "sweep")["instance"]
    done, _ = reproduced(user, sweep)
    assert done.stdout.splitlines()[-1] == "identical"
    assert sweep_of(place / "sweep")["instance"] == instance
    records = {
        unit.name: len(list((unit / "records").iterdir()))
        for unit in (place / "sweep/points").iterdir()
    }
    assert records == {**dict.fromkeys(records, 1), bad: 2}


def test_a_point_that_failed_in_the_reference_is_incomplete_not_different(user, flag):
    flag.unlink()
    values = f"run=true,test -e {flag}"
    sweep = ran(user, "--values", values, "--override", "share=all", code=1)
    flag.write_text("")
    done, place = reproduced(user, sweep, code=5)
    bad = label_with(sweep, "test -e")
    assert "double is failed in the reference, completed now" in done.stdout
    assert verdicts(comparison(place))[bad] == "incomplete"


def test_the_same_command_goes_on_and_runs_nothing_twice(user):
    sweep = ran(user)
    done, place = reproduced(user, sweep, "--no-wait")
    assert done.stdout.splitlines() == [str(place / "sweep")]
    assert not (place / "comparison.json").exists()
    for _ in range(2):
        done, _ = reproduced(user, sweep)
        assert done.stdout.splitlines()[-1] == "identical"
        assert len(list((place / "sweep").glob("*/*/records/*"))) == 4


def test_points_that_are_not_asked_for_are_not_made_but_said(user):
    sweep = ran(user)
    labels = [one["label"] for one in sweep_of(sweep)["points"]]
    done, place = reproduced(user, sweep, "--only", labels[2], "--only", "*true")
    data = comparison(place)
    assert list(verdicts(data)) == [labels[0], labels[2]]
    assert data["left_out"] == [labels[1]]
    assert data["verdict"] == "identical"
    assert "Not asked for: 1 point of the reference." in done.stderr
    assert f"`{labels[1]}`" in (place / "comparison.md").read_text()
    made = sweep_of(place / "sweep")
    assert [one["bundle_id"] for one in made["shared"]] == [
        one["bundle_id"] for one in sweep_of(sweep)["shared"]
    ]
    assert made["points"][0]["shared"]
    done, _ = reproduced(user, sweep, code=2)
    assert "is there, with other points" in done.stderr
    done, _ = reproduced(user, sweep, "--only", "nothing", code=2, output="none")
    assert "no point of this sweep fits" in done.stderr
    assert f"Its points: {', '.join(labels)}." in done.stderr


def test_a_comparison_of_sweeps_keeps_its_place_for_the_same_reference(user):
    sweep = ran(user, "--values", "run=true")
    other = ran(user, "--values", "run=true,echo", output="other")
    _, place = reproduced(user, sweep)
    shutil.rmtree(place / "sweep")
    before = (place / "comparison.md").read_bytes()
    done, _ = reproduced(user, other, code=2)
    assert "holds other files" in done.stderr
    assert (place / "comparison.md").read_bytes() == before
    reproduced(user, sweep)


def test_one_point_alone_still_has_its_shared_work(user):
    sweep = ran(user)
    last = sweep_of(sweep)["points"][-1]["label"]
    reproduced(user, sweep, "--only", last)
    made = sweep_of(user.cwd / "again/sweep")
    assert [one["bundle_id"] for one in made["shared"]] == [
        one["bundle_id"] for one in sweep_of(sweep)["shared"]
    ]


def test_points_that_were_added_later_do_again_what_they_do_not_share(user):
    sweep = ran(user, "--values", "run=true", "--override", "share=all")
    for run in ("echo", "echo 2", "echo 3"):
        command = ("sweep", "linetool", "--template", "three", "--runner", "host", "--add")
        user.ok(*command, "--values", f"run={run}", "--override", "share=all", "-o", sweep)
    assert user.process("submit", sweep, *LOCAL, "--wait").returncode == 0
    assert not sweep_of(sweep)["shared"]
    done, place = reproduced(user, sweep)
    assert done.stdout.splitlines()[-1] == "identical"
    assert not sweep_of(place / "sweep")["shared"]


def test_an_altered_point_is_not_reproduced(user):
    sweep = ran(user)
    label = sweep_of(sweep)["points"][0]["label"]
    (sweep / "points" / label / "config/lines.yaml").write_text("data: other\n")
    done, place = reproduced(user, sweep, code=5)
    assert f"points/{label}: config/lines.yaml was altered" in done.stderr
    assert not place.exists()
    others = [one["label"] for one in sweep_of(sweep)["points"][1:]]
    reproduced(user, sweep, *(word for label in others for word in ("--only", label)))


def test_altered_common_files_are_not_reproduced(user):
    sweep = ran(user)
    (sweep / "inputs/data.txt").write_text("other\n")
    done, place = reproduced(user, sweep, code=5)
    assert "inputs/data.txt" in done.stderr
    assert not place.exists()


def test_an_altered_output_of_the_reference_is_no_result(user):
    sweep = ran(user)
    label = sweep_of(sweep)["points"][0]["label"]
    (sweep / "points" / label / "outputs/double.txt").write_text("7\n")
    _, place = reproduced(user, sweep)
    point = comparison(place)["points"][0]
    assert "double.txt" in point["notes"][0]
    assert not point["outputs"][0]["reference"]["there"]


def reseal(sweep, label, text):
    """Give a point another configuration, with manifests, seals and a bundle id that agree."""
    from valska.external_tools.core.manifest import bundle_id
    from valska.external_tools.core.sweep.document import read_common
    from valska.external_tools.core.sweep.layout import Sweep
    from valska.external_tools.core.utils import sha256_file

    unit, common = sweep / "points" / label, read_common(Sweep(sweep))
    config, manifest, sums = unit / "config/lines.yaml", unit / "manifest.json", unit / "SHA256SUMS"
    config.write_text(config.read_text() + text)
    known = json.loads(manifest.read_text())
    digests = {one.name: one.sha256 for one in common.inputs}
    content = {"lines.yaml": config.read_bytes()}
    known["bundle_id"] = bundle_id(common.tool, content, common.stages, digests, None)
    known["files"][0] |= {"sha256": sha256_file(config), "size": config.stat().st_size}
    manifest.write_text(json.dumps(known))
    paths = [line[66:] for line in sums.read_text().splitlines()]
    sums.write_text("".join(f"{sha256_file(unit / path)}  {path}\n" for path in paths))
    data = sweep_of(sweep)
    (entry,) = [one for one in data["points"] if one["label"] == label]
    entry |= {"bundle_id": known["bundle_id"], "seal": sha256_file(sums)}
    (sweep / "sweep_manifest.json").write_text(json.dumps(data))


def test_an_earlier_reproduction_of_points_that_were_others_is_not_taken(user):
    sweep = ran(user, "--values", "run=true,echo", "--override", "share=all")
    _, place = reproduced(user, sweep)
    written = (place / "comparison.json").read_bytes()
    label = sweep_of(sweep)["points"][0]["label"]
    reseal(sweep, label, "# another\n")
    done, _ = reproduced(user, sweep, code=2)
    assert f"its points/{label} has another bundle id than the reference's" in done.stderr
    assert (place / "comparison.json").read_bytes() == written


def test_what_ran_under_another_seal_is_no_result(user):
    sweep = ran(user, "--values", "run=true,echo", "--override", "share=all")
    labels = [one["label"] for one in sweep_of(sweep)["points"]]
    reseal(sweep, labels[0], "# another\n")
    _, place = reproduced(user, sweep, code=5)
    data = comparison(place)
    assert verdicts(data) == {labels[0]: "incomplete", labels[1]: "identical"}
    (stage,) = data["points"][0]["stages"]
    assert (stage["reference"], stage["new"]) == ("completed under another seal", "completed")


def test_other_numbers_of_ranks_are_no_continuation(user):
    sweep = ran(user, "--values", "run=true,echo", "--override", "share=all")
    _, place = reproduced(user, sweep, "--no-wait")
    path = place / "sweep/common.json"
    data = json.loads(path.read_text())
    data["stages"][0]["ranks"] = 2
    path.write_text(json.dumps(data))
    done, _ = reproduced(user, sweep, code=2)
    assert "with other numbers of MPI ranks" in done.stderr


def test_a_manifest_that_contradicts_its_id_is_not_reproduced(user):
    from valska.external_tools.core.utils import sha256_file

    sweep = ran(user, "--values", "run=true,echo")
    path = sweep / "sweep_manifest.json"
    data = json.loads(path.read_text())
    entry = data["points"][0]
    unit = sweep / "points" / entry["label"]
    config, manifest, sums = unit / "config/lines.yaml", unit / "manifest.json", unit / "SHA256SUMS"
    config.write_text(config.read_text() + "then: echo\n")
    known = json.loads(manifest.read_text())
    known["files"][0] |= {"sha256": sha256_file(config), "size": config.stat().st_size}
    manifest.write_text(json.dumps(known))
    outside = sums.read_text().splitlines()[0]
    sums.write_text(f"{outside}\n{sha256_file(config)}  config/lines.yaml\n"
                    f"{sha256_file(manifest)}  manifest.json\n")  # fmt: skip
    entry["seal"] = sha256_file(sums)
    path.write_text(json.dumps(data))
    done, place = reproduced(user, sweep, code=5)
    assert "is not what its bundle id" in done.stderr
    assert not place.exists()


def test_a_sweep_that_has_not_run_has_nothing_to_compare_with(user):
    command = ("sweep", "linetool", "--template", "three", "--runner", "host")
    user.ok(*command, *SHARED, "-o", "sweep")
    done, place = reproduced(user, "sweep", code=3)
    assert "no outputs to compare with" in done.stderr
    assert not place.exists()


def test_a_dry_run_touches_nothing(user):
    sweep = ran(user)
    before = sorted(user.cwd.rglob("*"))
    done, _ = reproduced(user, sweep, "--dry-run")
    assert "wc -l" in done.stdout
    data = json.loads(reproduced(user, sweep, "--dry-run", "--json")[0].stdout)
    assert data["parent"] == sweep_of(sweep)["common_seal"]
    assert len(data["points"]) == 3
    assert sorted(user.cwd.rglob("*")) == before


def test_json_is_the_comparison(user):
    done, place = reproduced(user, ran(user), "--json")
    assert json.loads(done.stdout) == comparison(place)


def test_only_is_for_sweeps_and_another_sweep_in_its_place_is_refused(user):
    bundle = user.bundle()
    user.process("submit", bundle, *LOCAL, "--wait")
    done, _ = reproduced(user, bundle, "--only", "x", code=2)
    assert "--only is for sweeps" in done.stderr
    sweep, other = ran(user), ran(user, output="other")
    reproduced(user, sweep)
    done, _ = reproduced(user, other, code=2)
    assert "does not reproduce" in done.stderr
    done, _ = reproduced(user, bundle, code=2)
    assert "sweep is there, of another reproduction" in done.stderr
    reproduced(user, bundle, output="of a bundle")
    done, _ = reproduced(user, sweep, code=2, output="of a bundle")
    assert "bundle is there, of another reproduction" in done.stderr


# --- archives ------------------------------------------------------------------------------------


@pytest.fixture
def archive(user):
    """Make an archive of a sweep, and remove the sweep."""

    def make(sweep, *args, path=None):
        made = user.cwd / "sweep.tar.zst"
        user.ok("archive", path or sweep, "-o", made, *args)
        shutil.rmtree(sweep)
        return made

    return make


@pytest.mark.parametrize("args", [(), ("--without-outputs",)])
def test_an_archive_alone_says_identical(user, archive, args):
    done, place = reproduced(user, archive(ran(user), *args))
    assert done.stdout.splitlines()[-1] == "identical"
    data = comparison(place)
    assert len(data["points"]) == 3
    there = {out["reference"]["there"] for one in data["points"] for out in one["outputs"]}
    assert there == {not args}
    gone = [note for one in data["points"] for note in one["notes"]]
    assert all(note.startswith("reference: not packed: ") for note in gone)
    assert bool(gone) == bool(args)
    done, _ = reproduced(user, place / "reference", output="of what was unpacked")
    assert done.stdout.splitlines()[-1] == "identical"


def test_an_archive_of_one_point_is_reproduced_as_a_bundle(user, archive):
    sweep = ran(user)
    point = sorted((sweep / "points").iterdir())[0]
    done, place = reproduced(user, archive(sweep, path=point))
    assert done.stdout.splitlines()[-1] == "identical"
    assert (place / "bundle").is_dir()
    done, _ = reproduced(user, place / "reference/data/bundle", code=5, output="as a sweep")
    assert done.stdout.splitlines()[-1] == "incomplete"
    data = comparison(user.cwd / "as a sweep")
    assert sorted(verdicts(data).values()) == ["identical", "incomplete", "incomplete"]
    assert "was left out of the archive" in str(data["points"])


def test_referenced_inputs_are_those_that_were_packed(user, archive):
    source = user.cwd / "mine"
    user.ok("templates", "linetool", "--copy", "three", source)
    config = next(source.glob("*.yaml"))
    command = ("sweep", "linetool", config, "--runner", "host", "--inputs", "reference")
    user.ok(*command, "--values", "run=true,echo", "-o", "sweep")
    assert user.process("submit", "sweep", *LOCAL, "--wait").returncode == 0
    path = archive(user.cwd / "sweep")
    shutil.rmtree(source)
    done, place = reproduced(user, path)
    assert done.stdout.splitlines()[-1] == "identical"
    (entry,) = json.loads((place / "sweep/common.json").read_text())["inputs"]
    assert entry["mode"] == "reference"
    assert entry["source"].startswith(str(place / "reference/data/references"))


def test_a_dry_run_of_an_archive_ends_as_the_run_would(user, archive):
    sweep = ran(user)
    user.ok("archive", sweep, "--inputs", "none", "-o", "light.tar.zst")
    path = archive(sweep)
    before = sorted(user.cwd.rglob("*"))
    data = json.loads(reproduced(user, path, "--dry-run", "--json")[0].stdout)
    assert (len(data["points"]), data["archive"]) == (3, str(path))
    done, _ = reproduced(user, "light.tar.zst", "--dry-run", code=3)
    assert "left out of the archive" in done.stderr
    assert sorted(user.cwd.rglob("*")) == before


def test_a_manifest_that_names_a_file_outside_is_refused(user):
    from valska.external_tools.core.utils import sha256_file

    sweep = ran(user, "--values", "run=true,echo")
    path = sweep / "sweep_manifest.json"
    data = json.loads(path.read_text())
    entry = data["points"][0]
    unit = sweep / "points" / entry["label"]
    manifest, sums = unit / "manifest.json", unit / "SHA256SUMS"
    known = json.loads(manifest.read_text())
    known["files"][0]["path"] = "config/../../../../secret"
    manifest.write_text(json.dumps(known))
    lines = sums.read_text().splitlines()
    sums.write_text("\n".join([*lines[:-1], f"{sha256_file(manifest)}  manifest.json", ""]))
    entry["seal"] = sha256_file(sums)
    path.write_text(json.dumps(data))
    done, place = reproduced(user, sweep, code=5)
    assert f"the manifest of points/{entry['label']}" in done.stderr
    assert not place.exists()


def test_inputs_that_were_left_out_are_missed(user, archive):
    done, _ = reproduced(user, archive(ran(user), "--inputs", "none"), code=3)
    assert "left out of the archive" in done.stderr


def test_inputs_of_one_point_that_were_left_out_come_from_the_store(user, archive, monkeypatch):
    from valska.external_tools.core.kit.supplies import Supplies
    from valska.external_tools.core.utils import sha256_file

    monkeypatch.setenv("VALSKA_IMAGES", str(user.cwd / "store"))
    sweep = ran(user)
    data = sweep / "inputs/data.txt"
    place = Supplies(user.cwd / "store").input_place(sha256_file(data))
    place.parent.mkdir(parents=True)
    content = data.read_bytes()
    point = sorted((sweep / "points").iterdir())[0]
    path = archive(sweep, "--inputs", "none", path=point)
    done, _ = reproduced(user, path, code=3)
    assert "left out of the archive" in done.stderr
    place.write_bytes(content)
    done, _ = reproduced(user, path)
    assert done.stdout.splitlines()[-1] == "identical"


def test_what_is_no_archive_leaves_nothing_behind(user):
    user.write("plain.txt", "no archive\n")
    _, place = reproduced(user, "plain.txt", code=2)
    assert not place.exists()
    place.mkdir()
    reproduced(user, "plain.txt", code=2)
    assert list(place.iterdir()) == []


def test_an_archive_of_a_sweep_that_has_not_run_is_not_left_unpacked(user):
    command = ("sweep", "linetool", "--template", "three", "--runner", "host")
    user.ok(*command, "--values", "run=true,echo", "-o", "sweep")
    user.ok("archive", "sweep", "-o", "never.tar.zst")
    done, place = reproduced(user, "never.tar.zst", code=3)
    assert "packed again" in done.stderr
    assert not place.exists()
