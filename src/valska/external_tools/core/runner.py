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

ROOM = (
    Option(("--nv",), "the host's GPU driver", gpus_only=True),
    Option(("--workdir", '"$scratch"'), "room for /tmp", batch_only=True),
)


def _mount(source: str, place: str, why: str, mode: str = "") -> Option:
    return Option(("--mount", f'"$(mount_of "{source}" {CONTAINER_ROOT}{place}{mode})"'), why)


BUNDLE_MOUNTS = (
    _mount("$bundle", "", "the bundle, read-only", " ro"),
    _mount("$bundle/outputs", "/outputs", "the only place it can write"),
)

UNIT_MOUNTS = (
    _mount("$bundle/config", "/config", "the unit's configuration, read-only", " ro"),
    _mount("$common/inputs", "/inputs", "the sweep's inputs, read-only", " ro"),
    _mount("$bundle/outputs", "/outputs", "the only place it can write"),
)
"""A unit of a sweep sees what a bundle sees, and nothing of other units."""

START = Option(("--pwd", f"{CONTAINER_ROOT}/outputs"), "where it starts")

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


def container_options(stage: Stage, *, sweep: bool = False) -> tuple[Option, ...]:
    """Return the options of ``apptainer exec`` for a stage, in a bundle or in a sweep."""
    spread = stage.launch is Launch.SRUN and stage.ranks > 1
    return tuple(
        option
        for option in (*CONTAINMENT, *ROOM, *(UNIT_MOUNTS if sweep else BUNDLE_MOUNTS), START)
        if (stage.gpus or not option.gpus_only) and not (spread and option.batch_only)
    )


def render_runner(kind: RunnerKind, stage: Stage, *, sweep: bool = False) -> str:
    """Return the runner's part of a stage's job script.

    It defines ``compose`` (the command, from the outside in), ``prepare_runner``, ``make_view``,
    ``return_outputs`` and ``runner_version`` for the part that is the same in every script.
    """
    if kind is RunnerKind.CONTAINER:
        return _compose_container(stage, sweep) + "\n" + part("job_container.sh")
    return _compose_uncontained(stage) + "\n" + part(f"job_{kind}.sh") + part("job_uncontained.sh")


@cache
def part(name: str) -> str:
    """Return a part of the job script that is the same in many."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _compose_container(stage: Stage, sweep: bool) -> str:
    options = container_options(stage, sweep=sweep)
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
    (($#)) || argv=("${{payload[@]}}" "${{going_on[@]}}")
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
    for ((i = 0; i < ${{#loans[@]}}; i += 2)); do
        command+=(--mount "$(mount_of "${{loans[i + 1]}}" "{CONTAINER_ROOT}/${{loans[i]}}" ro)")
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
    (($#)) || argv=("${{payload[@]}}" "${{going_on[@]}}")
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
