"""Slurm directives: the table, and what is refused."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.directives import (
    DIRECTIVES,
    OWNED,
    DirectiveError,
    Kind,
    check_directive,
    parse_directive,
)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("time", "01:30:00", "01:30:00"),
        ("comment", " two words ", "two words"),
        ("exclusive", True, ""),
        ("exclusive", "user", "user"),
        ("exclusive", False, None),
        ("overcommit", True, ""),
        ("mem", None, None),
        ("nice", "0", "0"),
    ],
)
def test_value_becomes_text(name, value, text):
    assert check_directive(name, value) == text


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("tmie", "1", "no option 'tmie'", "'time'"),
        ("cpus_per_task", "2", "no option 'cpus_per_task'", "'cpus-per-task'"),
        ("zzzzzz", "2", "no option", "long option"),
        ("time", True, "needs a value", "null"),
        ("time", False, "needs a value", "null"),
        ("time", "  ", "is empty", "null"),
        ("overcommit", "yes", "takes no value", "true"),
        ("comment", "a\nb", "control character", None),
        ("comment", "a\x1bb", "control character", None),
        ("comment", "a\udcffb", "control character", None),
        ("wait", True, "cannot be set", None),
    ],
)
def test_refused(name, value, message, hint):
    with pytest.raises(DirectiveError, match=message) as caught:
        check_directive(name, value)
    assert caught.value.exit_code == 2
    assert hint is None or hint in caught.value.hint


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_valska_owns_is_refused_with_the_reason(name):
    with pytest.raises(DirectiveError) as caught:
        check_directive(name, None)
    assert OWNED[name] in caught.value.message


def test_owned_and_allowed_do_not_overlap():
    assert not OWNED.keys() & DIRECTIVES.keys()


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("time=1-00", ("time", "1-00")),
        ("--time=1-00", ("time", "1-00")),
        ("comment=a=b", ("comment", "a=b")),
        ("time=", ("time", None)),
        ("exclusive", ("exclusive", "")),
        ("exclusive=", ("exclusive", None)),
    ],
)
def test_command_line_form(text, parsed):
    assert parse_directive(text) == parsed


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_printable_value_comes_through(value):
    if value.strip():
        assert check_directive("comment", value) == value.strip()


@given(st.text('ab ="', max_size=4), st.sampled_from("\n\r\x00\x1b\x7f"), st.text("ab", max_size=4))
def test_no_control_character_comes_through(before, control, after):
    with pytest.raises(DirectiveError):
        check_directive("comment", f"a{before}{control}{after}b")


@pytest.mark.slurm
def test_table_knows_every_option_of_the_installed_sbatch():
    words = _sbatch_help_options()
    assert words - DIRECTIVES.keys() - OWNED.keys() == set()
    flags = {name for name in words if DIRECTIVES.get(name) is Kind.FLAG}
    assert "contiguous" in flags


def _sbatch_help_options():
    assert shutil.which("sbatch")
    text = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, check=True).stdout
    words = (word for line in text.splitlines() for word in line.split() if word.startswith("--"))
    return {word[2:].split("=")[0].split("[")[0].rstrip(",") for word in words} - {""}
