"""Runners: what stands around a stage's command. One table of options each, rendered purely."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from valska.external_tools.core.run_directory import CONTAINER_ROOT
from valska.external_tools.core.tool import Launch, Stage


class RunnerKind(StrEnum):
    """The three ways to run a stage."""

    CONTAINER = "container"
    CONDA = "conda"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of ``apptainer exec`` in the job script.

    Parameters
    ----------
    words
        Bash words, quoted already; they may name variables of the script.
    why
        The comment that stands beside it.
    gpus_only
        Only for stages that use GPUs.
    batch_only
        Not where ``srun`` starts one container per rank.
    """

    words: tuple[str, ...]
    why: str
    gpus_only: bool = False
    batch_only: bool = False


CONTAINMENT = (
    Option(("--cleanenv",), "nothing of the caller's environment"),
    Option(("--containall",), "own /tmp, /dev and process ids"),
    Option(("--no-home",), "no home directory, so no ~/.local packages"),
    Option(("--no-eval",), "values are values, never shell code"),
)

CONTAINER_OPTIONS = (
    *CONTAINMENT,
    Option(("--nv",), "the host's GPU driver", gpus_only=True),
    Option(("--workdir", '"$scratch"'), "room for /tmp", batch_only=True),
    Option(("--mount", f'"$(mount_of "$bundle" {CONTAINER_ROOT} ro)"'), "the bundle, read-only"),
    Option(
        ("--mount", f'"$(mount_of "$bundle/outputs" {CONTAINER_ROOT}/outputs)"'),
        "the only place it can write",
    ),
    Option(("--pwd", f"{CONTAINER_ROOT}/outputs"), "where it starts"),
)

PASSED_THROUGH = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID")
"""Variables of the job that reach a contained payload, by name."""

SRUN_ENVIRONMENT = {"MPIR_CVAR_NOLOCAL": "1", "OMPI_MCA_btl": "tcp,self"}
"""One container per rank shares no memory: MPICH and Open MPI must not try to."""

_RANK = """'
    for name in "${!PMI_@}" "${!PMIX_@}"; do export "APPTAINERENV_$name=${!name}"; done
    APPTAINER_WORKDIR=$(mktemp -d "$1/valska-XXXXXXXX") || exit 3
    export APPTAINER_WORKDIR
    trap : TERM
    shift
    "$@"
    code=$?
    rm -rf -- "$APPTAINER_WORKDIR"
    exit "$code"'"""


@dataclass(frozen=True, slots=True)
class CondaRunner:
    """Run a tool in a conda environment.

    Parameters
    ----------
    conda_sh
        Path of ``conda.sh``, or the whole command that sources it.
    conda_env
        Name or path of the environment.
    """

    conda_sh: str
    conda_env: str

    def activation_commands(self) -> list[str]:
        """Return the shell commands that activate the environment."""
        path = self.conda_sh
        for word in ("source ", ". "):
            path = path.removeprefix(word)
        return [
            f"source {shlex.quote(path.strip())}",
            f"conda activate {shlex.quote(self.conda_env)}",
        ]


@dataclass(frozen=True, slots=True)
class ContainerRunner:
    """Run a tool in an Apptainer image.

    Parameters
    ----------
    container_image
        Path of the SIF.
    container_bind
        A bind in Apptainer's ``source[:destination[:options]]``.
    """

    container_image: Path | str
    container_bind: str | None = None

    def exec_prefix(self) -> str:
        """Return a shell prefix that runs a command contained in the image."""
        words = ["apptainer", "exec"]
        words += [word for option in CONTAINMENT for word in option.words]
        if self.container_bind:
            words += ["--bind", self.container_bind]
        return shlex.join([*words, str(self.container_image)])


def render_runner(kind: RunnerKind, stage: Stage) -> str:
    """Return the runner's part of a stage's job script.

    It defines ``compose`` (the command, from the outside in), ``prepare_runner``, ``make_view``,
    ``return_outputs`` and ``runner_version`` for the part that is the same in every script.
    """
    if kind is RunnerKind.CONTAINER:
        return _compose_container(stage) + "\n" + _part("job_container.sh")
    return (
        _compose_uncontained(stage) + "\n" + _part(f"job_{kind}.sh") + _part("job_uncontained.sh")
    )


@cache
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _compose_container(stage: Stage) -> str:
    spread = stage.launch is Launch.SRUN and stage.ranks > 1
    options = [
        option
        for option in CONTAINER_OPTIONS
        if (stage.gpus or not option.gpus_only) and not (spread and option.batch_only)
    ]
    lines = [" ".join(option.words) for option in options]
    width = max(len(line) for line in lines)
    table = "\n".join(
        f"        {line:<{width}}  # {option.why}"
        for line, option in zip(lines, options, strict=True)
    )
    passed = " ".join(PASSED_THROUGH)
    return f"""\
# compose [ARGV...]: the command, from the outside in. ARGV stands in for the payload.
compose() {{
    local argv=("$@") variables=("${{environment[@]/#/APPTAINERENV_}}") name source i
    (($#)) || argv=("${{payload[@]}}")
{_mpiexec(stage)}    for name in {passed}; do
        if [[ -n ${{!name:-}} ]]; then variables+=("APPTAINERENV_$name=${{!name}}"); fi
    done
    command=(
        env "${{variables[@]}}"
        "$apptainer" exec
{table}
    )
    for ((i = 0; i < ${{#references[@]}}; i += 2)); do
        name=${{references[i]}}
        source=${{VALSKA_REFERENCES[$name]:-}}
        command+=(--mount "$(mount_of "$source" "{CONTAINER_ROOT}/$name" ro)")
    done
    for name in "${{VALSKA_MOUNTS[@]}}"; do command+=(--mount "$name"); done
    command+=("$image" "${{argv[@]}}")
{_srun(stage, _RANK, '"${VALSKA_SCRATCH:-${TMPDIR:-/tmp}}"')}}}
"""


def _compose_uncontained(stage: Stage) -> str:
    return f"""\
# compose [ARGV...]: the command, from the outside in. ARGV stands in for the payload.
compose() {{
    local argv=("$@")
    (($#)) || argv=("${{payload[@]}}")
{_mpiexec(stage)}    command=(env "${{environment[@]}}" "${{argv[@]}}")
{_srun(stage)}}}
"""


def _mpiexec(stage: Stage) -> str:
    if stage.ranks == 1 or stage.launch is Launch.SRUN:
        return ""
    return '    argv=(mpiexec -n "$ranks" "${argv[@]}")\n'


def _srun(stage: Stage, rank: str = "", argument: str = "") -> str:
    if stage.ranks == 1 or stage.launch is Launch.MPIEXEC:
        return ""
    srun = (
        'srun --mpi="${VALSKA_SRUN_MPI:-pmi2}" --ntasks="$ranks" '
        '--cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1'
    )
    if not rank:
        return f'    command=({srun} "${{command[@]}}")\n'
    return (
        f"    local rank={rank}\n"
        f'    command=({srun} bash -c "$rank" valska {argument} "${{command[@]}}")\n'
    )
