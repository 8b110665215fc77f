"""``valska reproduce`` without containers: what it says of the software, and of its packages."""

import json
import shlex
import shutil
import tempfile
import venv
from pathlib import Path

import pytest

LOCAL = ("--scheduler", "local")


@pytest.fixture
def configured(user, monkeypatch):
    """Write a configuration that every command reads."""

    def write(text):
        monkeypatch.setenv("VALSKA_CONFIG", str(user.write("runtime_paths.yaml", text)))

    return write


def ran(user, *args, output="bundle"):
    user.ok("bundle", "linetool", "--template", "three", "-o", output, *args)
    done = user.process("submit", output, *LOCAL, "--wait")
    assert done.returncode == 0, done.stderr
    return user.cwd / output


def reproduced(user, path, *args, code=0, output="again"):
    done = user.process("reproduce", path, *LOCAL, "-o", output, *args)
    assert done.returncode == code, done.stdout + done.stderr
    return done, json.loads((user.cwd / output / "comparison.json").read_text())


# --- the host ------------------------------------------------------------------------------------


@pytest.fixture
def environment():
    """A virtual environment with a program of its own, that set-up lines bring into reach."""
    with tempfile.TemporaryDirectory(prefix="environment-") as folder:
        path = Path(folder) / "venv"
        venv.create(path, symlinks=True)
        program = path / "bin" / "count-by-python"
        program.write_text(f"#!{path}/bin/python\nprint(3)\n")
        program.chmod(0o755)
        yield path


def test_a_run_of_a_virtual_environment_needs_its_set_up_lines_again(user, configured, environment):
    line = f"source {shlex.quote(str(environment / 'bin/activate'))}"
    configured(f"setup: [{json.dumps(line)}]\n")
    then = ("--override", "then='; count-by-python > count.txt'")
    bundle = ran(user, "--runner", "host", *then)
    user.ok("archive", bundle, "-o", "run.tar.zst")
    shutil.rmtree(bundle)
    _, data = reproduced(user, "run.tar.zst")
    assert data["verdict"] == "identical"
    (note,) = data["notes"]
    assert "nothing stands for the software there" in note
    configured("{}\n")
    _, data = reproduced(user, "run.tar.zst", code=5, output="elsewhere")
    assert data["verdict"] == "incomplete"
    assert "`setup` in the configuration" in data["notes"][-1]
    assert "set-up lines" in (user.cwd / "elsewhere/comparison.md").read_text()


# --- conda ---------------------------------------------------------------------------------------

CHANNEL = "https://channel/linux-64"
LIST = f"""\
# This file may be used to create an environment using:
@EXPLICIT
{CHANNEL}/zlib-1.3-h1_0.conda#aa
{CHANNEL}/python-dateutil-2.9-py_0.tar.bz2#bb
"""


@pytest.fixture
def conda(user, configured):
    """A stand-in for conda, which no registry reached by the tests offers; return its packages."""
    packages = user.home / "packages"
    packages.write_text(LIST)
    script = user.home / "conda.sh"
    script.write_text(
        f"""conda() {{
            case $1 in
                activate) [[ $2 == sim ]] && export CONDA_DEFAULT_ENV=sim ;;
                list) cat {shlex.quote(str(packages))} ;;
                --version) echo conda 24.9.2 ;;
            esac
        }}
        """
    )
    configured(f"linetool: {{conda: {{sh: {json.dumps(str(script))}, env: sim}}}}\n")
    return packages


def test_the_same_conda_environment_gives_the_same_bundle(user, conda):
    done, data = reproduced(user, ran(user, "--runner", "conda"))
    assert data["verdict"] == "identical"
    assert data["reference"]["bundle_id"] == data["new"]["bundle_id"]
    assert data["notes"] == ["the conda environment sim has the same packages as the reference's"]
    assert "WARNING" not in done.stderr.upper()
    assert not (user.cwd / "again/environment.txt").exists()


def test_another_conda_environment_is_taken_and_told_with_its_packages(user, conda):
    bundle = ran(user, "--runner", "conda")
    conda.write_text(LIST.replace("zlib-1.3", "zlib-1.4"))
    done, data = reproduced(user, bundle)
    assert "has other packages than the bundle's" in done.stderr
    assert data["verdict"] == "identical"
    assert data["reference"]["bundle_id"] != data["new"]["bundle_id"]
    found = {(one["kind"], one["key"]): (one["a"], one["b"]) for one in data["intent"]}
    assert found["package", "conda zlib"] == ("1.3-h1_0", "1.4-h1_0")
    assert ("package", "conda python-dateutil") not in found
    assert "conda create --name NAME --file environment.txt" in data["notes"][-1]
    listed = (user.cwd / "again/environment.txt").read_text().splitlines()
    assert listed[0] == "@EXPLICIT"
    assert sorted(listed) == sorted(line for line in LIST.splitlines() if line[0] != "#")


def test_a_sweep_of_another_conda_environment_is_told_too(user, conda):
    command = ("sweep", "linetool", "--template", "three", "--runner", "conda")
    user.ok(*command, "--values", "run=true,echo", "-o", "sweep")
    assert user.process("submit", "sweep", *LOCAL, "--wait").returncode == 0
    conda.write_text(LIST.replace("zlib-1.3", "zlib-1.4"))
    _, data = reproduced(user, "sweep")
    assert data["verdict"] == "identical"
    assert ("package", "conda zlib") in {(one["kind"], one["key"]) for one in data["intent"]}
    assert (user.cwd / "again/environment.txt").read_text().count("zlib-1.3") == 1


def test_without_a_configured_environment_nothing_is_made(user, conda, configured):
    bundle = ran(user, "--runner", "conda")
    configured("{}\n")
    done = user.process("reproduce", bundle, *LOCAL, "-o", "again")
    assert done.returncode == 2
    assert "no environment" in done.stderr
    assert not (user.cwd / "again").exists()
