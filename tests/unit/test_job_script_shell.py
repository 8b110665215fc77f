"""Whatever the caller's shell and the set-up lines do, a job ends with a true record and code."""

import hashlib
import os
import shutil
import signal
import subprocess
from contextlib import suppress

import pytest
from processes import children, wait_until
from toy import bundle, stage

from valska.external_tools.core.site import Site


@pytest.mark.parametrize(
    ("setup", "code", "state"),
    [
        (("false || exit 0",), 1, "failed"),
        (("false || exit 7",), 7, "failed"),
        (("stage=other", "true"), 1, "failed"),
        (("echo 'never closed",), 3, "refused"),
        (("set -euf", "set -C"), 0, "completed"),
        (("trap - TERM EXIT", "shopt -s failglob"), 0, "completed"),
    ],
)
def test_set_up_lines_that_meddle(tmp_path, scripts, records, setup, code, state):
    made = bundle(tmp_path, site=Site(setup=setup))
    assert scripts.run(made)[0] == code
    (record,) = records(made)
    assert (record["state"], record["exit_code"]) == (state, code)
    assert scripts.left_over() == []


@pytest.mark.parametrize(
    "variable",
    [
        "POSIXLY_CORRECT=1",
        "SHELLOPTS=errexit",
        "SHELLOPTS=noclobber:noglob:nounset",
        "BASHOPTS=failglob:nocasematch",
        "GLOBIGNORE=*",
    ],
)
def test_options_of_the_callers_shell_change_nothing(tmp_path, scripts, records, variable):
    made = bundle(tmp_path)
    name, _, value = variable.partition("=")
    assert scripts.run(made, env={name: value})[0] == 0
    (record,) = records(made)
    assert record["state"] == "completed"
    assert record["outputs"][0]["sha256"] == hashlib.sha256(b"hello\n").hexdigest()


def test_host_is_the_one_that_runs_it_and_the_site_is_kept(tmp_path, scripts, records):
    made = bundle(tmp_path, site=Site(setup=("echo 'a\\b\"c'",)))
    assert scripts.run(made, env={"HOSTNAME": "login1"})[0] == 0
    (record,) = records(made)
    assert record["host"]["name"] == os.uname().nodename
    assert record["site_env"] == made.site_env.read_text().rstrip("\n")


@pytest.mark.parametrize("to_all", [True, False])
def test_signal_while_the_seal_is_checked_accuses_nobody(tmp_path, scripts, records, to_all):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 32)
    made = bundle(tmp_path)
    made.sums.write_text(made.sums.read_text() + f"{'0' * 64}  ../large\n")
    process = scripts.start(made)
    wait_until(lambda: list(made.records.glob("*.json")))
    name = "openssl" if shutil.which("openssl") else "sha256sum"
    pid = wait_until(lambda: children(process.pid).get(name))
    process.terminate()
    if to_all:
        with suppress(ProcessLookupError):  # the script may have been quicker
            os.kill(pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    (record,) = records(made)
    assert (record["state"], record["signal"]) == ("signalled", "TERM")


def test_thousands_of_outputs_with_odd_names_among_them(tmp_path, scripts, records):
    text = (
        "for i in {1..1200}; do echo $i >f$i; done; echo 1 >$'a\\nb'; echo 2 >'a\\b'; "
        "ln -s f1 link; mkfifo pipe"
    )
    made = bundle(tmp_path, [stage(argv=("bash", "-c", text), outputs=("f1",))])
    assert scripts.run(made)[0] == 0
    (record,) = records(made)
    found = {output["path"]: output for output in record["outputs"]}
    assert len(found) == 1203
    for path, output in found.items():
        data = (made.path / path).read_bytes()
        assert (output["size"], output["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_disk_that_is_full_at_the_end_is_a_failure(tmp_path, scripts, records):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        argv = ("bash", "-c", "cp ../inputs/data.txt out.txt; cat /dev/zero >fill; true")
        made = bundle(disk, [stage(argv=argv)])
        code, _, err = scripts.run(made)
        assert code == 1
        assert "cannot write" in err
        assert [record["state"] for record in records(made)] == ["running"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("other", ["171", "17_2"])
def test_job_whose_number_begins_like_this_ones_stands_in_the_way(
    tmp_path, scripts, records, other
):
    made = bundle(tmp_path)
    squeue = tmp_path.parent / "squeue"
    squeue.write_text(f'#!/bin/sh\ncase " $* " in *" {other} "*) echo {other} ;; esac\n')
    squeue.chmod(0o755)
    assert scripts.run(made)[0] == 0
    (path,) = made.records.iterdir()
    text = path.read_text().replace('"completed"', '"running"')
    (made.records / f"simulate-{other}-r0.json").write_text(text)
    path.unlink()
    spool = tmp_path / "slurm_script"
    spool.write_bytes(made.script("simulate").read_bytes())
    env = {"SLURM_JOB_ID": "17", "PATH": f"{tmp_path.parent}:{os.environ['PATH']}"}
    if "_" in other:
        env |= {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "1"}
    code, _, err = scripts.run(made, script=spool, env=env)
    assert (code, f"as job {other}" in err) == (3, True)
