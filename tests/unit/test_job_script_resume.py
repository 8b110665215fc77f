"""Job scripts that go on from an earlier attempt, outputs with patterns, borrowed directories."""

import os
import shutil
import signal
import subprocess

import pytest
from processes import children, wait_until
from sweeps import make_list, make_sweep, shell
from toy import bundle

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import FindingKind, seal_of, verify_bundle
from valska.external_tools.core.site import Site, write_site_env
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.tool import Resume
from valska.external_tools.core.trees import digest_tree

# A chain as a sampler leaves it: told nothing it starts a new one, told its name it goes on. The
# first attempt waits to be stopped.
CHAIN = """
name=MN-$((100 + $(ls -d fit/MN-* 2>/dev/null | wc -l)))-v1
[[ $1 == --from ]] && name=$2
mkdir -p "fit/$name"
echo "$@" >>"fit/$name/resume.dat"
[[ $1 == --from ]] || exec sleep 60
touch "fit/$name/stats.dat"
"""
FIT = {
    "argv": ("bash", "-c", CHAIN, "chain"),
    "outputs": ("fit/MN-*/stats.dat",),
    "resume": Resume("fit/MN-*/resume.dat", "--from"),
}


def fit(**more):
    return shell("", **{**FIT, **more})


def stop(process):
    """Stop a job as Slurm does at the time limit, once its payload waits."""
    wait_until(lambda: children(process.pid).get("sleep"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


@pytest.mark.parametrize("staging", [StagingMode.COPY, StagingMode.REFERENCE])
def test_resume_goes_on_from_what_a_stopped_attempt_left(tmp_path, scripts, records, staging):
    made = bundle(tmp_path, [fit()], staging=staging)
    stop(scripts.start(made))
    chain = made.outputs / "fit/MN-100-v1"
    assert (chain / "resume.dat").read_text() == "\n"
    code, _, err = scripts.run(made, seal_of(made), "--resume")
    assert code == 0, err
    assert (chain / "resume.dat").read_text() == "\n--from MN-100-v1\n"
    first, second = records(made)
    assert (first["state"], first["resumed_from"]) == ("signalled", None)
    assert (second["state"], second["resumed_from"]) == ("completed", "outputs/fit/MN-100-v1")
    assert second["set_aside"] is None
    assert second["runner"]["command"][-2:] == ["--from", "MN-100-v1"]
    assert [output["path"] for output in second["outputs"]] == [
        "outputs/fit/MN-100-v1/resume.dat",
        "outputs/fit/MN-100-v1/stats.dat",
    ]
    assert not (made.path / "outputs.1").exists()
    assert verify_bundle(made) == ()


def test_without_the_option_an_attempt_starts_anew(tmp_path, scripts, records):
    made = bundle(tmp_path, [fit()])
    for _ in range(2):
        stop(scripts.start(made))
    assert (made.path / "outputs.1/fit/MN-100-v1/resume.dat").exists()
    assert (made.outputs / "fit/MN-100-v1/resume.dat").read_text() == "\n"
    assert [record["set_aside"] for record in records(made)] == [None, "outputs.1"]
    assert [record["resumed_from"] for record in records(made)] == [None, None]


def test_requeued_job_goes_on(tmp_path, scripts, records):
    made = bundle(tmp_path, [fit()])
    stop(scripts.start(made))
    spool = shutil.copy(made.script("simulate"), tmp_path / "slurm_script")
    env = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"}
    assert scripts.run(made, script=spool, env=env)[0] == 0
    assert records(made)[-1]["resumed_from"] == "outputs/fit/MN-100-v1"


def test_newest_of_several_is_taken(tmp_path, scripts, records):
    made = bundle(tmp_path, [fit()])
    for number, name in enumerate(["MN-2-v1", "MN-3 odd-v1", "MN-1-v1"]):
        path = made.outputs / "fit" / name / "resume.dat"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1000 + number % 2, 1000 + number % 2))
    assert scripts.run(made, "--resume")[0] == 0
    assert records(made)[-1]["resumed_from"] == "outputs/fit/MN-3 odd-v1"
    assert records(made)[-1]["runner"]["command"][-1] == "MN-3 odd-v1"


def test_nothing_to_go_on_from_is_a_fresh_start(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell("cp ../inputs/data.txt out.txt")])
    assert scripts.run(made)[0] == 0
    code, _, err = scripts.run(made, "--resume")
    assert (code, "nothing to go on from" in err) == (0, True)
    assert records(made)[-1]["set_aside"] == "outputs.1"
    assert records(made)[-1]["resumed_from"] is None


def test_resume_of_a_point(tmp_path, scripts, records):
    sweep = make_sweep(tmp_path, [fit()])
    stop(scripts.start(sweep.bundle, "points/a"))
    arguments = make_list(sweep, ["points/b", "points/a"])
    spool = shutil.copy(sweep.bundle.script("simulate"), tmp_path / "slurm_script")
    env = {"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "1"}
    more = {"script": spool, "env": env}
    assert scripts.run(sweep.bundle, *arguments, "--resume", **more) == (0, "", "")
    point = sweep.point("a")
    assert records(point)[-1]["resumed_from"] == "outputs/fit/MN-100-v1"
    assert (point.outputs / "fit/MN-100-v1/resume.dat").read_text() == "\n--from MN-100-v1\n"


# --- Outputs with patterns ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "written", "code"),
    [
        ("fit/MN-*/stats.dat", "fit/MN-1/stats.dat", 0),
        ("fit/MN-*/stats.dat", "fit/MN-1/more/stats.dat", 66),
        ("fit/MN-*/stats.dat", "fit/xMN-1/stats.dat", 66),
        ("m/**/T.h5", "m/T.h5", 0),
        ("m/**/T.h5", "m/a b/.c/T.h5", 0),
        ("m/**/T.h5", "m/a/T.h5x", 66),
        ("m/*", "m/.hidden", 0),
        ("m[ab]/*.txt", "m[ab]/é.txt", 0),
        ("m[ab]/*.txt", "ma/x.txt", 66),
        ("m?/*.txt", "mx/x.txt", 66),
        ("m\\/*$x", "m\\/1$x", 0),
    ],
)
def test_pattern_needs_at_least_one_match(tmp_path, scripts, records, declared, written, code):
    text = 'mkdir -p "${1%/*}" && : >"$1"'
    made = bundle(
        tmp_path, [shell("", argv=("bash", "-c", text, "bash", written), outputs=(declared,))]
    )
    assert scripts.run(made)[0] == code
    assert records(made)[0]["missing_outputs"] == ([declared] if code else [])


def test_stage_owns_what_stands_before_the_pattern(tmp_path, scripts, records):
    made = bundle(
        tmp_path,
        [
            shell("mkdir -p m/a; : >m/T.h5; : >m/a/log", "first", outputs=("m/**/T.h5",)),
            shell("mkdir -p n; : >n/x", "second", outputs=("n/*",)),
        ],
    )
    for name in ("first", "second", "first"):
        assert scripts.run(made, stage=name)[0] == 0
    paths = [output["path"] for output in records(made, "first")[-1]["outputs"]]
    assert paths == ["outputs/m/T.h5", "outputs/m/a/log"]
    assert (made.path / "outputs.1/m/a/log").exists()
    assert not (made.path / "outputs.1/n").exists()
    assert (made.outputs / "n/x").exists()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("m/**/x",), ("m/y",)),
        (("*",), ("y",)),
        (("d",), ("d/e",)),
        (("d/e",), ("d/*",)),
        (("x",), ("x",)),
    ],
)
def test_two_stages_cannot_own_one_place(tmp_path, first, second):
    stages = [shell(":", "first", outputs=first), shell(":", "second", outputs=second)]
    with pytest.raises(ValskaError, match="first and second both write"):
        bundle(tmp_path, stages)


@pytest.mark.parametrize("lends", ["a/b", "other", "m*"])
def test_stage_lends_a_directory_of_its_own_right_in_the_outputs(tmp_path, lends):
    stages = [shell(":", "first", outputs=("m/**/x", "a/b/*"), lends=(lends,))]
    with pytest.raises(ValskaError, match=r"lends|lent"):
        bundle(tmp_path, stages)


# --- Borrowed directories -------------------------------------------------------------------------

READ = shell("cat matrices/deep/T.h5 ../config/run.yaml >out.txt")


@pytest.fixture
def matrices(tmp_path):
    folder = tmp_path / "mat, rices"
    for name in ("deep/T.h5", "a", "a-b", "a.b", "a b/é", "Z", ".hidden/x"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    (folder / "empty").mkdir()
    return folder


def borrowing(folder, matrices, stages=(READ,), **more):
    return bundle(folder, list(stages), tool={"borrowed": {"matrices": matrices}}, **more)


def test_tree_digest_is_that_of_coreutils(matrices):
    command = "find . -type f -printf '%P\\n' | sort | xargs -d '\\n' sha256sum | sha256sum"
    env = {**os.environ, "LC_ALL": "C"}
    out = subprocess.check_output(["bash", "-c", command], cwd=matrices, env=env, text=True)
    tree = digest_tree(matrices)
    assert out.split()[0] == tree.sha256
    sizes = [path.stat().st_size for path in matrices.rglob("*") if path.is_file()]
    assert (tree.files, tree.size) == (7, sum(sizes))


def test_borrowed_directory_is_read_where_it_would_have_been_made(
    tmp_path, scripts, records, matrices
):
    made = borrowing(tmp_path, matrices)
    (entry,) = read_manifest(made).borrowed
    tree = digest_tree(matrices)
    assert (entry.path, entry.source) == ("outputs/matrices", str(matrices))
    assert (entry.sha256, entry.files, entry.size) == (tree.sha256, tree.files, tree.size)
    for _ in range(2):
        code, _, err = scripts.run(made)
        assert code == 0, err
        assert (made.outputs / "out.txt").read_text() == "deep/T.h5\nanswer: 42\n"
        assert [output["path"] for output in records(made)[-1]["outputs"]] == ["outputs/out.txt"]
    assert verify_bundle(made) == ()
    assert digest_tree(matrices) == tree
    assert scripts.left_over() == []


def test_bundle_id_depends_on_what_is_borrowed(tmp_path, matrices):
    one = read_manifest(borrowing(tmp_path, matrices, output=tmp_path / "one")).bundle_id
    same = read_manifest(borrowing(tmp_path, matrices, output=tmp_path / "two")).bundle_id
    (matrices / "a").write_text("other\n")
    other = read_manifest(borrowing(tmp_path, matrices, output=tmp_path / "three")).bundle_id
    assert one == same != other


def _alter(matrices):
    (matrices / "deep/T.h5").write_text("deep/t.h5\n")


def _add(matrices):
    (matrices / "empty/more").write_text("")


def _link(matrices):
    (matrices / "link").symlink_to("a")


def _newline(matrices):
    (matrices / "a\nb").write_text("x")


@pytest.mark.parametrize("change", [_alter, _add, _link, _newline])
def test_altered_borrowed_directory_is_refused_and_found(
    tmp_path, scripts, records, matrices, change
):
    made = borrowing(tmp_path, matrices)
    change(matrices)
    code, _, err = scripts.run(made)
    assert (code, "was altered since" in err) == (5, True), err
    assert records(made)[0]["state"] == "refused"
    (finding,) = verify_bundle(made)
    assert (finding.kind, finding.path) == (FindingKind.ALTERED, "outputs/matrices")


def test_borrowed_directory_that_moved_is_found_through_site_env(
    tmp_path, scripts, records, matrices
):
    made = borrowing(tmp_path, matrices)
    moved = matrices.rename(tmp_path / "mo'ved $x")
    code, _, err = scripts.run(made)
    assert (code, "outputs/matrices" in err) == (3, True)
    assert [finding.kind for finding in verify_bundle(made)] == [FindingKind.MISSING]
    write_site_env(made.site_env, Site(references={"outputs/matrices": str(moved)}))
    assert verify_bundle(made) == ()
    assert scripts.run(made)[0] == 0


def test_signal_while_a_borrowed_directory_is_read(tmp_path, scripts, records, matrices):
    made = borrowing(tmp_path, matrices)
    with (matrices / "large").open("wb") as file:
        file.truncate(1 << 36)
    process = scripts.start(made)
    wait_until(lambda: list(scripts.scratch.glob("valska-*/digests")))
    wait_until(lambda: {"openssl", "sha256sum"} & children(process.pid).keys())
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert records(made)[0]["state"] == "signalled"


def test_what_cannot_be_borrowed(tmp_path, matrices):
    with pytest.raises(UsageError, match="no such directory"):
        borrowing(tmp_path, tmp_path / "absent")
    with pytest.raises(ValskaError, match="both write matrices/x"):
        borrowing(tmp_path, matrices, [shell(":", outputs=("matrices/x",))])
    (matrices / "link").symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match="neither a file nor a directory"):
        borrowing(tmp_path, matrices)


def test_points_borrow_too(tmp_path, scripts, matrices):
    sweep = make_sweep(tmp_path, [READ], tool={"borrowed": {"matrices": matrices}})
    (entry,) = read_manifest(sweep.point("b")).borrowed
    assert entry.sha256 == digest_tree(matrices).sha256
    assert scripts.run(sweep.bundle, "points/b")[0] == 0
    assert (sweep.point("b").outputs / "out.txt").read_text() == "deep/T.h5\nunit: b\n"
    _alter(matrices)
    assert scripts.run(sweep.bundle, "points/a")[0] == 5


# --- What lies elsewhere, in verify ---------------------------------------------------------------


def test_input_that_moved_is_verified_where_site_env_says(tmp_path):
    made: Bundle = bundle(tmp_path, staging=StagingMode.REFERENCE)
    moved = (tmp_path / "data.txt").rename(tmp_path / "mo'v\"ed $x")
    assert [finding.kind for finding in verify_bundle(made)] == [FindingKind.MISSING]
    write_site_env(made.site_env, Site(references={"inputs/data.txt": str(moved)}))
    assert verify_bundle(made) == ()
    moved.write_text("hellO\n")
    (finding,) = verify_bundle(made)
    assert (finding.kind, str(moved) in finding.detail) == (FindingKind.ALTERED, True)
