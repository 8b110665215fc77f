"""Bundling: whole or not at all, the same from anywhere, and nothing that leads outside."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_as_nobody
from toy import bundle, data_file, request, stage

from valska.external_tools.core.bundling import BundledImage, create, draft
from valska.external_tools.core.directives import DirectiveError
from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle, RunDirectoryError
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.seal import verify_bundle
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.utils import sha256_bytes

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def image_of(folder, data=b"an image"):
    sif = folder / "toy.sif"
    sif.write_bytes(data)
    return BundledImage(path=sif, sha256=sha256_bytes(data), size=len(data))


# --- What is in it --------------------------------------------------------------------------------


def test_layout(tmp_path):
    made = bundle(tmp_path)
    assert set(tree(made.path)) == {
        "README.md", "SHA256SUMS", "config", "config/run.yaml", "containers", "inputs",
        "inputs/data.txt", "logs", "manifest.json", "outputs", "records", "site.env",
        "submit_simulate.sh",
    }  # fmt: skip
    assert (made.inputs / "data.txt").read_text() == "hello\n"
    assert verify_bundle(made) == ()


def test_place_below_the_results_root(tmp_path):
    asked = request(tmp_path, output=None, results_root=tmp_path / "results")
    assert draft(asked).path == tmp_path / "results/toy/plain/r1"
    assert create(draft(asked)).path == tmp_path / "results/toy/plain/r1"


def test_unique_appends_the_time(tmp_path):
    asked = request(tmp_path, output=None, results_root=tmp_path, unique=True)
    assert draft(asked).path.parent == tmp_path / "toy/plain/r1"


def test_relative_output_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle(tmp_path, output=Path("here")).path == tmp_path / "here"


def test_dry_run_writes_nothing(tmp_path):
    asked = request(tmp_path)
    before = tree(tmp_path)
    drafted = draft(asked)
    assert [one.name for one in drafted.plan.stages] == ["simulate"]
    assert tree(tmp_path) == before


def test_no_place(tmp_path):
    with pytest.raises(UsageError, match="no place") as caught:
        draft(request(tmp_path, output=None))
    assert "-o" in caught.value.hint


def test_no_image(tmp_path):
    with pytest.raises(PrerequisiteError, match="no image") as caught:
        draft(request(tmp_path, runner=RunnerKind.CONTAINER))
    assert "toy.def" in caught.value.hint


def test_embedded_image(tmp_path):
    image = image_of(tmp_path)
    made = bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER, embed_image=True)
    assert (made.containers / "toy.sif").read_bytes() == b"an image"
    assert read_manifest(made).image["embedded"] == "containers/toy.sif"
    image.path.unlink()
    assert verify_bundle(made) == ()


def test_image_that_is_not_what_its_record_says_is_not_embedded(tmp_path):
    image = image_of(tmp_path)
    image.path.write_bytes(b"other")
    with pytest.raises(ValskaError, match="is not the image"):
        bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER, embed_image=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.txt", "toy.sif"]


# --- Identity -------------------------------------------------------------------------------------


def identity(folder, *arguments, **more):
    folder.mkdir()
    return read_manifest(bundle(folder, *arguments, **more)).bundle_id


def test_same_spec_from_two_places_is_byte_identical_and_has_one_id(tmp_path):
    ids, configs = set(), []
    for name in ("one", "two, 'q'"):
        ids.add(identity(tmp_path / name))
        configs.append(tree(tmp_path / name / "bundle/config"))
    assert len(ids) == 1
    assert configs[0] == configs[1]


def test_science_changes_the_id_and_nothing_else_does(tmp_path):
    same = identity(tmp_path / "base")
    other_text = tmp_path / "other.txt"
    other_text.write_text("other\n")
    changed = [
        identity(tmp_path / "config", tool={"configs": {"run.yaml": b"answer: 43\n"}}),
        identity(tmp_path / "argv", [stage(argv=("cp", "a", "b"))]),
        identity(tmp_path / "ranks", [stage(ranks=2)]),
        identity(tmp_path / "input", inputs={"data.txt": other_text}),
        identity(tmp_path / "image", image=image_of(tmp_path)),
        identity(tmp_path / "other-image", image=image_of(tmp_path, b"another")),
    ]
    assert len({same, *changed}) == len(changed) + 1
    unchanged = [
        identity(tmp_path / "run", run_id="another"),
        identity(tmp_path / "time", spec={"directives": {"simulate": {"time": "99"}}}),
        identity(tmp_path / "link", staging=StagingMode.LINK),
        identity(tmp_path / "reference", staging=StagingMode.REFERENCE),
        identity(tmp_path / "limit", copy_limit=1),
        identity(tmp_path / "parent", parent="0" * 64),
        identity(tmp_path / "env", [stage(outputs=("other.txt",))]),
        identity(tmp_path / "root", results_root=tmp_path),
    ]
    assert set(unchanged) == {same}


def test_two_bundles_of_one_science_are_told_apart(tmp_path):
    one, two = (bundle(tmp_path, output=tmp_path / name) for name in "ab")
    assert read_manifest(one).instance != read_manifest(two).instance


# --- Refused, and nothing left --------------------------------------------------------------------


def refused(folder, error, match, **more):
    before = tree(folder)
    with pytest.raises(error, match=match) as caught:
        create(draft(request(folder, **more)))
    after = tree(folder)
    after.pop("data.txt", None)
    before.pop("data.txt", None)
    assert after == before
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "run_id", ["a/b", "..", ".", "", "a\nb", "a\n", "a\0", "-a", ".hidden", "a b", "é", "x" * 129]
)
@pytest.mark.parametrize("placed", [True, False])
def test_unusable_run_ids(tmp_path, run_id, placed):
    more = {} if placed else {"output": None, "results_root": tmp_path / "results"}
    error = refused(tmp_path, UsageError, "run id", run_id=run_id, **more)
    assert error.exit_code == 2
    assert error.hint


@pytest.mark.parametrize("level", ["a/b", "..", "", "a\nb"])
def test_unusable_levels_of_the_tree(tmp_path, level):
    refused(
        tmp_path,
        UsageError,
        "model level",
        tool={"taxonomy": {"model": level}},
        output=None,
        results_root=tmp_path,
    )


LEADS_OUT = ["../out", "a/../../../out", "..", "/tmp/valska-unit-out", "a/./b", "", "a/", "a\nb"]


@pytest.mark.parametrize("name", LEADS_OUT)
def test_configuration_that_would_leave_its_directory(tmp_path, name):
    error = refused(tmp_path, UsageError, None, tool={"configs": {name: b"x"}})
    assert error.exit_code == 2
    assert not Path("/tmp/valska-unit-out").exists()


@pytest.mark.parametrize("mode", StagingMode)
@pytest.mark.parametrize("name", LEADS_OUT)
def test_input_that_would_leave_its_directory(tmp_path, name, mode):
    data = data_file(tmp_path)
    refused(tmp_path, UsageError, None, inputs={name: data}, staging=mode)
    assert not Path("/tmp/valska-unit-out").exists()


def test_input_that_is_missing_or_a_directory_or_special(tmp_path):
    gone = tmp_path / "gone"
    assert str(gone) in refused(tmp_path, UsageError, None, inputs={"a": gone}).message
    assert refused(tmp_path, UsageError, "is a directory", inputs={"a": tmp_path}).hint
    refused(tmp_path, UsageError, "no such file", inputs={"a": Path("/dev/zero")})
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    refused(tmp_path, UsageError, None, inputs={"a": loop})


@ROOT
@pytest.mark.parametrize("mode", StagingMode)
def test_input_that_is_unreadable(tmp_path, mode):
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    open_to_all(tmp_path)

    def attempt():
        with pytest.raises(UsageError, match="cannot be read") as caught:
            bundle(tmp_path, inputs={"a": secret}, staging=mode)
        assert caught.value.exit_code == 2

    assert run_as_nobody(attempt)
    assert set(tree(tmp_path)) == {"secret"}


@ROOT
def test_place_that_cannot_be_written(tmp_path):
    data_file(tmp_path)
    open_to_all(tmp_path)
    tmp_path.chmod(0o755)
    inputs = {"data.txt": tmp_path / "data.txt"}

    def attempt():
        with pytest.raises(RunDirectoryError, match="Permission denied"):
            bundle(tmp_path, inputs=inputs)

    assert run_as_nobody(attempt)
    assert set(tree(tmp_path)) == {"data.txt"}


def open_to_all(folder):
    for path in folder.parents:
        if path not in (Path("/"), Path("/tmp")):
            path.chmod(0o755)
    folder.chmod(0o777)


@pytest.mark.parametrize(
    ("name", "value"),
    [("comment", "a\nb"), ("comment", "a\x1bb"), ("Time", "1"), ("a b", "1"), ("x=y", "1")],
)
def test_unusable_directives(tmp_path, name, value):
    spec = {"directives": {"simulate": {name: value}}}
    assert refused(tmp_path, (UsageError, DirectiveError), None, spec=spec).exit_code == 2


@pytest.mark.parametrize(
    "planned",
    [
        stage(argv=("cp", "a\0b")),
        stage(argv=("cp", "a\udcff")),
        stage(env={"A=B": "1"}),
        stage(env={"A": "\0"}),
        stage(name="Upper"),
        stage(name="a\nb"),
        stage(outputs=("a\0",)),
    ],
)
def test_unusable_stages(tmp_path, planned):
    assert refused(tmp_path, UsageError, None, stages=[planned]).exit_code == 2


def test_two_inputs_at_one_place(tmp_path):
    one, two = data_file(tmp_path), tmp_path / "two"
    two.write_text("two\n")
    refused(tmp_path, ValskaError, None, inputs={"d/a": one, "d": two})


def test_existing_destination_is_refused_and_untouched(tmp_path):
    first = bundle(tmp_path)
    before = tree(first.path)
    assert refused(tmp_path, RunDirectoryError, "exists already").exit_code == 2
    assert tree(first.path) == before


def test_file_as_destination_is_refused_and_untouched(tmp_path):
    (tmp_path / "bundle").write_text("mine")
    refused(tmp_path, RunDirectoryError, "exists already")


def test_file_on_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(tmp_path, RunDirectoryError, None, output=tmp_path / "file" / "bundle")


def test_empty_directory_as_destination_is_used(tmp_path):
    (tmp_path / "bundle").mkdir()
    assert verify_bundle(bundle(tmp_path)) == ()


@ROOT
@pytest.mark.parametrize("mode", [StagingMode.COPY, StagingMode.REFERENCE])
def test_full_disk_gives_one_error_and_leaves_nothing(tmp_path, mode):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        data = tmp_path / "large"
        data.write_bytes(b"x" * 100_000)
        for filled in range(16, 40, 4):
            (disk / "ballast").write_bytes(b"x" * filled * 1024)
            with pytest.raises(ValskaError, match="space") as caught:
                bundle(tmp_path, inputs={"a": data}, output=disk / "bundle", staging=mode)
            assert caught.value.hint
            assert [path.name for path in disk.iterdir()] == ["ballast"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- Killed at any point --------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy import bundle
folder, last = Path(sys.argv[1]), 0
bundle(folder, output=folder / "warm")

def step(event, arguments):
    global count
    if event.split(".")[0] in ("open", "os", "fcntl", "subprocess", "shutil"):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

while True:
    last += 1
    here = folder / str(last)
    here.mkdir()
    pid = os.fork()
    if pid == 0:
        count = 0
        sys.addaudithook(step)
        bundle(here)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
"""


def test_kill_at_any_point_leaves_a_whole_bundle_or_none(tmp_path):
    """A child is killed at its first call to the system, the next at its second, and so on."""
    code = KILLED.format(tests=str(Path(__file__).parents[1]))
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    folders = [path for path in tmp_path.iterdir() if path.name.isdecimal()]
    assert len(folders) > 40
    left = {True: 0, False: 0}
    for folder in folders:
        visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert visible <= {"data.txt", "bundle"}
        left["bundle" in visible] += 1
        made = Bundle(folder / "bundle") if "bundle" in visible else bundle(folder)
        assert verify_bundle(made) == ()
        assert made.site_env.is_file()
    assert min(left.values()) > 1, left


def test_what_a_kill_left_is_named(tmp_path, caplog):
    left = tmp_path / ".bundle.0123456789ab.partial"
    left.mkdir()
    (tmp_path / ".other.0123456789ab.partial").mkdir()
    bundle(tmp_path)
    (message,) = caplog.messages
    assert str(left) in message


# --- Modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
@pytest.mark.parametrize("mode", [StagingMode.COPY, StagingMode.REFERENCE])
def test_modes_follow_the_umask(tmp_path, mask, mode):
    data = data_file(tmp_path)
    data.chmod(0o600)
    nested = {"configs": {"a/b": b""}}
    old = os.umask(mask)
    try:
        made = bundle(tmp_path, inputs={"d/data.txt": data}, staging=mode, tool=nested)
    finally:
        os.umask(old)
    for path in (made.path, *made.path.rglob("*")):
        executable = path.is_dir() or path.suffix == ".sh"
        wanted = (0o777 if executable else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.mark.parametrize(
    ("stages", "word"),
    [
        ([stage(), stage()], "twice"),
        ([stage(after=("earlier",))], "before what it needs"),
        ([stage("one"), stage("two")], "both write"),
        ([stage(outputs=("../../escape",))], "leads out"),
        ([stage(argv=("a=b",))], "="),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused_and_nothing_made(tmp_path, stages, word):
    with pytest.raises(ValskaError, match=word):
        bundle(tmp_path, stages)
    assert not (tmp_path / "bundle").exists()


def test_a_tool_cannot_be_called_like_a_field_of_the_manifest(tmp_path):
    with pytest.raises(ValskaError, match="files"):
        bundle(tmp_path, tool={"name": "files"})
