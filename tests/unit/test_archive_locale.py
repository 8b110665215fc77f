"""Names are bytes: in which locale they are read does not matter."""

import subprocess
import sys

import pytest
from archives import entries, finished, pack

PACK = """
import sys
from pathlib import Path
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.selection import Choice
from valska.external_tools.core.archive.source import select
from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.archive.verification import verify_unpacked
from valska.external_tools.core.archive.writing import write_archive
import os
bundle, folder = (Path(os.fsdecode(bytes.fromhex(arg))) for arg in sys.argv[1:])
write_archive(select(bundle, Choice()), folder / "2.tar.zst", Description())
unpack_archive(folder / "2.tar.zst", folder, folder / "there")
assert verify_unpacked(folder / "there").findings == ()
"""
LOCALES = {
    "no UTF-8": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("kind", LOCALES)
def test_names_are_the_same_in_every_locale(kind, tmp_path):
    bundle = finished(tmp_path)
    (bundle.logs / "é").write_text("x")
    pack(bundle, tmp_path / "1.tar.zst")
    argv = [bundle.path, tmp_path]
    subprocess.run(
        [sys.executable, "-c", PACK, *(bytes(one).hex() for one in argv)],
        env=LOCALES[kind],
        check=True,
        timeout=60,
    )
    assert "r1/data/bundle/logs/é" in entries(tmp_path / "2.tar.zst")
    assert (tmp_path / "1.tar.zst").read_bytes() == (tmp_path / "2.tar.zst").read_bytes()
    assert (tmp_path / "there/data/bundle/logs/é").read_text() == "x"
