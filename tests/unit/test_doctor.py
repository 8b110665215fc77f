"""The doctor's checks, on this machine and on machines that lack something."""

import os
import pwd
import shlex
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from processes import run_as_nobody

from valska.external_tools.core import doctor
from valska.external_tools.core.config import Settings
from valska.external_tools.core.doctor.checks import Check, Machine, Status


@pytest.fixture
def settings(tmp_path):
    return Settings(images=tmp_path / "images")


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def without(*names):
    return lambda name: None if name in names else shutil.which(name)


def test_ready_means_that_nothing_is_missing():
    good, poor, bad = (Check("x", status, "") for status in Status)
    assert doctor.is_ready([good, poor])
    assert not doctor.is_ready([good, bad])


@pytest.mark.apptainer
def test_apptainer_is_found_with_its_version(settings, require):
    require(shutil.which("apptainer"), "no apptainer")
    check = doctor.check_apptainer(Machine(settings))
    assert check.status is Status.OK
    assert check.found.startswith("version 1.")


def test_apptainer_that_is_not_there(tmp_path):
    settings = Settings(images=tmp_path, apptainer=str(tmp_path / "none"))
    check = doctor.check_apptainer(Machine(settings))
    assert check.status is Status.MISSING
    assert "Install Apptainer" in check.advice


def test_apptainer_that_the_set_up_lines_bring(tmp_path):
    place = tmp_path.parent  # a PATH takes no colons
    program(place / "apptainer-of-the-site", "echo 1.3.0")
    settings = Settings(
        images=tmp_path,
        apptainer="apptainer-of-the-site",
        setup=("echo loading", f"PATH={shlex.quote(str(place))}:$PATH"),
    )
    check = doctor.check_apptainer(Machine(settings))
    assert (check.status, check.found) == (Status.OK, "version 1.3.0")


def test_an_old_apptainer_is_told(tmp_path):
    settings = Settings(images=tmp_path, apptainer=program(tmp_path / "a", "echo 1.0.3-1.el8"))
    check = doctor.check_apptainer(Machine(settings))
    assert check.status is Status.WARN
    assert "1.0.3" in check.found


def test_an_apptainer_that_fails(tmp_path):
    settings = Settings(images=tmp_path, apptainer=program(tmp_path / "a", "exit 9"))
    assert doctor.check_apptainer(Machine(settings)).status is Status.MISSING


def test_fuse(settings, tmp_path):
    assert doctor.check_fuse(Machine(settings, fuse=Path("/dev/null"))).status is Status.OK
    check = doctor.check_fuse(Machine(settings, fuse=tmp_path / "none"))
    assert check.status is Status.WARN
    assert "no such file" in check.found


def test_programs_that_are_not_there(tmp_path):
    settings = Settings(images=tmp_path, apptainer=program(tmp_path / "a", ""))
    machine = Machine(settings, which=without("squashfuse", "squashfuse_ll", "mksquashfs"))
    assert doctor.check_squashfuse(machine).status is Status.WARN
    assert doctor.check_mksquashfs(machine).status is Status.WARN


def test_squashfuse_of_apptainer_itself(tmp_path):
    (tmp_path / "bin").mkdir()
    own = tmp_path / "libexec/apptainer/bin/squashfuse_ll"
    own.parent.mkdir(parents=True)
    own.touch()
    settings = Settings(images=tmp_path, apptainer=program(tmp_path / "bin/apptainer", ""))
    machine = Machine(settings, which=without("squashfuse", "squashfuse_ll"))
    assert doctor.check_squashfuse(machine).found == str(own.resolve())


@pytest.mark.parametrize("form", ["name", "number"])
def test_subordinate_ids(settings, tmp_path, form):
    uid = os.geteuid()
    who = pwd.getpwuid(uid).pw_name if form == "name" else uid
    machine = Machine(settings, etc=tmp_path)
    assert "subuid and " in doctor.check_subuid(machine).found
    (tmp_path / "subuid").write_text(f"other:1:2\n{who}:100000:65536\n")
    check = doctor.check_subuid(machine)
    assert check.status is Status.WARN
    assert "subuid" not in check.found
    (tmp_path / "subgid").write_text(f"{who}:100000:65536\n")
    assert doctor.check_subuid(machine).status is Status.OK


def test_no_slurm(tmp_path):
    none = str(tmp_path / "sbatch")
    machine = Machine(Settings(images=tmp_path, sbatch=none))
    assert doctor.check_sbatch(machine).status is Status.WARN
    assert list(doctor.check_slurm(machine)) == []
    wanted = Machine(Settings(images=tmp_path, sbatch=none, scheduler="slurm"))
    assert doctor.check_sbatch(wanted).status is Status.MISSING


@pytest.mark.slurm
def test_a_real_slurm_answers(settings, require):
    require(shutil.which("sbatch"), "no sbatch")
    machine = Machine(settings)
    assert doctor.check_sbatch(machine).status is Status.OK
    queue, accounting = doctor.check_slurm(machine)
    assert (queue.status, queue.name) == (Status.OK, "squeue")
    assert (accounting.status, accounting.name) == (Status.OK, "accounting")


@pytest.mark.slurm
def test_a_slurm_whose_controller_is_away(settings, require, tmp_path):
    require(shutil.which("sbatch"), "no sbatch")
    config = tmp_path / "slurm.conf"
    config.write_text(
        "ClusterName=none\nSlurmctldHost=localhost\nSlurmctldPort=1\nMessageTimeout=2\n"
    )
    plain_config = Path("/tmp") / f"valska-test-{os.getpid()}.conf"
    shutil.copyfile(config, plain_config)
    try:
        environ = {**os.environ, "SLURM_CONF": str(plain_config)}
        queue, accounting = doctor.check_slurm(Machine(settings, environ=environ))
    finally:
        plain_config.unlink()
    assert queue.status is Status.MISSING
    assert "--scheduler local" in queue.advice
    assert accounting.status is Status.WARN


def test_a_place_is_really_written_and_left_as_it_was(tmp_path):
    place = tmp_path / "not/yet/there"
    check = doctor.check_place("x", place, "advice")
    assert check.status is Status.OK
    assert "GiB free" in check.found
    assert list(tmp_path.iterdir()) == []
    assert doctor.check_place("x", place, "advice", free_bytes=1 << 62).status is Status.WARN


def test_a_place_that_cannot_be_written(tmp_path):
    check = doctor.check_place("x", Path("/proc/nowhere"), "advice")
    assert (check.status, check.advice) == (Status.MISSING, "advice")
    file = tmp_path / "file"
    file.touch(mode=stat.S_IRUSR)
    assert doctor.check_place("x", file / "below", "advice").status is Status.MISSING


def test_results_root(tmp_path):
    assert doctor.check_results_root(Settings(images=tmp_path)).status is Status.WARN
    there = Settings(images=tmp_path, results_root=tmp_path)
    assert doctor.check_results_root(there).status is Status.OK


def test_configuration(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("results_root: /r\n")
    check, settings = doctor.check_configuration(path)
    assert (check.status, check.found) == (Status.OK, str(path))
    assert settings.results_root == Path("/r")
    path.write_text("nonsense: 1\n")
    check, settings = doctor.check_configuration(path)
    assert check.status is Status.MISSING
    assert "nonsense" in check.found
    assert settings.results_root is None


def test_tools():
    checks = list(doctor.check_tools(("pyuvsim", "nothing")))
    assert [check.status for check in checks] == [Status.OK, Status.WARN]
    (none,) = doctor.check_tools(())
    assert none.status is Status.MISSING


def test_a_tool_without_an_image(tmp_path, monkeypatch):
    monkeypatch.setenv("VALSKA_IMAGES", str(tmp_path / "empty"))
    config = tmp_path / "c.yaml"
    config.write_text("{}\n")
    machine = Machine(Settings(images=tmp_path))
    (check,) = doctor.check_images(machine, ("pyuvsim",), config)
    assert check.status is Status.MISSING
    assert "valska build" in check.advice
    config.write_text("pyuvsim: {runner: host}\n")
    assert list(doctor.check_images(machine, ("pyuvsim",), config)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_store_that_can_only_be_read_is_a_warning_and_one_that_cannot_is_missing():
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        store.mkdir()
        Path(name).chmod(0o755)
        for mode, status in ((0o755, Status.WARN), (0o700, Status.MISSING)):
            store.chmod(mode)

            def look(status=status):
                assert doctor.check_store(store).status is status

            assert run_as_nobody(look)
