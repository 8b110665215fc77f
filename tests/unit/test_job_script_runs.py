"""Job scripts of host bundles, run by bash for real: every end, every refusal, every odd name."""

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import alive, children, run_as_nobody, wait_until
from toy import bundle, request, stage

from valska.external_tools.core.bundling import BundledImage, create, draft
from valska.external_tools.core.conda import CondaEnvironment, read_environment
from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.runner import CondaRunner, RunnerKind
from valska.external_tools.core.seal import seal_of, verify_bundle
from valska.external_tools.core.site import Site, write_site_env
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.utils import sha256_bytes, sha256_file

HOSTILE = (
    'it\'s "q" \\ back\\\\slash `id` $(id) $HOME ${x} * ~ # ; & | <a>'
    "\t\x01\x7f\n new\r é \u2028 😀 "
)


def shell(text, **more):
    return stage(argv=("bash", "-c", text), **more)


# --- The ends of a run ----------------------------------------------------------------------------


def test_completed(tmp_path, scripts, records):
    made = bundle(tmp_path)
    code, _, err = scripts.run(made)
    (record,) = records(made)
    assert (code, record["state"], record["exit_code"]) == (0, "completed", 0), err
    assert record["seal"] == seal_of(made)
    assert record["site_env_sha256"] == sha256_file(made.site_env)
    assert record["outputs"] == [
        {"path": "outputs/out.txt", "size": 6, "sha256": sha256_bytes(b"hello\n")}
    ]
    assert record["missing_outputs"] == []
    assert record["ended_utc"] >= record["started_utc"]
    assert record["reason"] is None
    assert record["signal"] is None
    assert (record["job"]["scheduler"], record["slurm"]) == ("none", {})
    assert record["user"] == pwd.getpwuid(os.geteuid()).pw_name
    assert record["host"]["name"] == os.uname().nodename
    assert record["host"]["cpus"] == len(os.sched_getaffinity(0))
    assert record["runner"] == {
        "kind": "host",
        "version": None,
        "command": ["env", "cp", "../inputs/data.txt", "out.txt"],
    }
    assert scripts.left_over() == []
    assert verify_bundle(made) == ()


def test_exit_code_of_the_payload_is_kept(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell("echo kept >out.txt; exit 41")])
    assert scripts.run(made)[0] == 41
    (record,) = records(made)
    assert (record["state"], record["exit_code"]) == ("failed", 41)
    assert "41" in record["reason"]
    assert [entry["path"] for entry in record["outputs"]] == ["outputs/out.txt"]


def test_payload_killed_by_a_signal_of_its_own(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell("kill -KILL $$")])
    assert scripts.run(made)[0] == 137
    (record,) = records(made)
    assert (record["state"], record["exit_code"]) == ("failed", 137)


def test_payload_that_does_not_exist(tmp_path, scripts, records):
    made = bundle(tmp_path, [stage(argv=("no-such-program",))])
    assert scripts.run(made)[0] == 127
    assert records(made)[0]["state"] == "failed"


def test_exit_0_without_a_declared_output_is_a_failure(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell(": >here", outputs=("here", "not here", "nor/there"))])
    assert scripts.run(made)[0] == 66
    (record,) = records(made)
    assert (record["state"], record["exit_code"]) == ("failed", 66)
    assert record["missing_outputs"] == ["not here", "nor/there"]


def test_standard_input_is_empty(tmp_path, scripts):
    assert scripts.run(bundle(tmp_path, [shell("cat >out.txt")]))[0] == 0


@pytest.mark.parametrize(
    ("sent", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP"), (signal.SIGINT, "INT")]
)
def test_a_signal_ends_the_payload_and_is_recorded(tmp_path, scripts, records, sent, name):
    made = bundle(tmp_path, [shell("echo half >out.txt; exec sleep 60")])
    process = scripts.start(made)
    payload = wait_until(lambda: children(process.pid).get("sleep"))
    process.send_signal(sent)
    process.communicate(timeout=20)
    assert process.returncode == 128 + sent
    assert not alive(payload)
    (record,) = records(made)
    assert (record["state"], record["signal"]) == ("signalled", name)
    assert record["exit_code"] == 128 + sent
    assert record["outputs"] == [{"path": "outputs/out.txt", "size": 5, "sha256": None}]
    assert scripts.left_over() == []


def test_a_payload_that_ends_well_after_the_signal_does_not_count_as_completed(
    tmp_path, scripts, records
):
    text = (
        "trap 'sleep 0.3; echo saved >out.txt; exit 0' TERM; : >ready; while :; do sleep 0.05; done"
    )
    made = bundle(tmp_path, [shell(text)])
    process = scripts.start(made)
    wait_until((made.outputs / "ready").exists)
    process.terminate()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert (made.outputs / "out.txt").read_text() == "saved\n"
    assert records(made)[0]["state"] == "signalled"


def test_a_payload_that_does_not_heed_the_signal_is_killed_in_time(tmp_path, scripts, records):
    made = bundle(
        tmp_path,
        [shell("trap '' TERM; : >ready; while :; do sleep 0.05; done")],
        spec={"directives": {"simulate": {"time": "1"}}},
    )
    process = scripts.start(made)
    wait_until((made.outputs / "ready").exists)
    process.terminate()
    process.communicate(timeout=6)
    assert process.returncode == 143
    assert records(made)[0]["state"] == "signalled"


def test_signal_while_the_image_is_hashed(tmp_path, scripts, records):
    sif = tmp_path / "large.sif"
    with sif.open("wb") as file:
        file.truncate(1 << 36)
    image = BundledImage(path=sif, sha256="0" * 64, size=1 << 36)
    made = bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER, site=Site(apptainer="true"))
    process = scripts.start(made)
    wait_until(lambda: {"openssl", "sha256sum"} & children(process.pid).keys())
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert time.monotonic() - began < 5
    (record,) = records(made)
    assert (record["state"], record["exit_code"]) == ("signalled", 143)
    assert "before the payload" in record["reason"]
    assert scripts.left_over() == []


def test_signal_while_a_reference_is_hashed(tmp_path, scripts, records):
    made = bundle(tmp_path, staging=StagingMode.REFERENCE)
    os.truncate(tmp_path / "data.txt", 1 << 36)
    process = scripts.start(made)
    wait_until(lambda: {"openssl", "sha256sum"} & children(process.pid).keys())
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert records(made)[0]["state"] == "signalled"


def test_kill_leaves_a_record_that_says_running_and_does_not_block_the_next(
    tmp_path, scripts, records
):
    made = bundle(
        tmp_path, [shell("[[ -e ../outputs.1 ]] && exec touch out.txt; : >f; exec sleep 60")]
    )
    process = scripts.start(made)
    payload = wait_until(lambda: children(process.pid).get("sleep"))
    process.kill()
    os.kill(payload, signal.SIGKILL)
    process.communicate(timeout=20)
    (record,) = records(made)
    assert (record["state"], record["ended_utc"]) == ("running", None)
    assert record["runner"]["command"][-1].endswith("exec sleep 60")
    assert scripts.run(made)[0] == 0
    assert [record["state"] for record in records(made)] == ["running", "completed"]


def test_a_payload_ends_soon_after_its_script_was_killed(tmp_path, scripts):
    text = "trap '' TERM; echo $$ >pid.tmp; mv pid.tmp pid; while :; do sleep 0.2; done"
    made = bundle(tmp_path, [shell(text)])
    process = scripts.start(made)
    payload = int(wait_until((made.outputs / "pid").exists) and (made.outputs / "pid").read_text())
    process.kill()
    process.wait()
    wait_until(lambda: not Path(f"/proc/{payload}").exists())


# --- Refused before anything ran ------------------------------------------------------------------


def _refused(made, scripts, records, *arguments, code=5, **more):
    got, _, err = scripts.run(made, *arguments, **more)
    assert (got, "refused" in err) == (code, True), err
    record = records(made)[-1]
    assert (record["state"], record["exit_code"]) == ("refused", code)
    assert list(made.outputs.iterdir()) == []
    assert scripts.left_over() == []
    return record["reason"]


@pytest.mark.parametrize(
    "place", ["config/run.yaml", "inputs/data.txt", "manifest.json", "README.md"]
)
@pytest.mark.parametrize("how", ["altered", "missing"])
def test_altered_bundle_is_refused_and_the_file_named(tmp_path, scripts, records, place, how):
    made = bundle(tmp_path)
    if how == "altered":
        _flip(made.path / place)
    else:
        (made.path / place).unlink()
    assert place in _refused(made, scripts, records)


def test_without_openssl_the_files_are_checked_as_well(
    tmp_path, tmp_path_factory, scripts, records
):
    programs = tmp_path_factory.mktemp("programs")
    for program in Path("/usr/bin").iterdir():
        if program.name != "openssl":
            (programs / program.name).symlink_to(program)
    scripts.environment["PATH"] = str(programs)
    made = bundle(tmp_path)
    code, _, err = scripts.run(made)
    assert code == 0, err
    shutil.rmtree(made.outputs)
    made.outputs.mkdir()
    _flip(made.path / "inputs/data.txt")
    assert "inputs/data.txt" in _refused(made, scripts, records)


def test_altered_digests_are_refused(tmp_path, scripts, records):
    made = bundle(tmp_path)
    made.sums.write_text(made.sums.read_text().replace("0", "1", 1))
    _refused(made, scripts, records)


def test_altered_script_finds_no_bundle(tmp_path, scripts, records):
    made = bundle(tmp_path)
    script = made.script("simulate")
    script.write_text(script.read_text().replace("../inputs/data.txt", "../inputs/DATA.txt"))
    code, _, err = scripts.run(made)
    assert code == 3
    assert "altered" in err
    assert records(made) == []


def test_other_seal_than_the_one_submitted_is_refused(tmp_path, scripts, records):
    made = bundle(tmp_path)
    assert "seal" in _refused(made, scripts, records, "0" * 64)
    assert scripts.run(made, seal_of(made))[0] == 0


def test_reference_missing_or_altered_is_refused(tmp_path, scripts, records):
    made = bundle(tmp_path, staging=StagingMode.REFERENCE)
    data = tmp_path / "data.txt"
    data.write_text("hellO\n")
    assert str(data) in _refused(made, scripts, records)
    data.unlink()
    assert "inputs/data.txt" in _refused(made, scripts, records, code=3)


def test_wrong_image_is_refused(tmp_path, scripts, records):
    sif = tmp_path / "i.sif"
    sif.write_bytes(b"not the image")
    image = BundledImage(path=sif, sha256="0" * 64, size=13)
    made = bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER, site=Site(apptainer="true"))
    assert sha256_file(sif) in _refused(made, scripts, records)
    sif.unlink()
    reason = _refused(made, scripts, records, code=3)
    assert f"not at '{sif}'; set VALSKA_IMAGE" in reason


def test_missing_apptainer_is_refused(tmp_path, scripts, records):
    sif = tmp_path / "i.sif"
    sif.write_bytes(b"")
    image = BundledImage(path=sif, sha256=sha256_bytes(b""), size=0)
    site = Site(apptainer="no-such-apptainer")
    made = bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER, site=site)
    assert "no-such-apptainer" in _refused(made, scripts, records, code=3)


def test_conda_without_an_environment_is_refused(tmp_path, scripts, records):
    made = bundle(tmp_path, runner=RunnerKind.CONDA, environment=CondaEnvironment("sim", "0" * 64))
    assert "conda" in _refused(made, scripts, records, code=3)


@pytest.fixture
def conda(tmp_path):
    """A stand-in for conda, which no registry reached by the tests offers."""
    (tmp_path / "packages").write_text(CONDA_LIST)
    runner = CondaRunner(str(tmp_path / "conda.sh"), "sim")
    (tmp_path / "conda.sh").write_text(
        f"""conda() {{
            case $1 in
                activate) [[ $2 == sim ]] && export CONDA_DEFAULT_ENV=sim ;;
                list) cat {shlex.quote(str(tmp_path / "packages"))} ;;
                --version) echo conda 24.9.2 ;;
            esac
        }}
        """
    )
    return runner


CONDA_LIST = """\
# This file may be used to create an environment using:
@EXPLICIT
file:///channel/linux-64/zlib-1.3.conda#aa
file:///channel/linux-64/bzip2-1.0.conda#bb
"""


def test_conda_environment_is_read_checked_and_recorded(tmp_path, scripts, records, conda):
    environment = read_environment(conda)
    lines = sorted(line for line in CONDA_LIST.splitlines() if not line.startswith("#"))
    assert environment.explicit_sha256 == sha256_bytes("".join(f"{x}\n" for x in lines).encode())
    site = Site(conda=conda)
    made = bundle(tmp_path, runner=RunnerKind.CONDA, environment=environment, site=site)
    assert read_manifest(made).environment == {
        "name": "sim",
        "explicit_sha256": environment.explicit_sha256,
    }
    scripts.run(made)
    (record,) = records(made)
    assert record["state"] == "completed"
    assert record["runner"]["version"] == "24.9.2"
    assert record["environment"]["name"] == "sim"
    assert sorted(record["environment"]["explicit"]) == lines


def test_another_conda_environment_is_another_bundle_and_refused_by_the_job(
    tmp_path, scripts, records, conda
):
    site = Site(conda=conda)
    before = read_environment(conda)
    made = bundle(tmp_path, runner=RunnerKind.CONDA, environment=before, site=site)
    (tmp_path / "packages").write_text(CONDA_LIST.replace("1.3", "1.4"))
    assert "not the manifest's" in _refused(made, scripts, records, code=5)
    after = read_environment(conda)
    other = bundle(
        tmp_path,
        runner=RunnerKind.CONDA,
        environment=after,
        site=site,
        output=tmp_path / "other",
    )
    assert read_manifest(other).bundle_id != read_manifest(made).bundle_id


def test_conda_environment_that_cannot_be_listed_is_one_error(conda):
    with pytest.raises(PrerequisiteError, match="cannot be listed"):
        read_environment(replace(conda, conda_env="other"))


def test_failing_set_up_lines_are_refused(tmp_path, scripts, records):
    made = bundle(tmp_path, site=Site(setup=("true", "no-such-module load tool")))
    assert "set-up lines" in _refused(made, scripts, records, code=3)


def test_no_scratch_directory_is_refused(tmp_path, scripts, records):
    made = bundle(tmp_path, site=Site(scratch=tmp_path / "absent"))
    assert "scratch" in _refused(made, scripts, records, code=3)


def test_other_number_of_tasks_than_ranks_is_refused(tmp_path, scripts, records):
    made = bundle(tmp_path, [stage(ranks=2)])
    spool = _spool_copy(made, tmp_path)
    reason = _refused(
        made,
        scripts,
        records,
        script=spool,
        env={"SLURM_JOB_ID": "17", "SLURM_NTASKS": "3"},
        code=2,
    )
    assert "3 tasks" in reason


def test_second_run_of_a_live_stage_is_refused(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell("exec sleep 60")])
    process = scripts.start(made)
    wait_until(lambda: "sleep" in children(process.pid))
    code, _, err = scripts.run(made)
    assert code == 3
    assert "is running already" in err
    assert [record["state"] for record in records(made)] == ["running", "refused"]
    process.terminate()
    process.communicate(timeout=20)
    assert [record["state"] for record in records(made)] == ["refused", "signalled"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_bundle_that_cannot_be_written_is_refused(tmp_path):
    made = bundle(tmp_path)
    shutil.rmtree(made.records)
    for folder in (made.path, *tmp_path.parents):
        if folder != Path("/tmp"):
            folder.chmod(0o755)

    def try_it():
        done = subprocess.run(
            ["bash", made.script("simulate").name], cwd=made.path, capture_output=True, check=False
        )
        assert done.returncode == 1
        assert b"cannot write" in done.stderr

    assert run_as_nobody(try_it)
    assert list(made.outputs.iterdir()) == []


# --- Earlier outputs ------------------------------------------------------------------------------


def test_earlier_outputs_are_set_aside_never_mixed(tmp_path, scripts, records):
    made = bundle(
        tmp_path, [shell("mkdir d; echo $RANDOM$RANDOM >d/out; : >.hidden", outputs=("d/out",))]
    )
    for _ in range(3):
        assert scripts.run(made)[0] == 0
    texts = {
        (made.path / folder / "d/out").read_text()
        for folder in ("outputs.1", "outputs.2", "outputs")
    }
    assert len(texts) == 3
    assert [record["state"] for record in records(made)] == ["completed"] * 3
    assert (made.path / "outputs.1/.hidden").exists()
    assert verify_bundle(made) == ()


def test_stages_own_their_declared_outputs_only(tmp_path, scripts, records):
    made = bundle(
        tmp_path,
        [
            shell("echo $RANDOM$RANDOM >a", name="first", outputs=("a",)),
            shell("mkdir b; cp a b/c", name="second", outputs=("b/c", "b"), after=("first",)),
        ],
    )
    assert scripts.run(made, stage="first")[0] == 0
    assert scripts.run(made, stage="second")[0] == 0
    first = (made.outputs / "a").read_text()
    assert scripts.run(made, stage="second")[0] == 0
    assert (made.outputs / "a").read_text() == first
    assert (made.path / "outputs.1/b/c").read_text() == first
    assert not (made.path / "outputs.1/a").exists()
    assert scripts.run(made, stage="first")[0] == 0
    assert (made.path / "outputs.2/a").read_text() == first
    assert (made.outputs / "b/c").read_text() == first
    assert [entry["path"] for entry in records(made, "first")[0]["outputs"]] == ["outputs/a"]
    listed = [entry["path"] for entry in records(made, "second")[0]["outputs"]]
    assert listed == ["outputs/b/c"]


def test_other_stages_may_run_at_the_same_time(tmp_path, scripts, records):
    made = bundle(
        tmp_path, [shell("exec sleep 60", name="a", outputs=()), shell(":", name="b", outputs=())]
    )
    process = scripts.start(made, stage="a")
    wait_until(lambda: "sleep" in children(process.pid))
    assert scripts.run(made, stage="b")[0] == 0
    assert records(made, "b")[0]["state"] == "completed"


NAMES = [
    "two words",
    "it's",
    'say "hi"',
    "-rf",
    "a\nb",
    "tab\there",
    "ünï",
    "*?[a]",
    "back\\slash",
    "$x`id`",
    " ",
]


def test_outputs_with_strange_names(tmp_path, scripts, records):
    text = 'mkdir -- "$@"; for d; do echo "$d" >"./$d/.x y"; done; ln -s gone dangling; mkfifo pipe'
    made = bundle(tmp_path, [stage(argv=("bash", "-c", text, "bash", *NAMES), outputs=())])
    assert scripts.run(made)[0] == 0
    (record,) = records(made)
    assert {entry["path"]: entry["sha256"] for entry in record["outputs"]} == {
        f"outputs/{name}/.x y": sha256_bytes(f"{name}\n".encode()) for name in NAMES
    }
    assert all(
        entry["size"] == len(entry["path"].split("/")[1].encode()) + 1
        for entry in record["outputs"]
    )


def test_declared_outputs_with_strange_names(tmp_path, scripts, records):
    names = tuple(name for name in NAMES if name.isprintable())
    made = bundle(tmp_path, [stage(argv=("touch", "--", *names), outputs=names)])
    assert scripts.run(made)[0] == 0
    assert {entry["path"] for entry in records(made)[0]["outputs"]} == {
        f"outputs/{name}" for name in names
    }


def test_output_whose_name_is_not_utf_8_comes_back_from_the_record(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell(r"""echo 1 >$'caf\xe9 \xff\xc3\xa9'""", outputs=())])
    assert scripts.run(made)[0] == 0
    (entry,) = records(made)[0]["outputs"]
    assert os.fsencode(entry["path"]) == b"outputs/caf\xe9 \xff\xc3\xa9"


def test_output_that_is_a_link_is_listed_with_the_size_of_its_content(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell("echo content >real; ln -s real out.txt")])
    assert scripts.run(made)[0] == 0
    content = {"size": 8, "sha256": sha256_bytes(b"content\n")}
    assert records(made)[0]["outputs"] == [
        {"path": "outputs/out.txt", **content},
        {"path": "outputs/real", **content},
    ]


# --- References without a container ---------------------------------------------------------------


def test_references_are_seen_at_their_place(tmp_path, scripts, records):
    far = tmp_path / "far, away"
    far.mkdir()
    sources = {}
    for place in ("data.txt", "deep/er/one.dat", "deep/two.dat", "copied.txt"):
        sources[place] = far / place.replace("/", "_")
        sources[place].write_text(f"{place}\n")
    asked = request(
        tmp_path,
        [
            shell(
                "cd ../inputs && cat data.txt deep/er/one.dat deep/two.dat copied.txt "
                "../config/run.yaml >../outputs/out.txt; cd ../outputs; mkdir d; : >d/x; : >.hidden"
            )
        ],
        inputs=sources,
        staging=StagingMode.REFERENCE,
    )
    made = create(draft(asked))
    for _ in range(2):
        code, _, err = scripts.run(made)
        assert code == 0, err
        assert (made.outputs / "out.txt").read_text() == "".join(
            f"{place}\n" for place in sources
        ) + "answer: 42\n"
        assert records(made)[-1]["inputs_checked"] == 4
        assert {entry["path"] for entry in records(made)[-1]["outputs"]} == {
            "outputs/out.txt",
            "outputs/d/x",
            "outputs/.hidden",
        }
        assert verify_bundle(made) == ()
    assert scripts.left_over() == []


def test_a_later_stage_sees_what_an_earlier_one_wrote_beside_references(tmp_path, scripts, records):
    made = bundle(
        tmp_path,
        [
            shell(
                "cp ../inputs/data.txt a; mkdir d; cp a d/e; cp a .b",
                name="first",
                outputs=("a", "d/e", ".b"),
            ),
            shell(
                "cat a .b >d/c; echo more >>a", name="second", outputs=("d/c",), after=("first",)
            ),
        ],
        staging=StagingMode.REFERENCE,
    )
    assert scripts.run(made, stage="first")[0] == 0
    assert scripts.run(made, stage="second")[0] == 0
    assert (made.outputs / "d/c").read_text() == "hello\nhello\n"
    assert (made.outputs / "a").read_text() == "hello\nmore\n"
    assert (tmp_path / "data.txt").read_text() == "hello\n"


def test_directory_that_two_stages_make_at_once_is_joined(tmp_path, scripts, records):
    text = 'mkdir .tmp "$1/.tmp"; : >.tmp/mine; : >"$1/.tmp/theirs"; : >out.txt'
    outputs = tmp_path / "bundle/outputs"
    argv = ("bash", "-c", text, "bash", str(outputs))
    made = bundle(tmp_path, [stage(argv=argv)], staging=StagingMode.REFERENCE)
    code, _, err = scripts.run(made)
    assert code == 0, err
    assert sorted(path.name for path in (outputs / ".tmp").iterdir()) == ["mine", "theirs"]
    assert scripts.left_over() == []


def test_reference_elsewhere_is_found_through_site_env(tmp_path, scripts, records):
    made = bundle(tmp_path, staging=StagingMode.REFERENCE)
    moved = tmp_path / "mo'v\"ed $x"
    (tmp_path / "data.txt").rename(moved)
    write_site_env(made.site_env, Site(references={"inputs/data.txt": str(moved)}))
    assert scripts.run(made)[0] == 0
    assert records(made)[0]["inputs_checked"] == 1


# --- Which bundle ---------------------------------------------------------------------------------


def _spool_copy(made, tmp_path, stage="simulate"):
    spool = tmp_path / "slurmd" / "job00017"
    spool.mkdir(parents=True, exist_ok=True)
    return shutil.copy(made.script(stage), spool / "slurm_script")


def _twins(tmp_path):
    return tuple(bundle(tmp_path, output=tmp_path / name) for name in ("one", "two"))


def test_stale_variable_of_another_bundle_is_ignored(tmp_path, scripts, records):
    mine, other = _twins(tmp_path)
    assert scripts.run(mine, env={"VALSKA_BUNDLE": str(other.path)})[0] == 0
    assert (len(records(mine)), len(records(other))) == (1, 0)


def test_variable_helps_where_nothing_else_does(tmp_path, scripts, records):
    mine, other = _twins(tmp_path)
    spool = _spool_copy(mine, tmp_path)
    assert scripts.run(mine, script=spool, cwd=tmp_path)[0] == 3
    env = {"VALSKA_BUNDLE": str(mine.path)}
    assert scripts.run(mine, script=spool, cwd=other.path, env=env)[0] == 0
    assert (len(records(mine)), len(records(other))) == (1, 0)


def test_twin_as_working_directory_does_not_get_the_run(tmp_path, scripts, records):
    mine, twin = _twins(tmp_path)
    assert scripts.run(mine, script=mine.script("simulate"), cwd=twin.path)[0] == 0
    assert (len(records(mine)), len(records(twin))) == (1, 0)


def test_script_started_by_a_relative_path_with_cdpath_set(tmp_path, scripts, records):
    made = bundle(tmp_path)
    env = {"CDPATH": str(tmp_path.parent)}
    (tmp_path.parent / "bundle").mkdir()
    code, _, err = scripts.run(made, script="bundle/submit_simulate.sh", cwd=tmp_path, env=env)
    assert code == 0, err
    assert len(records(made)) == 1


def test_slurm_runs_a_copy_in_its_spool(tmp_path, scripts, records):
    made = bundle(tmp_path)
    spool = _spool_copy(made, tmp_path)
    slurm = {
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NAME": HOSTILE,
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_SUBMIT_DIR": str(made.path),
    }
    assert scripts.run(made, seal_of(made), script=spool, env=slurm)[0] == 0
    (record,) = records(made)
    assert record["slurm"] == slurm
    assert record["job"] == {
        "scheduler": "slurm",
        "id": "17",
        "task": None,
        "restart": 0,
        "name": HOSTILE,
    }
    assert [path.name for path in made.records.iterdir()] == ["simulate-17-r0.json"]


def test_slurm_with_chdir_finds_the_bundle_by_the_submit_directory(tmp_path, scripts, records):
    mine, twin = _twins(tmp_path)
    spool = _spool_copy(mine, tmp_path)
    env = {"SLURM_JOB_ID": "18", "SLURM_SUBMIT_DIR": str(mine.path)}
    assert scripts.run(mine, script=spool, cwd=twin.path, env=env)[0] == 0
    assert (len(records(mine)), len(records(twin))) == (1, 0)


def test_requeue_keeps_both_records(tmp_path, scripts, records):
    made = bundle(tmp_path)
    spool = _spool_copy(made, tmp_path)
    env = {"SLURM_JOB_ID": "17"}
    assert scripts.run(made, script=spool, env=env)[0] == 0
    assert scripts.run(made, script=spool, env=env | {"SLURM_RESTART_COUNT": "1"})[0] == 0
    names = sorted(path.name for path in made.records.iterdir())
    assert names == ["simulate-17-r0.json", "simulate-17-r1.json"]
    assert (made.path / "outputs.1/out.txt").exists()
    assert records(made)[1]["job"]["restart"] == 1


def test_array_task_has_a_record_of_its_own(tmp_path, scripts, records):
    made = bundle(tmp_path)
    spool = _spool_copy(made, tmp_path)
    env = {"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "19", "SLURM_ARRAY_TASK_ID": "3"}
    assert scripts.run(made, script=spool, env=env)[0] == 0
    assert [path.name for path in made.records.iterdir()] == ["simulate-19_3-r0.json"]
    assert (records(made)[0]["job"]["id"], records(made)[0]["job"]["task"]) == ("19", "3")


def test_local_scheduler_names_the_job(tmp_path, scripts, records):
    made = bundle(tmp_path)
    job = "local-01234567-89ab-cdef-0123-456789abcdef"
    env = {"VALSKA_JOB_ID": job, "VALSKA_JOB_NAME": "vk-01234567-simulate"}
    assert scripts.run(made, env=env)[0] == 0
    (record,) = records(made)
    assert record["job"] == {
        "scheduler": "local",
        "id": job,
        "task": None,
        "restart": 0,
        "name": "vk-01234567-simulate",
    }


def test_a_job_id_that_is_none_names_no_file(tmp_path, scripts, records):
    made = bundle(tmp_path)
    assert scripts.run(made, env={"VALSKA_JOB_ID": "../../x"})[0] == 0
    assert records(made)[0]["job"]["scheduler"] == "none"


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "it's",
        'a "b"',
        "a,b:c;d",
        "a\nb",
        "a\n",
        "ünï 😀",
        "$HOME `id` *",
        "back\\slash",
        "-n",
    ],
)
def test_moved_bundle_runs_from_anywhere(tmp_path, scripts, records, name):
    made = Bundle(bundle(tmp_path, staging=StagingMode.REFERENCE).path.rename(tmp_path / name))
    assert scripts.run(made)[0] == 0
    assert scripts.run(made, script=made.script("simulate"), cwd="/")[0] == 0
    relative = f"./{name}/submit_simulate.sh"
    assert scripts.run(made, script=relative, cwd=tmp_path)[0] == 0
    assert [record["state"] for record in records(made)] == ["completed"] * 3
    assert verify_bundle(made) == ()


# --- What comes out is what went in ---------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ECHO = 'printf "%s\\0" "$@" >argv; env -0 >environment'


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    arguments=st.lists(st.one_of(TEXT, st.just(HOSTILE)), min_size=1, max_size=6),
    environment=st.dictionaries(
        st.from_regex(r"V_[A-Za-z0-9_]{0,8}", fullmatch=True), TEXT, max_size=4
    ),
)
def test_arguments_and_environment_come_out_as_they_went_in(
    tmp_path, scripts, records, arguments, environment
):
    folder = Path(subprocess.check_output(["mktemp", "-d", "-p", tmp_path], text=True).rstrip("\n"))
    argv = ("bash", "-c", ECHO, "bash", *arguments)
    made = bundle(folder, [stage(argv=argv, env=environment, outputs=("argv",))])
    code, _, err = scripts.run(made)
    assert code == 0, err
    seen = (made.outputs / "argv").read_bytes().decode().split("\0")
    assert seen[:-1] == arguments
    lines = (made.outputs / "environment").read_bytes().decode().split("\0")
    assert {f"{name}={value}" for name, value in environment.items()} <= set(lines)
    (record,) = records(made)
    wanted = ["env", *(f"{name}={value}" for name, value in environment.items()), *argv]
    assert record["runner"]["command"] == wanted


def test_hostile_slurm_values_stay_json(tmp_path, scripts, records):
    made = bundle(tmp_path)
    spool = _spool_copy(made, tmp_path)
    env = {
        b"SLURM_JOB_ID": b"9",
        b"SLURM_JOB_NAME": b"\xff\xfe caf\xe9",
        b"SLURM_JOB_QOS": b'\\"\x1b',
    }
    env = {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()}
    assert scripts.run(made, script=spool, env=env)[0] == 0
    (record,) = records(made)
    assert os.fsencode(record["job"]["name"]) == b"\xff\xfe caf\xe9"
    assert record["slurm"]["SLURM_JOB_QOS"] == '\\"\x1b'


# --- Talking to the script ------------------------------------------------------------------------


def test_show_prints_the_command_that_runs_and_runs_nothing(tmp_path, scripts, records):
    made = bundle(tmp_path, [shell("echo 'a  b' \"$V\" >out.txt", env={"V": "it's $HOME"})])
    code, out, _ = scripts.run(made, "--show")
    assert code == 0
    assert list(made.records.iterdir()) == list(made.outputs.iterdir()) == []
    assert scripts.run(made)[0] == 0
    assert records(made)[0]["runner"]["command"] == shlex.split(out)


def bash_words(text):
    words = subprocess.check_output(["bash", "-c", f'printf "%s\\0" {text}'])
    return words.decode().split("\0")[:-1]


def test_show_is_exact_for_bash_whatever_the_values(tmp_path, scripts):
    made = bundle(tmp_path, [stage(argv=("true", HOSTILE), env={"V": HOSTILE}, outputs=())])
    assert bash_words(scripts.run(made, "--show")[1]) == ["env", f"V={HOSTILE}", "true", HOSTILE]


def test_show_of_a_container_names_image_and_mounts(tmp_path, scripts):
    sif = tmp_path / "i.sif"
    sif.write_bytes(b"x")
    image = BundledImage(path=sif, sha256=sha256_file(sif), size=1)
    made = bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER, staging=StagingMode.REFERENCE)
    words = bash_words(scripts.run(made, "--show")[1])
    assert words[words.index(str(sif)) + 1 :] == ["cp", "../inputs/data.txt", "out.txt"]
    source = str(tmp_path / "data.txt").replace('"', '""')
    assert f'type=bind,"source={source}","destination=/bundle/inputs/data.txt",ro' in words


def test_help(tmp_path, scripts):
    made = bundle(tmp_path)
    code, out, _ = scripts.run(made, "--help")
    assert code == 0
    assert out.startswith("Usage: sbatch submit_simulate.sh")
    assert list(made.records.iterdir()) == []


@pytest.mark.parametrize("argument", ["--shwo", "simulate", "foo", "abc", "A" * 64, "0" * 63, "-h"])
def test_unknown_argument(tmp_path, scripts, argument):
    made = bundle(tmp_path)
    code, out, err = scripts.run(made, argument)
    assert (code, out) == (2, "")
    assert "Usage" in err
    assert list(made.records.iterdir()) == []


def test_set_up_lines_run_first_and_python_of_the_user_does_not_reach_the_run(tmp_path, scripts):
    site = Site(setup=("export FROM_SETUP='it'\"'s\"", "echo set up"))
    made = bundle(tmp_path, [shell("env -0 >out.txt")], site=site)
    code, out, _ = scripts.run(made, env={"PYTHONPATH": "/evil", "PYTHONHOME": "/evil"})
    assert code == 0
    assert "set up" in out
    seen = (made.outputs / "out.txt").read_text().split("\0")
    assert "FROM_SETUP=it's" in seen
    assert "PYTHONNOUSERSITE=1" in seen
    assert not [line for line in seen if line.startswith(("PYTHONPATH", "PYTHONHOME"))]


def test_record_is_readable_at_every_moment(tmp_path, scripts):
    """The record is replaced, never written in place: a reader sees whole JSON only."""
    made = bundle(tmp_path, [shell("sleep 0.3; : >out.txt")])
    process = scripts.start(made)
    states = []
    while process.poll() is None:
        for path in made.records.glob("*.json"):
            states.append(json.loads(path.read_text())["state"])
    assert process.returncode == 0
    assert states[0] == "running"


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
