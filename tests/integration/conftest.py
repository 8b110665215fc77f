"""An ordinary user of a real cluster: valska installed from a wheel, a home, an image store."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images import adopt, resolve_image
from valska.external_tools.core.images.store import ImageStore

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "data" / "linetool"
ORDINARY = "valska-test"
"""The account that tests/cluster/user.sh makes; used when the tests run as root."""


@dataclass(frozen=True)
class Account:
    """Runs programs as somebody who is not root, with nothing of this process's environment."""

    name: str | None
    home: Path
    work: Path
    bin: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, *argv, cwd=None, env=None, check=True, timeout=300, with_valska=True):
        """Run a program to its end; `check` expects exit code 0."""
        done = subprocess.run(
            self.command(*argv, env=env, with_valska=with_valska),
            cwd=cwd or self.work,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *argv, cwd=None, env=None, **options):
        """Start a program and return its process."""
        return subprocess.Popen(self.command(*argv, env=env), cwd=cwd or self.work, **options)

    def command(self, *argv, env=None, with_valska=True):
        path = f"{self.bin}:/usr/local/bin:/usr/bin:/bin" if with_valska else "/usr/bin:/bin"
        variables = {"PATH": path, "HOME": self.home, "LANG": "C.UTF-8", **self.env, **(env or {})}
        as_user = ["runuser", "-u", self.name, "--"] if self.name else []
        words = [f"{name}={value}" for name, value in variables.items()]
        return [*as_user, "env", "-i", *words, *map(str, argv)]

    def valska(self, *args, **options):
        """Run valska."""
        return self.run(self.bin / "valska", *args, **options)

    def bundle(self, *args, output="bundle", **options):
        """Make a bundle and return its path."""
        done = self.valska("bundle", *args, "-o", output, **options)
        return Path(done.stdout.splitlines()[-1])

    def lines(self, *args, then=None, image=None, output="bundle"):
        """Bundle the small tool; `then` is shell code that its first stage ends with."""
        runner = ["--image", image] if image else ["--runner", "host"]
        code = ["--override", "then=" + json.dumps(then)] if then else []
        return self.bundle("linetool", "--template", "three", *runner, *code, *args, output=output)

    def submit(self, bundle, *args, **options):
        """Submit a bundle and return the job of each stage."""
        done = self.valska("submit", bundle, "--json", *args, **options)
        found = json.loads(done.stdout)
        return {stage: job["job_id"] for stage, job in found["jobs"].items()}

    def states(self, bundle, **options):
        """Return the state of each stage."""
        stages = self.status(bundle, **options)["stages"]
        return {stage["stage"]: stage["state"] for stage in stages}

    def status(self, bundle, **options):
        """Return what status says."""
        return json.loads(self.valska("status", bundle, "--json", **options).stdout)

    def write(self, name, text, mode=0o644):
        """Write a file into the working directory."""
        path = self.work / name
        path.write_text(text)
        path.chmod(mode)
        self.own(path)
        return path

    def in_directory(self, name):
        """Return the account, working in a new directory below its own."""
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))
        work.chmod(0o755)
        self.own(work)
        return replace(self, work=work)

    def own(self, path):
        """Give a path to this account."""
        if self.name:
            shutil.chown(path, self.name, self.name)

    def remove(self, path):
        """Delete a tree."""
        shutil.rmtree(path, ignore_errors=True)


def need(program, reason):
    """Skip, or fail where services are required, if a program is absent."""
    if shutil.which(program) is None:
        unavailable(f"{program} is not here: {reason}")


def unavailable(reason):
    """Skip the test, or fail it where the services are required."""
    if os.environ.get("VALSKA_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


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
