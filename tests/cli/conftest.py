"""A user at a terminal: a home, a working directory, and a small tool installed as a plugin."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from valska.cli import main

PLUGIN = Path(__file__).parents[1] / "data" / "linetool"


@dataclass(frozen=True)
class User:
    """Runs valska in a directory of their own."""

    home: Path
    cwd: Path

    def run(self, *args: object) -> Result:
        """Run in this process."""
        return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="valska")

    def ok(self, *args: object) -> Result:
        """Run, and expect exit code 0."""
        result = self.run(*args)
        assert result.exit_code == 0, result.output
        return result

    def process(self, *args: object, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run the installed program."""
        return subprocess.run(
            [sys.executable, "-m", "valska", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **options,
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file below the working directory."""
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def bundle(self, *args: object, output: str = "bundle") -> Path:
        """Make a bundle of the small tool, to be run on the host."""
        command = ("bundle", "linetool", "--template", "three", "--runner", "host")
        return Path(self.ok(*command, "-o", output, *args).stdout.splitlines()[-1])


@pytest.fixture
def user(tmp_path, monkeypatch):
    home, cwd = tmp_path / "home", tmp_path / "a place"
    home.mkdir()
    cwd.mkdir()
    for name in list(os.environ):
        if name.startswith(("VALSKA_", "XDG_", "SBATCH_", "SLURM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.chdir(cwd)
    return User(home, cwd)
