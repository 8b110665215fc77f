"""An ordinary user of a real cluster: valska installed from a wheel, a home, an image store."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from account import ROOT, Account
from services import need, unavailable

from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images import adopt, resolve_image
from valska.external_tools.core.images.store import ImageStore

PLUGIN = ROOT / "tests" / "data" / "linetool"
ORDINARY = "valska-test"
"""The account that tests/cluster/user.sh makes; used when the tests run as root."""


@pytest.fixture(scope="session")
def apptainer():
    """Real Apptainer."""
    need("apptainer", "tests/cluster/apptainer.sh installs it")


@pytest.fixture(scope="session")
def slurm():
    """A real Slurm whose controller answers."""
    need("sbatch", "tests/cluster/slurm.sh installs and starts it")
    if subprocess.run(["sinfo"], capture_output=True, check=False).returncode != 0:
        unavailable("Slurm does not answer: tests/cluster/slurm.sh starts it")


@pytest.fixture(scope="session")
def place(testrun_uid, worker_id):
    """A directory that every account can reach, with no symbolic link in its name.

    The workers of one test run share it, and the last one removes it.
    """
    path = Path(tempfile.gettempdir()).resolve() / f"valska-{testrun_uid}"
    mine = path / "workers" / worker_id
    mine.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    yield path
    mine.rmdir()
    if not any(mine.parent.iterdir()):
        _cancel_jobs_below(path)
        shutil.rmtree(path, ignore_errors=True)


def _cancel_jobs_below(path):
    """End the jobs that tests which failed have left in the queue."""
    if shutil.which("squeue") is None:
        return
    listed = subprocess.run(
        ["squeue", "--noheader", "--format=%A %Z"], capture_output=True, text=True, check=False
    )
    jobs = [line.split(None, 1) for line in listed.stdout.splitlines()]
    for job, place in jobs:
        if place.startswith(f"{path}/"):
            subprocess.run(["scancel", job], check=False)


@contextmanager
def once(place, what):
    """Tell the first worker to come True, the others False when it is done."""
    with (place / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = place / f"{what}.done"
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def account(place):
    """An ordinary account with valska installed from a wheel, and a small tool as a plugin."""
    name = ORDINARY if os.geteuid() == 0 else None
    if name and subprocess.run(["id", name], capture_output=True, check=False).returncode != 0:
        unavailable(f"no account {name}: tests/cluster/user.sh makes it")
    work, plugin = place / "work", place / "plugin"
    account = Account(name, place / "home", work, place / "venv" / "bin")
    with once(place, "account") as first:
        if first:
            for path in (account.home, work, place / "images", place / "images" / "sha256"):
                path.mkdir()
                account.own(path)
            shutil.copytree(PLUGIN, plugin, ignore=shutil.ignore_patterns("__pycache__"))
            _install(place)
    return replace(account, env={"PYTHONPATH": plugin, "VALSKA_IMAGES": place / "images"})


def _install(place):
    """Install a wheel of this checkout for a Python that every account can run."""
    wheels, venv = place / "wheels", place / "venv"
    python = "/usr/bin/python3" if os.geteuid() == 0 else sys.executable
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", wheels, ROOT], check=True)
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
    wheel = next(wheels.glob("valska-*.whl"))
    subprocess.run([*pip, "--python", venv / "bin/python", "install", wheel], check=True)


@pytest.fixture(scope="session")
def pyuvsim_image(apptainer, account, place):
    """The image for pyuvsim, copied from the store of whoever runs the tests."""
    settings = resolve("pyuvsim")
    store = ImageStore(settings.images)
    try:
        image = resolve_image(settings.image, store, definition="pyuvsim.def")
    except ValskaError as error:
        unavailable(f"{error.message}: containers/build-images.sh pyuvsim builds it")
    with once(place, "pyuvsim-image") as first:
        for path in store.directory.glob(f"{image.sha256}.*") if first else ():
            account.own(shutil.copy(path, place / "images" / "sha256"))
    return place / "images" / "sha256" / f"{image.sha256}.sif"


@pytest.fixture(scope="session")
def tiny_image(apptainer, account, place):
    """An image of bash and coreutils, with its record beside it."""
    path = place / "tiny.sif"
    with once(place, "tiny-image") as first:
        if first:
            subprocess.run([ROOT / "tests/cluster/tiny-image.sh", path], check=True)
            path.chmod(0o644)
            record = adopt(path, ImageStore(place / "images")).files["tiny.image.json"][1]
            path.with_suffix(".json").write_bytes(record)
    return path


@pytest.fixture(scope="session")
def contract_image(apptainer, place):
    """An image in which the contract program stands for BayesEoR."""
    path = place / "contract.sif"
    with once(place, "contract-image") as first:
        if first:
            subprocess.run([ROOT / "tests/cluster/contract-image.sh", path], check=True)
            path.chmod(0o644)
    return path


@pytest.fixture
def user(account, request):
    """The account, in a directory of this test."""
    return account.in_directory(request.node.name[:40].replace("[", "-").replace("]", ""))
