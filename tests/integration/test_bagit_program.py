"""bagit.py as a program judges what tar unpacked: what an archivist runs."""

import subprocess
import sys

import pytest
from archives import finished, pack


def bagit(top):
    argv = [sys.executable, "-m", "bagit", "--validate", top]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", ["data/bundle/config/run.yaml", "README.md", "bag-info.txt"])
def test_bagit_validates_and_finds_what_was_altered(tmp_path, name):
    pack(finished(tmp_path), tmp_path / "a.tar.zst")
    subprocess.run(["tar", "--zstd", "-xf", "a.tar.zst"], cwd=tmp_path, check=True)
    top = tmp_path / "r1"
    done = bagit(top)
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr
    with (top / name).open("ab") as file:
        file.write(b"# more\n")
    done = bagit(top)
    assert done.returncode == 1
    assert "is invalid" in done.stderr
