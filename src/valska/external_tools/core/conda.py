"""A conda environment: what is in it, as the digest that stands for it in a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.runner import CondaRunner
from valska.external_tools.core.utils import sha256_bytes

_LIST = "{activation} && conda list --explicit --md5"
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class CondaEnvironment:
    """An environment by name, and the SHA-256 of its explicit package list."""

    name: str
    explicit_sha256: str


def read_environment(conda: CondaRunner, *, run: Run = run) -> CondaEnvironment:
    """Ask conda what an environment holds.

    The digest is that of the lines of ``conda list --explicit --md5`` that are no comments,
    sorted by their bytes, each ended by a newline.

    Parameters
    ----------
    conda
        The environment.
    run
        Runs bash.

    Raises
    ------
    PrerequisiteError
        If the environment cannot be activated or listed.
    """
    activation = " && ".join(conda.activation_commands())
    done = run(["bash", "-c", _LIST.format(activation=activation)], timeout=_TIMEOUT_S)
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines()
        raise PrerequisiteError(
            f"the conda environment {conda.conda_env} cannot be listed"
            + (f": {said[-1]}" if said else ""),
            "Check conda: {sh: …/conda.sh, env: NAME} in the tool's section of the configuration.",
        )
    text = "".join(f"{line}\n" for line in sorted(lines, key=str.encode))
    return CondaEnvironment(conda.conda_env, sha256_bytes(text.encode()))
