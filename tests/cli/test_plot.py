"""``valska plot`` at the command line."""

import json

import pytest
from uvh5 import png_chunks, write_uvh5

HINT = "Hint:"


@pytest.fixture
def pyuvsim_bundle(user):
    command = ("bundle", "pyuvsim", "--template", "hera_small", "--runner", "host", "-o", "run")
    user.ok(*command, "--run-id", "first")
    return user.cwd / "run"


def test_the_picture_is_named_after_the_run(user, pyuvsim_bundle):
    write_uvh5(pyuvsim_bundle / "outputs" / "hera_small.uvh5")
    assert user.ok("plot", "run", "--dry-run").stdout == "first.png\n"
    assert not (user.cwd / "first.png").exists()
    assert user.ok("plot", "run").stdout == "first.png\n"
    told = json.loads(user.ok("plot", "run", "--dry-run", "--json").stdout)
    assert told == {"dry_run": True, "picture": str(user.cwd / "first.png")}
    assert png_chunks((user.cwd / "first.png").read_bytes())[-1] == "IEND"
    assert user.ok("plot", "run", "-o", "other.png").stdout == "other.png\n"
    assert (user.cwd / "other.png").read_bytes() == (user.cwd / "first.png").read_bytes()
    assert json.loads(user.ok("verify", "run", "--json").stdout)["intact"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("picture.jpg", "no name for a PNG"),
        ("nowhere/picture.png", "no such directory"),
        ("run/picture.png", "is sealed"),
        ("run/config/picture.png", "is sealed"),
    ],
)
def test_a_place_that_cannot_be_is_refused(user, pyuvsim_bundle, output, message):
    write_uvh5(pyuvsim_bundle / "outputs" / "hera_small.uvh5")
    result = user.run("plot", "run", "-o", output)
    assert result.exit_code == 2
    assert message in result.stderr
    assert HINT in result.stderr
    assert not list(user.cwd.rglob("*.png"))


def test_a_run_that_has_not_run(user, pyuvsim_bundle):
    result = user.run("plot", "run")
    assert result.exit_code == 3
    assert "no visibilities yet" in result.stderr


def test_a_tool_that_cannot_draw(user):
    user.bundle()
    result = user.run("plot", "bundle")
    assert result.exit_code == 2
    assert "linetool cannot draw" in result.stderr


def test_what_is_no_bundle(user):
    assert user.run("plot", ".").exit_code == 3
