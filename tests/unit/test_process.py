"""The seam to other programs, with real programs."""

import sys
import time

import pytest

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.process import ProcessTimeoutError, run

ODD = ["two words", "it's", '"', "$HOME `id`", "a\nb", "é", ""]


def test_arguments_arrive_as_they_are_and_no_shell_sees_them():
    done = run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *ODD])
    assert done.returncode == 0
    assert done.stdout.strip() == str(ODD)
    assert done.argv[3:] == tuple(ODD)


def test_exit_code_and_both_texts():
    done = run(["bash", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_death_by_a_signal_is_negative():
    assert run(["bash", "-c", "kill -9 $$"]).returncode == -9


def test_directory_and_whole_environment(tmp_path):
    done = run(["/usr/bin/env"], cwd=tmp_path, env={"ONLY": "this"})
    assert done.stdout == "ONLY=this\n"
    assert run(["pwd"], cwd=tmp_path).stdout == f"{tmp_path}\n"


def test_standard_input_is_empty():
    assert run(["cat"], timeout=10).stdout == ""


@pytest.mark.parametrize("stop", [None, lambda said: False])
def test_standard_input_from_a_file(tmp_path, stop):
    source = tmp_path / "source"
    source.write_text("read\n")
    assert run(["cat"], timeout=10, stdin=source, stop=stop).stdout == "read\n"


def test_standard_input_that_is_not_there(tmp_path):
    with pytest.raises(PrerequisiteError, match="gone cannot be read: No such file"):
        run(["cat"], stdin=tmp_path / "gone")


def test_bytes_that_are_not_text_do_not_fail():
    assert run(["printf", r"a\xffb"]).stdout == "a\ufffdb"


def test_uncaptured_goes_where_the_callers_goes(capfd):
    done = run(["echo", "seen"], capture=False)
    assert (done.stdout, capfd.readouterr().out) == ("", "seen\n")


def test_no_such_program():
    with pytest.raises(PrerequisiteError, match="no such program: valska-no-such") as caught:
        run(["valska-no-such"])
    assert caught.value.exit_code == 3


def test_no_such_directory_is_not_called_a_missing_program(tmp_path):
    with pytest.raises(PrerequisiteError, match="no such directory"):
        run(["true"], cwd=tmp_path / "gone")


@pytest.mark.parametrize(("mode", "text"), [(0o644, "#!/bin/sh\n"), (0o755, "not a program")])
def test_program_that_cannot_be_run(tmp_path, mode, text):
    program = tmp_path / "program"
    program.write_text(text)
    program.chmod(mode)
    with pytest.raises(PrerequisiteError, match="cannot be run"):
        run([str(program)])


def test_too_long_arguments():
    with pytest.raises(PrerequisiteError, match="true cannot be run"):
        run(["true", "x" * (1 << 22)])


def test_timeout_does_not_wait_for_grandchildren_that_hold_the_pipe():
    began = time.monotonic()
    with pytest.raises(ProcessTimeoutError, match=r"within 0\.2 s"):
        run(["bash", "-c", "sleep 5 & wait"], timeout=0.2)
    assert time.monotonic() - began < 4
