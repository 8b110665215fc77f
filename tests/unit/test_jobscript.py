"""Job scripts as text: golden files, quoting, and what bash, shellcheck and sbatch make of it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import stage

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.jobscript import (
    Identity,
    all_directives,
    quote_directive,
    render_script,
)
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.tool import Launch, Resume

GOLDEN = Path(__file__).parents[1] / "golden"
COMMON = "# --- From here on every valska job script is the same"
IDENTITY = Identity("toy", "r1", "ab" * 32, "cd" * 16, "1.2.3")
ODD = stage(
    argv=("run", "two words", "it's", '"q"', "$HOME `id`", "a\nb", "", "é"),
    outputs=("out put", "d/it's"),
    env={"OMP_NUM_THREADS": "4", "V": "a 'b' $c"},
)
MPI = {"ranks": 4, "probe": ("python3", "-c", "print(4)")}
REFERENCES = [("inputs/data.txt", "12" * 32)]
BORROWED = [("outputs/matrices", "34" * 32)]
SAMPLING = stage(
    "fit",
    ("fit", "../config/fit.yaml"),
    ("fit/MN-*/stats.dat",),
    after=("prepare",),
    resume=Resume("fit/MN-*/resume.dat", "--from"),
)
SWEEP = {"sweep": True, "alone": False, "lent": [("prepare", "matrices")]}

VARIANTS = {
    "container": (RunnerKind.CONTAINER, stage(), {}),
    "container_gpus": (RunnerKind.CONTAINER, stage(gpus=True), {}),
    "container_mpiexec": (RunnerKind.CONTAINER, stage(**MPI), {}),
    "container_srun_gpus": (RunnerKind.CONTAINER, stage(launch=Launch.SRUN, gpus=True, **MPI), {}),
    "container_references": (RunnerKind.CONTAINER, stage(), {"references": REFERENCES}),
    "conda": (RunnerKind.CONDA, stage(), {}),
    "conda_mpiexec": (RunnerKind.CONDA, stage(**MPI), {}),
    "host": (RunnerKind.HOST, stage(), {}),
    "host_srun_gpus": (RunnerKind.HOST, stage(launch=Launch.SRUN, gpus=True, **MPI), {}),
    "host_odd_values": (RunnerKind.HOST, ODD, {"references": REFERENCES, "alone": False}),
    "container_borrowed": (
        RunnerKind.CONTAINER,
        SAMPLING,
        {"borrowed": BORROWED, "alone": False},
    ),
    "sweep_container": (RunnerKind.CONTAINER, SAMPLING, SWEEP),
    "sweep_conda": (RunnerKind.CONDA, SAMPLING, SWEEP),
    "sweep_host": (RunnerKind.HOST, stage(), {"sweep": True, "references": REFERENCES}),
}
DIRECTIVES = {"time": "01:00:00", "comment": 'it\'s "here" \\ #1', "exclusive": ""}
WHOLE = ("container", "conda", "host", "sweep_container")
"""Kept whole; of the others the part that differs is kept."""


def script_of(name):
    runner, planned, more = VARIANTS[name]
    sweep = more.get("sweep", False)
    return render_script(
        replace(IDENTITY, bundle_id="") if sweep else IDENTITY,
        planned,
        all_directives("toy", planned, DIRECTIVES, sweep=sweep),
        runner=runner,
        image_sha256="ef" * 32 if runner is RunnerKind.CONTAINER else None,
        **more,
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_golden(name, update_golden):
    text = script_of(name)
    kept = text if name in WHOLE else text.partition(COMMON)[0]
    path = GOLDEN / f"submit_{name}.sh"
    if update_golden:
        path.write_text(kept, encoding="utf-8")
    assert kept == path.read_text(encoding="utf-8"), "pytest --update-golden"


def test_every_golden_file_has_its_variant():
    assert {path.name for path in GOLDEN.glob("submit_*.sh")} == {
        f"submit_{name}.sh" for name in VARIANTS
    }


def test_the_common_part_is_the_same_in_every_script():
    assert len({script_of(name).partition(COMMON)[2] for name in VARIANTS}) == 1


@pytest.mark.parametrize("name", VARIANTS)
def test_bash_parses_it(tmp_path, name):
    path = tmp_path / "script.sh"
    path.write_text(script_of(name), encoding="utf-8")
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", VARIANTS)
def test_shellcheck_finds_nothing(tmp_path, name, require):
    require(shutil.which("shellcheck"), "shellcheck is not installed")
    path = tmp_path / "script.sh"
    path.write_text(script_of(name), encoding="utf-8")
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# --- Directives -----------------------------------------------------------------------------------


def sbatch_words(line):
    """Split an ``#SBATCH`` line as sbatch's own parser does."""
    words, word, quote, position = [], None, "", 0
    while position < len(line):
        char = line[position]
        position += 1
        if char == "\\" and position < len(line):
            word = (word or "") + line[position]
            position += 1
        elif quote:
            word, quote = (word, "") if char == quote else (word + char, quote)
        elif char in "\"'":
            word, quote = word or "", char
        elif char.isspace():
            words, word = ([*words, word], None) if word is not None else (words, None)
        elif char == "#":
            break
        else:
            word = (word or "") + char
    assert not quote
    return words if word is None else [*words, word]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_directive_comes_out_of_sbatch_as_it_went_in(value):
    assert sbatch_words(f"--comment={quote_directive(value)}") == [f"--comment={value}"]


@given(st.text(" \"'\\#a=$`", min_size=1, max_size=12))
def test_directive_of_special_characters_comes_out_as_it_went_in(value):
    assert sbatch_words(f"--x={quote_directive(value)} --y=1") == [f"--x={value}", "--y=1"]


@pytest.mark.parametrize("value", ["01:30:00", "logs/%x-%j.log", "B:TERM@60", "gpu:a100:2", "a,b"])
def test_plain_values_stay_plain(value):
    assert quote_directive(value) == value


@given(
    st.text(max_size=5),
    st.sampled_from([chr(code) for code in [*range(32), 127]]),
    st.text(max_size=5),
)
def test_control_characters_are_refused(before, control, after):
    with pytest.raises(UsageError) as caught:
        quote_directive(before + control + after)
    assert caught.value.exit_code == 2


def test_directive_that_is_not_utf_8_is_refused():
    with pytest.raises(UsageError, match="not UTF-8"):
        quote_directive("a\udcff")


@pytest.mark.parametrize("name", ["a b", "x\ny", "--time", "X", "", "a=b"])
def test_names_that_are_no_options_are_refused(name):
    with pytest.raises(UsageError, match="not an option"):
        render_script(IDENTITY, stage(), {name: "1"}, runner=RunnerKind.HOST)


def test_directives_stand_before_the_first_command():
    lines = script_of("host").splitlines()
    assert lines[0] == "#!/bin/bash"
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])
    assert '#SBATCH --comment="it\'s \\"here\\" \\\\ #1"' in lines
    assert "#SBATCH --exclusive" in lines


@pytest.mark.parametrize(
    ("time", "grace"),
    [(None, 60), ("60", 60), ("5", 30), ("1", 6), ("0:10", 5), ("1-0", 60), ("UNLIMITED", 60)],
)
def test_grace_follows_the_time_limit(time, grace):
    directives = all_directives("toy", stage(), {} if time is None else {"time": time})
    assert directives["signal"] == f"B:TERM@{grace}"


def test_own_directives_and_the_users():
    directives = all_directives("toy", stage(), {"partition": "p"})
    assert directives == {
        "job-name": "toy-simulate",
        "output": "logs/%x-%j.log",
        "open-mode": "append",
        "no-requeue": "",
        "signal": "B:TERM@60",
        "partition": "p",
    }


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a\n", "../x", "1a", "a" * 65, "a-b"])
def test_unusable_stage_names(name):
    with pytest.raises(UsageError, match="stage name"):
        render_script(IDENTITY, stage(name=name), {}, runner=RunnerKind.HOST)


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "A\n", "é", "$(id)"])
def test_unusable_variable_names(name):
    with pytest.raises(UsageError, match="environment variable"):
        render_script(IDENTITY, stage(env={name: "1"}), {}, runner=RunnerKind.HOST)
