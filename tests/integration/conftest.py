"""An ordinary user of a real cluster: valska installed from a wheel, a home, an image store."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from valska.external_tools.core.config import resolve

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

    def in_directory(self, name):
        """Return the account, working in a new directory below its own."""
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))
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
def place(worker_id):
    """A directory that every account can reach, with no symbolic link in its name."""
    path = Path(tempfile.mkdtemp(prefix=f"valska-{worker_id}-")).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def account(place):
    """An ordinary account with valska installed from a wheel."""
    name = None
    if os.geteuid() == 0:
        name = ORDINARY
        if subprocess.run(["id", name], capture_output=True, check=False).returncode != 0:
            unavailable(f"no account {name}: tests/cluster/user.sh makes it")
    home, work = place / "home", place / "work"
    for path in (home, work):
        path.mkdir()
        if name:
            shutil.chown(path, name, name)
    account = Account(name, home, work, _install(place))
    return replace(account, env={"PYTHONPATH": str(_plugin(place))})


def _install(place):
    """Install a wheel of this checkout for a Python that every account can run."""
    wheels, venv = place / "wheels", place / "venv"
    python = "/usr/bin/python3" if os.geteuid() == 0 else sys.executable
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", wheels, ROOT], check=True)
    subprocess.run([python, "-m", "venv", venv], check=True)
    wheel = next(wheels.glob("valska-*.whl"))
    subprocess.run([venv / "bin/pip", "--quiet", "install", wheel], check=True)
    return venv / "bin"


def _plugin(place):
    target = place / "plugin"
    shutil.copytree(PLUGIN, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.fixture(scope="session")
def pyuvsim_image(apptainer, place):
    """The image of containers/pyuvsim.def, from the store of whoever runs the tests."""
    from valska.external_tools.core.images import ImageStore, resolve_image

    store = ImageStore(resolve("pyuvsim").images)
    try:
        image = resolve_image(None, store, definition="pyuvsim.def")
    except Exception as error:
        unavailable(f"no pyuvsim image ({error}): containers/build-images.sh pyuvsim builds it")
    target = place / "pyuvsim.sif"
    shutil.copy(image.path, target)
    target.chmod(0o644)
    return target


@pytest.fixture
def user(account, request):
    """The account, in a directory of this test."""
    return account.in_directory(request.node.name[:40].replace("[", "-").replace("]", ""))


def wait_until(condition, timeout=90, pause=0.3):
    """Return the first true answer of a condition."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(pause)
    raise AssertionError(f"not within {timeout} s: {condition}")
