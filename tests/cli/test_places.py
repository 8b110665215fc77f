"""What is not of the kind that a verb takes: one error, which names its kind and a verb for it."""

import io
import os
import tarfile

import pytest

ARCHIVE = b"\x28\xb5\x2f\xfd damaged"
IMAGE = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0cut off"


@pytest.fixture
def things(user):
    """A file of each kind, by what it begins with."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        file.addfile(tarfile.TarInfo("member"))
    contents = {"archive": ARCHIVE, "image": IMAGE, "tar": tar.getvalue(), "text": b"text\n"}
    for name, content in contents.items():
        (user.cwd / name).write_bytes(content)
    (user.cwd / "directory").mkdir()
    return user


def refused(user, *command, code=2):
    """Return the message and the hint of a command that is refused."""
    done = user.run(*command)
    lines = done.stderr.splitlines()
    assert (done.exit_code, len(lines), done.stdout) == (code, 2, ""), done.output
    assert (lines[0][:7], lines[1][:6]) == ("Error: ", "Hint: ")
    return lines[0][7:], lines[1][6:]


RUNS = ["submit", "status", "cancel", "show", "plot", "report", "archive", "clean", "list"]


@pytest.mark.parametrize("verb", RUNS)
def test_a_verb_for_runs_says_what_a_file_is(things, verb):
    message, hint = refused(things, verb, "archive")
    assert (message, "valska unpack" in hint) == (
        "archive is an archive, not a bundle or sweep",
        True,
    )
    message, hint = refused(things, verb, "image")
    assert message == "image is a container image, not a bundle or sweep"
    assert refused(things, verb, "tar")[0] == "tar is a tar file, not a bundle or sweep"
    message, hint = refused(things, verb, "text")
    assert (message, "valska bundle" in hint) == ("text is a file, not a bundle or sweep", True)


@pytest.mark.parametrize("verb", ["unpack", "sign"])
def test_a_verb_for_archives_says_what_is_none(things, verb):
    assert "directory is a directory, not an archive" in refused(things, verb, "directory")[0]
    assert "image is a container image, not an archive" in refused(things, verb, "image")[0]
    message, hint = refused(things, verb, "tar")
    assert ("not an archive" in message, "valska load" in hint) == (True, True)
    assert refused(things, verb, "gone", code=3)[0].startswith("no such archive")


@pytest.mark.parametrize("verb", ["archive", "submit", "cancel", "sign"])
def test_the_bundle_in_what_was_unpacked_is_named(user, verb):
    (user.cwd / "un packed/data").mkdir(parents=True)
    user.bundle(output="un packed/data/bundle")
    code = 2 if verb == "sign" else 3
    assert "un packed/data/bundle" in refused(user, verb, "un packed", code=code)[1]


def test_an_image_is_not_verified_as_an_archive(things):
    assert "not a bundle, sweep or archive" in refused(things, "reproduce", "image")[0]
    message, hint = refused(things, "verify", "image")
    assert message == "image is a container image, not a bundle, sweep or archive"
    assert "valska image" in hint
    assert things.run("verify", "archive").exit_code == 5
    assert refused(things, "verify", "text")[0] == "text is not an archive"


def test_what_is_no_kit(things):
    assert "valska image import" in refused(things, "load", "image")[1]
    assert "valska unpack" in refused(things, "load", "archive")[1]
    assert "not a kit" in refused(things, "load", "directory")[0]


def test_what_cannot_be_read_or_is_no_file_does_not_hang(things):
    os.mkfifo(things.cwd / "pipe")
    assert refused(things, "show", "pipe")[0] == "pipe is a file, not a bundle or sweep"


@pytest.mark.parametrize("verb", ["show", "verify", "sign"])
def test_a_file_is_no_image_of_the_store(things, verb):
    (things.cwd / "x.sif").write_bytes(IMAGE)
    message, hint = refused(things, "image", verb, "./x.sif", "--images", "st")
    assert message == "./x.sif is a file, not an image of the store"
    assert hint == "Take it in first: valska image import ./x.sif"


def test_the_store_is_printed_without_dots(things):
    said = things.ok("image", "list", "--images", f"../{things.cwd.name}/st").stderr
    assert said == f"There is no image in {things.cwd.resolve()}/st.\n"


@pytest.mark.parametrize("command", [("clean", "."), ("image", "gc")])
def test_what_clears_away_has_a_dry_run(things, command):
    assert "exclude each other" in refused(things, *command, "--execute", "--dry-run")[0]
    assert "exclude each other" in refused(things, *command, "--dry-run", "--execute")[0]
    plain = things.ok(*command)
    assert things.ok(*command, "--dry-run").output == plain.output


def test_a_receipt_where_there_is_no_directory(things):
    assert refused(things, "verify", "directory", "--receipt", "no/x")[0] == "no such directory: no"


def test_a_kit_of_nothing_is_told_before_its_file(things):
    assert "'nothing'" in refused(things, "fetch", "nothing")[0]
    assert refused(things, "fetch", "pyuvsim")[0] == "no file is named"
