"""The stages: matrices on the CPU, then the sampling of each hypothesis."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from valska.external_tools.bayeseor.driver import FINISHED
from valska.external_tools.bayeseor.keys import HYPOTHESES
from valska.external_tools.bayeseor.matrices import (
    MATRICES,
    PRECOMPUTE,
    config_name,
    needed_files,
)
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.tool import Input, Resume, RunSpec, Stage

STAGES = (PRECOMPUTE, *HYPOTHESES)
PROGRAM = "/opt/bayeseor/scripts/run-analysis.py"
"""Where the image of containers/bayeseor.def has BayesEoR's driver."""

DRIVER = Input("driver", Path(__file__).with_name("driver.py"), "driver.py", own=True)
"""What starts the program in a job, and watches it."""

Directives = Mapping[str, Mapping[str, str]]

_SMALL = {"time": "01:00:00", "cpus-per-task": "1", "mem": "4G"}
_SAMPLING = {"time": "24:00:00", "cpus-per-task": "1", "mem": "16G", "gres": "gpu:1"}

ON_GPU: Directives = {
    PRECOMPUTE: {"time": "12:00:00", "cpus-per-task": "8", "mem": "64G"},
    **dict.fromkeys(HYPOTHESES, _SAMPLING),
}
"""Default directives."""
ON_CPU: Directives = dict.fromkeys(STAGES, _SMALL)
"""Default directives where sampling is on the CPU too, for small cases."""

_PROBE = "from mpi4py import MPI; print(MPI.COMM_WORLD.Get_size(), flush=True)"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SPREAD = ("nodes", "ntasks-per-node", "tasks-per-node")
_CHAINS = "MN-*"
"""Name of a directory of chains; BayesEoR appends the model and a version."""
_RESULTS = ("data-.txt", "data-stats.dat", "data-post_equal_weights.dat")


def plan_stages(
    spec: RunSpec, hypotheses: tuple[str, ...], *, precompute: bool, sparse: bool
) -> tuple[Stage, ...]:
    """Return the stages of a run.

    Parameters
    ----------
    spec
        The spec.
    hypotheses
        Those that are sampled.
    precompute
        Whether matrices are made; otherwise they are there already.
    sparse
        Whether sparse matrices are kept as such.

    Raises
    ------
    UsageError
        If the program is not named in full, or a directive is no count.
    """
    program = spec.options.get("program") or PROGRAM
    if not str(program).startswith("/"):
        raise UsageError(
            f"--program {program!r} is not a whole path",
            "Name run-analysis.py as the job finds it, from / on.",
        )
    return tuple(_stages(spec, str(program), hypotheses, precompute, sparse))


def _stages(
    spec: RunSpec, program: str, hypotheses: tuple[str, ...], precompute: bool, sparse: bool
) -> Iterator[Stage]:
    if precompute:
        yield _precompute(spec, program, hypotheses[0], sparse)
    after = (PRECOMPUTE,) if precompute else ()
    for name in hypotheses:
        yield _sampling(spec, program, name, after)


def _precompute(spec: RunSpec, program: str, hypothesis: str, sparse: bool) -> Stage:
    directives = spec.directives.get(PRECOMPUTE, {})
    if _ranks(directives) != 1:
        raise UsageError(
            f"{PRECOMPUTE} takes one task only", "BayesEoR builds matrices without MPI."
        )
    command = _command(program, hypothesis)
    return Stage(
        name=PRECOMPUTE,
        argv=(*command, "--cpu", "--output-dir", PRECOMPUTE),
        outputs=(
            *(f"{MATRICES}/**/{name}" for name in needed_files(sparse)),
            f"{PRECOMPUTE}/{_CHAINS}/k-vals.txt",
        ),
        env=_threads(directives),
        lends=(MATRICES,),
    )


def _sampling(spec: RunSpec, program: str, name: str, after: tuple[str, ...]) -> Stage:
    on_cpu = bool(spec.options.get("cpu"))
    directives = spec.directives.get(name, {})
    return Stage(
        name=name,
        argv=(*_command(program, name), "--cpu" if on_cpu else "--gpu", "--run"),
        after=after,
        outputs=(f"{name}/{FINISHED}", *(f"{name}/{_CHAINS}/{result}" for result in _RESULTS)),
        env=_threads(directives),
        ranks=_ranks(directives),
        probe=("python", "-c", _PROBE),
        launch=spec.launch,
        gpus=not on_cpu,
        resume=Resume(f"{name}/{_CHAINS}/data-resume.dat", "--file-root-dir"),
    )


def _command(program: str, hypothesis: str) -> tuple[str, ...]:
    config = f"../config/{config_name(hypothesis)}"
    return ("python", "-u", f"../inputs/{DRIVER.target}", program, "--config", config)


def _threads(directives: Mapping[str, str]) -> dict[str, str]:
    return dict.fromkeys(_THREADS, str(_count(directives, "cpus-per-task")))


def _ranks(directives: Mapping[str, str]) -> int:
    spread = [key for key in _SPREAD if directives.get(key, "1") != "1"]
    if spread and "ntasks" not in directives:
        raise UsageError(
            f"the Slurm directive {spread[0]!r} leaves the number of MPI ranks open",
            "Ask for ntasks as well.",
        )
    return _count(directives, "ntasks")


def _count(directives: Mapping[str, str], key: str) -> int:
    text = directives.get(key, "1")
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise UsageError(
            f"the Slurm directive {key!r} is not a positive whole number: {text!r}",
            "The number of MPI ranks and threads must be known before the job runs.",
        )
    return int(text)
