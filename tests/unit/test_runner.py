"""Runners: one table of options each, rendered purely."""

import shlex
import subprocess

import pytest
from toy import stage

from valska.external_tools.core.runner import (
    CONTAINMENT,
    CondaRunner,
    ContainerRunner,
    RunnerKind,
    container_options,
    render_runner,
)
from valska.external_tools.core.tool import Launch


@pytest.mark.parametrize(
    "conda_sh",
    ["/opt/conda/etc/conda.sh", "source /opt/conda/etc/conda.sh", ". /opt/conda/etc/conda.sh"],
)
def test_conda_commands(conda_sh):
    assert CondaRunner(conda_sh, "env").activation_commands() == [
        "source /opt/conda/etc/conda.sh",
        "conda activate env",
    ]


def test_conda_commands_reach_conda_as_they_were_given(tmp_path):
    script = tmp_path / "con'da $x.sh"
    script.write_text('conda() { printf "%s\\0" "$@"; }\n')
    lines = CondaRunner(str(script), "my env; id").activation_commands()
    out = subprocess.check_output(["bash", "-c", "\n".join(lines)])
    assert out == b"activate\0my env; id\0"


def test_exec_prefix():
    assert ContainerRunner("/i.sif").exec_prefix() == (
        "apptainer exec --cleanenv --containall --no-home --no-eval /i.sif"
    )


def test_exec_prefix_with_a_bind_and_odd_names():
    words = shlex.split(ContainerRunner("/a b/i'.sif", "/x y:/z:ro").exec_prefix())
    assert words[-3:] == ["--bind", "/x y:/z:ro", "/a b/i'.sif"]


def test_containment_is_what_the_plan_asks_for():
    assert [word for option in CONTAINMENT for word in option.words] == [
        "--cleanenv",
        "--containall",
        "--no-home",
        "--no-eval",
    ]
    options = container_options(stage(gpus=True)) + container_options(stage(), sweep=True)
    assert all(option.why for option in options)


@pytest.mark.parametrize(
    ("ranks", "launch", "gpus", "present", "absent"),
    [
        (1, Launch.MPIEXEC, False, ["--workdir"], ["--nv", "mpiexec", "srun"]),
        (1, Launch.SRUN, False, ["--workdir"], ["mpiexec", "srun"]),
        (1, Launch.MPIEXEC, True, ["--nv"], ["mpiexec", "srun"]),
        (4, Launch.MPIEXEC, False, ["--workdir", 'mpiexec -n "$ranks"'], ["srun"]),
        (
            4,
            Launch.SRUN,
            False,
            ["srun --mpi", "PMI_", "APPTAINER_WORKDIR"],
            ["--workdir", "mpiexec"],
        ),
    ],
)
def test_container_command(ranks, launch, gpus, present, absent):
    text = render_runner(
        RunnerKind.CONTAINER, stage(ranks=ranks, launch=launch, gpus=gpus)
    ).partition("# --- The container runner")[0]
    assert [word for word in present if word not in text] == []
    assert [word for word in absent if word in text] == []


@pytest.mark.parametrize("kind", RunnerKind)
def test_every_runner_defines_what_the_common_part_calls(kind):
    text = render_runner(kind, stage())
    names = "compose prepare_runner make_view return_outputs runner_version"
    code = f"{text}\ndeclare -F {names}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == names.split()
