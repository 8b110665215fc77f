"""Running job scripts for real, and reading what they wrote down."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from processes import children

from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.schema import validate


class Scripts:
    """Runs the job scripts of bundles with bash, in an environment of their own."""

    def __init__(self, scratch):
        self.scratch = scratch
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
        }
        self.started = []

    def start(self, bundle, *arguments, stage="simulate", script=None, cwd=None, env=None):
        process = subprocess.Popen(
            ["bash", str(script or bundle.script(stage).name), *arguments],
            cwd=cwd or bundle.path,
            env=self.environment | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def run(self, *arguments, **more):
        """Run a script to its end; return exit code, stdout and stderr."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=60)
        return process.returncode, os.fsdecode(out), os.fsdecode(err)

    def left_over(self):
        """Return what the jobs left in their scratch directory."""
        return [path.name for path in self.scratch.glob("valska-*")]

    def end(self):
        for process in self.started:
            for pid in (*children(process.pid).values(), process.pid):
                if process.poll() is None:
                    os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archive of a finished run."""
    from archives import finished, pack

    folder = tmp_path_factory.mktemp("archives")
    pack(finished(folder), folder / "a.tar.zst")
    return folder / "a.tar.zst"


@pytest.fixture
def scripts(tmp_path):
    scratch = tmp_path / "scratch, here"
    scratch.mkdir()
    scripts = Scripts(scratch)
    yield scripts
    scripts.end()


def records(bundle: Bundle, stage="simulate"):
    """Return the records of a stage, oldest first, each checked against its schema."""
    paths = sorted(
        bundle.records.glob(f"{stage}-*.json"), key=lambda path: Path(path).stat().st_mtime_ns
    )
    read = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for path, record in zip(paths, read, strict=True):
        validate(record, "stage-record-1", path.name)
    return read


@pytest.fixture(name="records")
def records_fixture():
    return records
