"""The line that tells how far work on many bytes is, at a terminal and elsewhere."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

WORK = """
import time
import click
from valska.cli.state import State
from valska.cli.transfer import WORTH_TELLING, Transfer

@click.command()
@click.pass_context
def main(context):
    context.obj = State()
    context.obj.verbosity = {verbosity}
    with Transfer("Packing") as transfer:
        transfer.reach(WORTH_TELLING, 4 * WORTH_TELLING)
        time.sleep(0.3)
        transfer.reach(2 * WORTH_TELLING, 4 * WORTH_TELLING)
        transfer.start("a\\nname", None)
        transfer.advance(WORTH_TELLING)
        time.sleep(0.3)
        transfer.advance(WORTH_TELLING)
        transfer.start("small", 5)
        transfer.advance(5)
        transfer.start("cut off", WORTH_TELLING * 2)
        transfer.advance(WORTH_TELLING)
        raise click.ClickException("gone")

main()
"""


def told(verbosity=0, terminal=True, columns=60, **variables):
    """Return what is written to stderr, which may be a terminal; stdout is none."""
    master, slave = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    code = WORK.format(verbosity=verbosity)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", **variables},
    )
    os.close(slave)
    said = b""
    with os.fdopen(master, "rb", buffering=0) as stream:
        while True:
            try:
                chunk = stream.read(4096)
            except OSError:
                break
            if not chunk:
                break
            said += chunk
    assert process.wait(20) == 1
    return said.decode().replace("\r\n", "\n")


def test_at_a_terminal_one_line_is_drawn_in_place():
    drawn = told().split("\r\x1b[K")
    assert drawn[0] == ""
    assert drawn[1].startswith("Packing: 20.0 MB of 40.0 MB, ")
    assert drawn[1].endswith("/s, 0:00:00 left")
    assert [text for text in drawn if "small" in text or "cut off" in text] == []
    assert drawn[-1].endswith("\nError: gone\n")
    assert max(map(len, drawn[1:-1])) < 60


@pytest.mark.parametrize(
    ("columns", "variables", "width"), [(30, {}, 30), (60, {"COLUMNS": "20"}, 20), (0, {}, 80)]
)
def test_the_line_is_no_wider_than_the_terminal(columns, variables, width):
    drawn = told(columns=columns, **variables).split("\r\x1b[K")[1]
    assert drawn.startswith("Packing: 20.0 MB of")
    assert len(drawn) == width - 1 or (width == 80 and drawn.endswith(" left"))


def test_elsewhere_what_is_through_is_told_once():
    first, second, last = told(terminal=False).splitlines()
    assert first.startswith("Packing: 20.0 MB, ")
    assert second.startswith(r"a\nname: 20.0 MB, ")
    assert (first[-4:], last) == ("MB/s", "Error: gone")


@pytest.mark.parametrize(("verbosity", "variables"), [(-1, {}), (0, {"TERM": "dumb"})])
def test_nothing_is_drawn_where_it_is_not_wanted_or_cannot_be(verbosity, variables):
    said = told(verbosity, **variables)
    assert "\x1b" not in said
    assert said.endswith("Error: gone\n")
    assert ("Packing" in said) == (verbosity == 0)
