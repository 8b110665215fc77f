"""An account that runs programs, and valska among them, on the machine of the tests."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
