"""What holds for every verb: errors, exit codes, streams, global options."""

import errno
import json
import logging
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from valska import __version__
from valska.cli import _VERBS, main
from valska.cli.errors import guarded
from valska.cli.output import plain, table
from valska.cli.state import State
from valska.external_tools.core.errors import (
    ConfigError,
    PrerequisiteError,
    SubmissionError,
    UsageError,
    ValskaError,
    VerificationError,
)


def test_version(user):
    assert user.ok("--version").stdout == f"valska {__version__}\n"
    assert user.ok("tools", "--version").stdout == f"valska {__version__}\n"


def test_help_lists_every_verb_with_its_own_summary(user):
    text = " ".join(user.ok("--help").stdout.split())
    for name, summary in _VERBS.items():
        assert f"{name} {summary}" in text


READING = {
    *("completion", "config show", "doctor", "list", "show", "status", "tools", "verify"),
    *("image diff", "image list", "image show", "image verify"),
}
"""The commands that change nothing; what ``verify --receipt`` writes is its answer."""


def commands(context):
    """Yield the context of each command that is no group."""
    group = context.command
    if not isinstance(group, click.Group):
        yield context
        return
    for name in group.list_commands(context):
        inner = click.Context(group.get_command(context, name), info_name=name, parent=context)
        yield from commands(inner)


EVERY = {
    context.command_path.partition(" ")[2]: context.command
    for context in commands(click.Context(main, info_name="valska"))
}


@pytest.mark.parametrize("name", EVERY)
def test_what_changes_something_has_a_dry_run_and_what_answers_has_json(name):
    options = {word for param in EVERY[name].params for word in param.opts}
    assert ("--dry-run" in options) == (name not in READING)
    assert ("--json" in options) == (name != "completion")


@pytest.mark.parametrize("name", EVERY)
def test_each_option_has_a_sentence(name):
    for param in EVERY[name].params:
        if isinstance(param, click.Option):
            assert param.help, param.opts
            assert param.help[0].isupper() or param.help[0] in "`-", param.help
            assert param.help[-1] in ".])", param.help


@pytest.mark.parametrize("word", ["--json", "--images", "--ca-bundle", "--no-https", "--slurm"])
def test_an_option_of_several_verbs_is_told_in_the_same_words(word):
    told = [one.help for every in EVERY.values() for one in every.params if word in one.opts]
    assert len(told) > 1
    assert len(set(told)) == 1


@pytest.mark.parametrize("name", _VERBS)
def test_every_verb_has_help_and_the_global_options(user, name):
    text = user.ok(name, "--help").stdout
    assert "Usage: valska" in text
    if name != "config":
        assert "--debug" in text
        assert "--config" in text
    command = main.get_command(click.Context(main), name)
    assert all(
        param.help
        for param in command.params
        if isinstance(param, click.Option) and param.name not in ("runner",)
    )


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["bnudle"], "No such command 'bnudle'. Did you mean 'bundle'?", "valska --help"),
        (["--verbos"], "No such option", "valska --help"),
        (["verify"], "Missing argument 'PATH'", "valska verify --help"),
        (["completion", "tcsh"], "'tcsh' is not one of", "valska completion --help"),
        (["bundle", "nowhere"], "no tool is called 'nowhere'", "Installed: "),
        (["--config", "none.yaml", "config", "show"], "no such configuration file", "path"),
    ],
)
def test_bad_arguments(user, args, message, hint):
    result = user.run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()[-2:]
    assert first.startswith("Error: ")
    assert message in first
    assert second.startswith("Hint: ")
    assert hint in second


@pytest.mark.parametrize("words", [[], ["config"]])
def test_without_a_verb_the_help_is_shown_line_by_line(user, words):
    result = user.run(*words)
    assert result.output.startswith("Usage: valska")
    assert "\nCommands:\n" in result.output
    assert "Error:" not in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("error", "code", "first"),
    [
        (ValskaError("a", "b"), 1, "Error: a"),
        (UsageError("a", "b"), 2, "Error: a"),
        (ConfigError("a", "b"), 2, "Error: a"),
        (PrerequisiteError("a", "b"), 3, "Error: a"),
        (SubmissionError("a", "b"), 4, "Error: a"),
        (VerificationError("a\nb\x1b[31m", "b"), 5, "Error: a b\\x1b[31m"),
        (click.Abort(), 130, "Interrupted."),
        (OSError(errno.ENOSPC, "No space left on device", "/f"), 1, "Error: /f: no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/f"), 1, "Error: /f: permission"),
        (OSError(errno.EIO, "Input/output error"), 1, "Error: input/output error"),
        (KeyError("x"), 1, "Error: valska failed unexpectedly: KeyError: 'x'"),
    ],
)
def test_errors_become_one_line_and_a_code(capsys, error, code, first):
    def fail():
        raise error

    assert guarded(fail, State()) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith(first)
    assert "Traceback" not in err
    assert len(lines) == (1 if code == 130 else 2)


def test_a_fault_of_valska_asks_for_debug_which_shows_the_traceback(capsys):
    def fail():
        raise RuntimeError("boom")

    state = State()
    guarded(fail, state)
    assert "--debug" in capsys.readouterr().err
    state.debug = True
    guarded(fail, state)
    assert "Traceback" in capsys.readouterr().err


def test_debug_after_the_verb(user):
    result = user.run("verify", "none", "--debug")
    assert result.exit_code == 3
    assert "Traceback" in result.stderr


def test_interrupt_ends_with_130(user, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("valska.cli.verify.is_bundle", interrupt)
    result = user.run("verify", ".")
    assert result.exit_code == 130
    assert result.stderr.split() == ["Interrupted."]


def test_a_real_full_disk_is_told(user):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "valska", "tools"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "no space left on device" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_quiet(user):
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "valska", "completion", "bash"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert "Traceback" not in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ([], logging.WARNING),
        (["-v"], logging.INFO),
        (["-vv"], logging.DEBUG),
        (["-q"], logging.ERROR),
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_verbosity(user, options, level, after):
    args = ["tools", *options] if after else [*options, "tools"]
    user.ok(*args)
    assert logging.getLogger("valska").level == level


def test_quiet_leaves_results_alone(user):
    loud, quiet = user.ok("config", "show"), user.ok("-q", "config", "show")
    assert loud.stdout == quiet.stdout
    assert loud.stderr
    assert not quiet.stderr


def test_no_heavy_module_is_imported_for_the_version():
    code = (
        "import sys\n"
        "from valska.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'yaml', 'jsonschema', 'rich', 'spython', 'logging', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_importing_valska_imports_only_the_standard_library():
    code = "import sys, valska; print([m for m in ('yaml', 'click', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_loads():
    import valska

    for name in valska.__all__:
        assert getattr(valska, name) is not None
    assert set(valska.__all__) <= set(dir(valska))
    with pytest.raises(AttributeError):
        valska.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("shell", "code"), [("bash", "complete "), ("zsh", "#compdef"), ("fish", "complete ")]
)
def test_completion_code(user, shell, code):
    assert code in user.ok("completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("valska ver", {"verify"}),
        ("valska bundle line", {"linetool"}),
        ("valska bundle linetool --template ", {"three"}),
        ("valska submit bundle --stage ", {"count", "double"}),
        ("valska submit nowhere --stage ", set()),
        ("valska completion z", {"zsh"}),
    ],
)
def test_what_completion_offers(user, words, offered):
    user.bundle()
    count = len(words.split()) - (0 if words.endswith(" ") else 1)
    environ = {
        **os.environ,
        "_VALSKA_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(count),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from valska.cli import main; main(prog_name='valska')"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert {name for name in found if name and not name.startswith("-")} == offered


def test_colour_is_for_terminals_that_want_it(user):
    import pty

    def seen(**variables):
        master, slave = pty.openpty()
        environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        done = subprocess.run(
            [sys.executable, "-m", "valska", "verify", "none"],
            stderr=slave,
            env={**environ, "TERM": "xterm", **variables},
            check=False,
        )
        os.close(slave)
        assert done.returncode == 3
        return os.read(master, 4096)

    assert b"\x1b[" in seen()
    assert b"\x1b[" not in seen(NO_COLOR="1")


def test_tables_are_aligned_and_plain():
    assert table([("a", "b"), ("ccc", "d")]) == "a    b\nccc  d"
    assert table([]) == ""
    assert plain("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"


def test_console_scripts_of_pyuvsim(user, monkeypatch, capsys):
    per_tool = import_module("valska.cli.per_tool")
    monkeypatch.setattr(sys, "argv", ["valska-pyuvsim-prepare", "none.yaml", "--runner", "host"])
    with pytest.raises(SystemExit) as left:
        per_tool.pyuvsim_prepare()
    assert left.value.code == 2
    assert "none.yaml" in capsys.readouterr().err
    bundle = user.bundle()
    monkeypatch.setattr(sys, "argv", ["valska-pyuvsim-submit", str(bundle)])
    with pytest.raises(SystemExit) as left:
        per_tool.pyuvsim_submit()
    assert left.value.code == 2
    assert "is a bundle of linetool, not of pyuvsim" in capsys.readouterr().err


def test_tools(user):
    result = user.ok("tools")
    assert "linetool    count the lines of a file" in result.stdout
    broken = next(line for line in result.stdout.splitlines() if line.startswith("brokentool"))
    assert "does not load" in broken
    entries = {entry["name"]: entry for entry in json.loads(user.ok("tools", "--json").stdout)}
    assert entries["linetool"]["stages"] == ["count", "double"]
    assert entries["brokentool"]["error"]
    assert entries["pyuvsim"]["error"] is None
