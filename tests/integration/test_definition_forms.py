"""What our reader says of a definition's form, and what the real Apptainer says of it."""

import os
import subprocess

import pytest

from valska.external_tools.core.images.syntax import check_syntax

pytestmark = pytest.mark.apptainer

HEADER = "Bootstrap: localimage\nFrom: /nowhere/base.sif\n"
REFUSED = "while parsing definition"
"""What Apptainer says of a form that it does not take; else it goes on to look for the base."""


def apptainer_refuses(tmp_path, text):
    path = tmp_path / "x.def"
    path.write_text(text)
    done = subprocess.run(
        ["apptainer", "build", "--sandbox", tmp_path / "out", path],
        env={**os.environ, "APPTAINER_USERNS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    return REFUSED in done.stderr


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (f"{HEADER}%post\n  true\n", False),
        (f"{HEADER}%POST -c /bin/bash\n  true\n%post\n  true\n", False),
        (f"# x\n\n{HEADER}  # y\n%post\n  echo %x\n", False),
        (f"{HEADER}Include: a \\\n  b\n%post\n  true\n", False),
        (f"{HEADER}%appinstall x\n  true\n", False),
        (f"{HEADER}%pots\n  true\n", True),
        (f"{HEADER}%post\n  true\n  %test\n", True),
        (f"{HEADER}%post\n  cat <<E\n%load x\nE\n", True),
        (f"{HEADER}%post\n  cat <<E\n  %\nE\n", True),
        (f"{HEADER}%post\ttrue\n", True),
        (f"{HEADER}%appinstall\n  true\n", True),
        (f"{HEADER}Frm: x\n%post\n  true\n", True),
        (f"{HEADER}hello\n%post\n  true\n", True),
    ],
)
def test_both_refuse_the_same(apptainer, tmp_path, text, refused):
    assert apptainer_refuses(tmp_path, text) is refused
    assert bool(check_syntax(text)) is refused
