"""``valska reproduce``: a bundle made again from its seal alone, run, and compared."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from valska.cli import reproduce
from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.reproduction import reference
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.schema import validate
from valska.external_tools.core.seal import verify_bundle
from valska.external_tools.core.utils import sha256_file

LOCAL = ("--scheduler", "local")


def ran(user, *args, output="bundle", code=0):
    bundle = user.bundle(*args, output=output)
    done = user.process("submit", bundle, *LOCAL, "--wait")
    assert done.returncode == code, done.stderr
    return bundle


def reproduced(user, path, *args, code=0, output="again"):
    done = user.process("reproduce", path, *LOCAL, "-o", output, *args)
    assert done.returncode == code, done.stdout + done.stderr
    return done, user.cwd / output


def manifest(bundle):
    return json.loads((bundle / "manifest.json").read_text())


def comparison(place):
    data = json.loads((place / "comparison.json").read_text())
    validate(data, "comparison-1", "it")
    return data


def test_a_bundle_says_identical_with_its_origin_gone(user):
    """No configuration, template or input outside of the bundle is read."""
    source = user.cwd / "mine"
    user.ok("templates", "linetool", "--copy", "three", source)
    config = next(source.glob("*.yaml"))
    user.ok("bundle", "linetool", config, "--runner", "host", "-o", "first")
    assert user.process("submit", "first", *LOCAL, "--wait").returncode == 0
    shutil.rmtree(source)
    moved = (user.cwd / "first").rename(user.cwd / "elsewhere")
    done, place = reproduced(user, moved)
    assert done.stdout.splitlines()[-1] == "identical"
    old, new = manifest(moved), manifest(place / "bundle")
    assert new["bundle_id"] == old["bundle_id"] == new["parent"]
    assert old["parent"] is None
    assert new["instance"] != old["instance"]
    assert (new["stages"], new["spec"]) == (old["stages"], old["spec"])
    assert user.ok("verify", place / "bundle").exit_code == 0
    data = comparison(place)
    assert data["verdict"] == "identical"
    assert {one["kind"] for one in data["intent"]} <= {"version"}
    assert data["reference"]["place"] == str(moved)
    assert (place / "comparison.md").read_text().startswith("# Verdict: identical")


def test_the_reference_is_not_changed(user):
    bundle = ran(user)
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    reproduced(user, bundle)
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_what_depends_on_the_clock_is_different_with_numbers(user):
    bundle = ran(user, "--override", "then='; date +%s%N > count.txt'")
    done, place = reproduced(user, bundle, code=5)
    assert done.stdout.splitlines()[-1] == "different"
    assert "comparison.md says what, where and by how much" in done.stderr
    part = comparison(place)["outputs"][0]["parts"][0]
    assert part["largest_absolute"]["value"] > 0
    assert part["largest_absolute"]["index"] == [1, 1]


def test_a_run_that_fails_is_incomplete_and_the_reason_is_told(user):
    flag = user.write("flag", "")
    bundle = ran(user, "--override", "then=" + json.dumps(f"; test -e {shlex.quote(str(flag))}"))
    flag.unlink()
    done, place = reproduced(user, bundle, code=5)
    assert done.stdout.splitlines()[-1] == "incomplete"
    stages = {stage["name"]: stage for stage in comparison(place)["stages"]}
    assert stages["count"]["new"] == "failed"
    assert "exit code 1" in stages["count"]["reason"]
    assert stages["double"]["new"] == "not run"
    assert "the new run is incomplete: stage count: completed in the reference, failed now" in (
        done.stderr
    )
    flag.write_text("")
    done, place = reproduced(user, bundle)
    assert done.stdout.splitlines()[-1] == "identical"
    assert {stage["new"] for stage in comparison(place)["stages"]} == {"completed"}


def test_the_same_command_goes_on_and_runs_nothing_twice(user):
    bundle = ran(user)
    done, place = reproduced(user, bundle, "--no-wait")
    assert done.stdout.splitlines() == [str(place / "bundle")]
    assert not (place / "comparison.json").exists()
    done, _ = reproduced(user, bundle)
    assert done.stdout.splitlines()[-1] == "identical"
    made = manifest(place / "bundle")["instance"]
    records = len(list((place / "bundle/records").iterdir()))
    reproduced(user, bundle)
    assert manifest(place / "bundle")["instance"] == made
    (place / "bundle/jobs.json").unlink()
    done, _ = reproduced(user, bundle)
    assert done.stdout.splitlines()[-1] == "identical"
    assert len(list((place / "bundle/records").iterdir())) == records == 2


def test_an_altered_new_run_is_told_to_be_that(user):
    bundle = ran(user)
    _, place = reproduced(user, bundle)
    (place / "bundle/config/lines.yaml").write_text("data: other\n")
    done, _ = reproduced(user, bundle, code=5)
    assert f"the new run {place}/bundle is not as it was made: " in done.stderr
    assert f"remove {place}/bundle, and it is made again" in done.stderr


def test_another_bundle_in_its_place_is_refused(user):
    bundle, other = ran(user), ran(user, "--override", "then='; true'", output="other")
    reproduced(user, bundle)
    done, _ = reproduced(user, other, code=2)
    assert "does not reproduce" in done.stderr


def test_a_point_of_a_sweep_is_reproduced_as_a_bundle(user):
    user.ok("sweep", "linetool", "--template", "three", "--runner", "host",
            "--values", "run=true,false || true", "-o", "sweep")  # fmt: skip
    assert user.process("submit", "sweep", *LOCAL, "--wait").returncode == 0
    for point in sorted((user.cwd / "sweep/points").iterdir()):
        done, place = reproduced(user, point, output=f"of {point.name[:5]}{len(point.name)}")
        assert done.stdout.splitlines()[-1] == "identical"
        assert manifest(place / "bundle")["bundle_id"] == manifest(point)["bundle_id"]


def test_referenced_inputs_stay_where_they_are(user):
    bundle = ran(user, "--inputs", "reference")
    _, place = reproduced(user, bundle)
    old, new = manifest(bundle), manifest(place / "bundle")
    assert new["inputs"][0]["mode"] == "reference"
    assert new["inputs"][0]["source"] == old["inputs"][0]["source"]


def test_an_altered_bundle_is_not_reproduced(user):
    bundle = ran(user)
    (bundle / "config/lines.yaml").write_text("data: other\n")
    done, place = reproduced(user, bundle, code=5)
    assert "config/lines.yaml" in done.stderr
    assert not place.exists()


def test_a_manifest_that_contradicts_its_id_is_not_reproduced(user):
    bundle = ran(user)
    data = manifest(bundle)
    data["stages"][0]["argv"] = ["bash", "-c", "echo 3 > count.txt"]
    (bundle / "manifest.json").write_text(json.dumps(data))
    sums = bundle / "SHA256SUMS"
    from valska.external_tools.core.utils import sha256_file

    lines = [line for line in sums.read_text().splitlines() if "manifest.json" not in line]
    lines.append(f"{sha256_file(bundle / 'manifest.json')}  manifest.json")
    sums.write_text("\n".join(sorted(lines, key=lambda line: line[66:])) + "\n")
    assert verify_bundle(Bundle(bundle)) == ()
    done, place = reproduced(user, bundle, code=5)
    assert "is not what its bundle id" in done.stderr
    assert not place.exists()


def test_a_bundle_that_has_not_run_has_nothing_to_compare_with(user):
    done, place = reproduced(user, user.bundle(), code=3)
    assert "no outputs to compare with: count is not run" in done.stderr
    assert not place.exists()


def test_a_reference_that_runs_is_to_be_waited_for(user):
    flag = user.cwd / "flag"
    code = f"; until test -e {shlex.quote(str(flag))}; do sleep 0.1; done"
    bundle = user.bundle("--override", "then=" + json.dumps(code))
    user.process("submit", bundle, *LOCAL)
    try:
        until(lambda: any((bundle / "records").glob("*")))
        done, _ = reproduced(user, bundle, code=3)
    finally:
        flag.write_text("")
    assert "count is running" in done.stderr
    assert "when it has ended" in done.stderr
    until(lambda: reproduce.running.read_written(*read(bundle)).states["double"] == "completed")
    reproduced(user, bundle)


def until(done, seconds=20):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def read(path):
    bundle = Bundle(path)
    return bundle, read_manifest(bundle)


def test_an_archive_of_a_run_that_has_not_run_is_to_be_made_again(user):
    user.ok("archive", user.bundle(), "-o", "never.tar.zst")
    done, place = reproduced(user, "never.tar.zst", code=3)
    assert not place.exists()
    place.mkdir()
    reproduced(user, "never.tar.zst", code=3)
    assert list(place.iterdir()) == []
    assert "no outputs to compare with: count is not run" in done.stderr
    assert "packed again" in done.stderr


def test_a_dry_run_touches_nothing(user):
    bundle = ran(user)
    before = sorted(user.cwd.rglob("*"))
    done, _ = reproduced(user, bundle, "--dry-run")
    assert "wc -l" in done.stdout
    data = json.loads(reproduced(user, bundle, "--dry-run", "--json")[0].stdout)
    assert data["parent"] == manifest(bundle)["bundle_id"]
    assert sorted(user.cwd.rglob("*")) == before


def test_json_is_the_comparison(user):
    done, place = reproduced(user, ran(user), "--json")
    assert json.loads(done.stdout) == comparison(place)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--ranks", "0"), "is not of the form"),
        (("--ranks", "x"), "is not of the form"),
        (("--ranks", "nothing=2"), "no stage 'nothing'"),
        (("--ranks", "count=2"), "takes 1 MPI rank only"),
        (("--rtol", "-1"), "is no tolerance"),
        (("--slurm", "nonsense=1"), "nonsense"),
    ],
)
def test_wrong_arguments(user, args, told):
    done, place = reproduced(user, ran(user), *args, code=2)
    assert told in done.stderr
    assert not (place / "bundle").exists()


def test_there_is_no_place_in_a_bundle(user):
    bundle = ran(user)
    done, _ = reproduced(user, bundle, code=2, output=bundle / "again")
    assert "is a bundle or a sweep itself" in done.stderr


def test_a_refused_place_is_not_written_to(user):
    """Neither a bundle, nor a sweep, nor a directory of the user's own files."""
    bundle, other = ran(user, output="run"), user.bundle(output="other")
    command = ("sweep", "linetool", "--template", "three", "--runner", "host")
    user.ok(*command, "--values", "run=true,false", "-o", "survey")
    for number, name in enumerate(("comparison.json", "reference.json", "bundle/my.txt")):
        user.write(f"mine {number}/{name}", '{"my": 1, "valska_version": 2}')
    user.ok("archive", bundle, "-o", "run.tar.zst")
    link = user.cwd / "link"
    link.symlink_to(other, target_is_directory=True)
    before = files(user.cwd)
    for path in (bundle, "run.tar.zst"):
        for place in (other, user.cwd / "survey", link, user.cwd):
            done, _ = reproduced(user, path, code=2, output=place)
            assert "itself" in done.stderr or "holds other files" in done.stderr
        for place in user.cwd.glob("mine *"):
            done, _ = reproduced(user, path, code=2, output=place)
            assert "holds other files" in done.stderr
    assert files(user.cwd) == before
    assert user.ok("verify", other).exit_code == 0


def test_two_at_once_in_one_place_are_kept_apart(user):
    """The second says who is at work there, and how to follow it; no job is doubled."""
    flag = user.cwd / "flag"
    flag.write_text("")
    code = f"; until test -e {shlex.quote(str(flag))}; do sleep 0.1; done"
    bundle = ran(user, "--override", "then=" + json.dumps(code))
    flag.unlink()
    command = [sys.executable, "-m", "valska", "reproduce", bundle, *LOCAL, "-o", "again"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE) as first:
        try:
            until(lambda: (user.cwd / "again/bundle/jobs.json").exists())
            for _ in range(2):
                done, place = reproduced(user, bundle, code=4)
                assert f"process {first.pid} on {os.uname().nodename} is reproducing" in done.stderr
                assert "remove" not in done.stderr
                assert f"`valska status {shlex.quote(f'{place}/bundle')}`" in done.stderr
        finally:
            flag.write_text("")
        assert first.wait(60) == 0
    assert sorted(path.name for path in place.iterdir()) == [
        "bundle", "comparison.json", "comparison.md"
    ]  # fmt: skip
    assert len(list((place / "bundle/records").iterdir())) == 2


def test_many_at_the_same_moment_make_one(user):
    bundle = ran(user)
    command = [sys.executable, "-m", "valska", "reproduce", bundle, *LOCAL, "-o", "again"]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    told = [one.communicate(timeout=120)[1] for one in started]
    codes = [one.returncode for one in started]
    assert 0 in codes
    assert set(codes) <= {0, 4}, told
    lost = [text for text, code in zip(told, codes, strict=True) if code == 4]
    assert all("working on" in text or "is reproducing in" in text for text in lost)
    assert len(list((user.cwd / "again/bundle/records").iterdir())) == 2


def test_the_lock_of_a_killed_call_is_taken_over(user):
    bundle = ran(user)
    child = subprocess.run([sys.executable, "-c", LOCKER, user.cwd / "again"], check=False)
    assert child.returncode == -signal.SIGKILL
    assert list((user.cwd / "again").iterdir())
    done, place = reproduced(user, bundle)
    assert done.stdout.splitlines()[-1] == "identical"
    assert not list(place.glob(".*"))


def test_a_call_on_another_host_may_have_died_there(user):
    bundle = ran(user)
    subprocess.run([sys.executable, "-c", LOCKER, user.cwd / "again"], check=False)
    lock = user.cwd / "again/.reproduce.lock"
    owner = json.loads((lock / "owner.json").read_text())
    (lock / "owner.json").write_text(json.dumps({**owner, "host": "another"}))
    done, _ = reproduced(user, bundle, code=4)
    assert f"process {owner['pid']} on another is reproducing" in done.stderr
    assert f"If it has died on another, remove the directory {lock}." in done.stderr


LOCKER = """
import os, signal, sys
from pathlib import Path
from valska.external_tools.core.reproduction.taking import at_work
with at_work(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_call_left_that_was_killed_while_unpacking_is_in_nobodys_way(user):
    user.ok("archive", ran(user), "-o", "run.tar.zst")
    user.write("again/reference.json", json.dumps({"archive": "another.tar.zst", "end": "00"}))
    done, _ = reproduced(user, "run.tar.zst")
    assert done.stdout.splitlines()[-1] == "identical"


def test_a_place_that_is_taken_has_a_hint_that_holds_here(user):
    bundle = ran(user)
    _, place = reproduced(user, bundle)
    shutil.rmtree(place / "bundle")
    user.write("again/bundle/mine", "")
    done, _ = reproduced(user, bundle, code=2)
    assert "bundle exists already" in done.stderr
    assert "Choose another directory with -o DIR." in done.stderr
    assert "--unique" not in done.stderr


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_killed_call_left_behind_takes_no_place(user):
    bundle = ran(user)
    user.write("again/.bundle.0123456789ab.partial/manifest.json", "{}")
    user.write("again/.sweep.0123456789ab.partial/manifest.json", "{}")
    done, place = reproduced(user, bundle)
    assert done.stdout.splitlines()[-1] == "identical"
    assert "that was killed" not in done.stderr
    assert not list(place.glob(".*"))


def test_the_comparison_alone_keeps_its_place_for_the_same_reference(user):
    bundle, other = ran(user), ran(user, "--override", "then='; true'", output="other")
    _, place = reproduced(user, bundle)
    shutil.rmtree(place / "bundle")
    before = files(place)
    done, _ = reproduced(user, other, code=2)
    assert "holds other files" in done.stderr
    assert files(place) == before
    reproduced(user, bundle)


@pytest.mark.parametrize("name", ["run", "run.tar.zst", "run.tar", "run/config/.."])
def test_the_place_is_named_after_what_is_reproduced(name):
    assert str(reproduce._place(reproduce.Path("there") / name)) == "run-reproduction"


# --- archives ------------------------------------------------------------------------------------


@pytest.fixture
def archive(user):
    """Make an archive of a run, and remove the run."""

    def make(bundle, *args):
        path = user.cwd / "run.tar.zst"
        path.unlink(missing_ok=True)
        user.ok("archive", bundle, "-o", path, *args)
        shutil.rmtree(bundle)
        return path

    return make


def test_an_option_that_cannot_be_read_is_refused_before_unpacking(user, archive):
    _, place = reproduced(user, archive(ran(user)), "--ranks", "x", code=2)
    assert not place.exists()


def test_an_archive_says_identical_with_everything_else_gone(user, archive):
    bundle = ran(user, "--inputs", "reference")
    done, place = reproduced(user, archive(bundle))
    assert done.stdout.splitlines()[-1] == "identical"
    made = read_manifest(Bundle(place / "bundle"))
    assert made.inputs[0].source.startswith(str(place / "reference"))


def test_an_archive_without_outputs_is_compared_by_its_digests(user, archive):
    done, place = reproduced(user, archive(ran(user), "--without-outputs"))
    assert done.stdout.splitlines()[-1] == "identical"
    assert not any(one["reference"]["there"] for one in comparison(place)["outputs"])
    (note,) = [one for one in comparison(place)["notes"] if one.startswith("reference: ")]
    assert note.startswith("reference: not packed: outputs/count.txt and 1 more")


def test_what_was_unpacked_is_taken_again_but_not_for_another_archive(user, archive):
    path = archive(ran(user))
    _, place = reproduced(user, path)
    inode = (place / "reference").stat().st_ino
    reproduced(user, path)
    assert (place / "reference").stat().st_ino == inode
    other = archive(ran(user, "--override", "then='; true'"))
    done, _ = reproduced(user, other, code=2)
    assert "was not unpacked from" in done.stderr


def test_an_unpacked_archive_is_one_too(user, archive):
    user.ok("unpack", archive(ran(user)), "-o", "unpacked")
    for path, output in (("unpacked", "a"), ("unpacked/data/bundle", "b")):
        done, _ = reproduced(user, path, output=output)
        assert done.stdout.splitlines()[-1] == "identical"


def test_an_archive_that_is_damaged_is_not_reproduced(user, archive):
    path = archive(ran(user))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = user.process("reproduce", path, *LOCAL, "-o", "again")
    assert done.returncode != 0
    assert not (user.cwd / "again/reference").exists()
    assert not (user.cwd / "again/bundle").exists()


def test_inputs_that_were_left_out_are_missed(user, archive):
    done, _ = reproduced(user, archive(ran(user), "--inputs", "none"), code=3)
    assert "left out of the archive" in done.stderr


def test_all_inputs_that_are_missing_are_named_at_once(user):
    located = reference.locate(user.bundle("--inputs", "reference"), user.cwd)
    (entry,) = located.manifest.inputs
    gone = [
        replace(entry, path=f"inputs/{name}", sha256=digit * 64, source=str(user.cwd / name))
        for name, digit in (("one", "1"), ("two", "2"))
    ]
    located = replace(located, manifest=replace(located.manifest, inputs=(entry, *gone)))
    with pytest.raises(PrerequisiteError) as caught:
        reference.open_parent(located, user.cwd / "store")
    told = f"inputs/one ({user.cwd / 'one'}), inputs/two ({user.cwd / 'two'})"
    assert told in caught.value.message
    assert entry.path not in caught.value.message


def test_a_dry_run_of_an_archive_finds_what_is_missing_and_writes_nothing(user, archive):
    path = archive(ran(user, "--inputs", "reference"))
    before = files(user.cwd)
    done, place = reproduced(user, path, "--dry-run")
    assert f"{path} into {place}/reference" in done.stdout
    assert "wc -l" in done.stdout
    data = json.loads(reproduced(user, path, "--dry-run", "--json")[0].stdout)
    assert (data["archive"], data["directory"]) == (str(path), str(place))
    assert reproduced(user, path, "--dry-run", "--ranks", "2", code=2)
    assert files(user.cwd) == before
    reproduced(user, path)
    done, _ = reproduced(user, path, "--dry-run")
    assert "into" not in done.stdout
    assert "bundle, which is there" in done.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--inputs", "none"), "left out of the archive"),
        (("--inputs", "copied"), "inputs/data.txt (/"),
    ],
)
def test_a_dry_run_ends_as_the_run_would(user, archive, args, told):
    source = user.cwd / "mine"
    user.ok("templates", "linetool", "--copy", "three", source)
    mode = "reference" if "copied" in args else "copy"
    config = next(source.glob("*.yaml"))
    command = ("bundle", "linetool", config, "--runner", "host", "--inputs", mode)
    user.ok(*command, "-o", "first")
    assert user.process("submit", "first", *LOCAL, "--wait").returncode == 0
    path = archive(user.cwd / "first", *args)
    shutil.rmtree(source)
    for more in (("--dry-run",), ()):
        done, place = reproduced(user, path, *more, code=3)
        assert told in done.stderr
        assert not (place / "bundle").exists()
        assert place.exists() == (not more)


def test_a_dry_run_of_an_archive_that_was_packed_too_early(user):
    user.ok("archive", user.bundle(), "-o", "never.tar.zst")
    done, _ = reproduced(user, "never.tar.zst", "--dry-run", code=3)
    assert "Error: never.tar.zst has no outputs to compare with" in done.stderr
    assert "packed again" in done.stderr


def test_the_store_can_be_named(user, archive):
    bundle = ran(user)
    data = bundle / "inputs/data.txt"
    place = Supplies(user.cwd / "store").input_place(sha256_file(data))
    place.parent.mkdir(parents=True)
    shutil.copy(data, place)
    path = archive(bundle, "--inputs", "none")
    reproduced(user, path, "--dry-run", code=3)
    done, _ = reproduced(user, path, "--images", user.cwd / "store")
    assert done.stdout.splitlines()[-1] == "identical"


def test_a_directory_with_a_bundle_in_it_is_told(user, archive):
    _, place = reproduced(user, archive(ran(user)))
    shutil.rmtree(place / "reference")
    done, _ = reproduced(user, place, code=3, output="other")
    assert f"{place}/bundle" in done.stderr.partition("Hint:")[2]
    assert not (user.cwd / "other").exists()


def test_a_file_that_is_no_archive(user):
    done, _ = reproduced(user, user.write("x.tar.zst", "no"), code=2)
    assert "Error:" in done.stderr
    done, _ = reproduced(user, "nowhere", code=3, output="other")
    assert "no such bundle, sweep or archive" in done.stderr
    assert not (user.cwd / "other").exists()
