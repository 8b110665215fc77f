"""What a user writes into a directive is what Slurm has."""

import re
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from valska.external_tools.core.jobscript import quote_directive

pytestmark = pytest.mark.slurm

GOLDEN = sorted(Path(__file__).parents[1].glob("golden/submit_*.sh"))
NASTY = (
    "plain",
    "two  words",
    'a "quoted" word',
    "it's",
    "back\\slash",
    "ends in a backslash\\",
    "a # no comment",
    "#SBATCH --time=1",
    "$HOME `id` $(id)",
    "semi; colon & pipe | < >",
    "--time=1",
    "ünïcödé ☃",
    "%x %j 100%",
    '\\"',
    "'\"'\"'",
    "a=b,c:d",
    "*?[x]~!",
)


def comment_in_slurm(user, script):
    """Hold a job in the queue and return the comment that Slurm has of it."""
    sent = user.run("sbatch", "--parsable", "--hold", "--output=/dev/null", script)
    job = sent.stdout.strip()
    shown = user.run("scontrol", "show", "job", job).stdout
    user.run("scancel", job)
    return re.search(r"^   Comment=(.*) $", shown, re.MULTILINE)[1]


def round_trip(user, value):
    text = f"#!/bin/bash\n#SBATCH --comment={quote_directive(value)}\n#SBATCH --time=9\ntrue\n"
    return comment_in_slurm(user, user.write("try.sh", text))


@pytest.mark.parametrize("value", NASTY)
def test_a_value_comes_out_as_it_went_in(slurm, user, value):
    assert round_trip(user, value) == value


def test_a_value_goes_through_the_whole_bundle(slurm, user):
    value = 'it\'s "a" # \\ $HOME ☃'
    bundle = user.lines("--slurm", f"comment={value}", "--slurm", "nodelist=n[1,2]")
    assert comment_in_slurm(user, bundle / "submit_count.sh") == value


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(string.printable[:95] + "äß€", min_size=1, max_size=40).map(str.strip).filter(bool))
def test_any_value_comes_out_as_it_went_in(slurm, user, value):
    assert round_trip(user, value) == value


VARIANTS = {
    "host": (),
    "many": ("nodes=2", "ntasks=4", "mem-per-cpu=100M", "exclusive", "nice=5", "comment=a b"),
    "long": ("time=1-00:00:00", "mail-type=NONE", "partition=debug", "constraint="),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_slurm_accepts_what_is_rendered(slurm, user, name):
    given = [word for value in VARIANTS[name] for word in ("--slurm", value)]
    bundle = user.lines(*given)
    for stage in ("count", "double"):
        user.run("sbatch", "--test-only", f"submit_{stage}.sh", cwd=bundle)


@pytest.mark.parametrize("script", GOLDEN, ids=lambda path: path.stem)
def test_slurm_accepts_the_golden_scripts(slurm, script):
    done = subprocess.run(
        ["sbatch", "--test-only", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
