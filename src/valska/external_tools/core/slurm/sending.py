"""sbatch: sends one script, and says for certain what became of it, or that this is not certain."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from valska.external_tools.core import process
from valska.external_tools.core.process import ProcessTimeoutError, Run
from valska.external_tools.core.scheduler import FullError, JobRef, OutcomeUnknownError
from valska.external_tools.core.slurm import text as slurm_text
from valska.external_tools.core.slurm.text import SlurmSubmissionError

SBATCH_TIMEOUT_S = 120.0

log = logging.getLogger(__name__)


class SlurmFullError(SlurmSubmissionError, FullError):
    """Slurm takes no more jobs for now.

    Parameters
    ----------
    message, hint
        See `ValskaError`.
    ended
        Whether an sbatch was ended that waited for room with its job in hand.
    """

    def __init__(self, message: str, hint: str | None = None, ended: bool = False) -> None:
        super().__init__(message, hint)
        self.ended = ended


_FULL_HINT = "Submit again when jobs have left the queue."


class SlurmOutcomeError(SlurmSubmissionError, OutcomeUnknownError):
    """It is not known whether Slurm took a job."""


def submit_script(
    script_path: Path,
    *,
    sbatch: str = "sbatch",
    dependency: str | None = None,
    cwd: Path | None = None,
    dry_run: bool = False,
    extra: Sequence[str] = (),
    args: Sequence[str] = (),
    run: Run = process.run,
    timeout: float = SBATCH_TIMEOUT_S,
) -> str | None:
    """Submit a script and return its job id; nothing is written down and nothing sent again.

    Parameters
    ----------
    script_path
        The script.
    sbatch
        The sbatch program.
    dependency
        As `build_dependency_string` makes it; the job is removed if it can never be satisfied.
    cwd
        Working directory of the job.
    dry_run
        Only log the command.
    extra
        Further options for sbatch.
    args
        Arguments of the script.
    run
        Runs a program.
    timeout
        Seconds to wait for sbatch.

    Returns
    -------
    str or None
        The job id; None after a dry run.

    Raises
    ------
    SlurmSubmissionError
        If Slurm refuses the job.
    SlurmOutcomeError
        If it is not known whether Slurm took it.
    PrerequisiteError
        If there is no such sbatch.
    """
    argv = slurm_text.sbatch_argv(
        os.fspath(script_path), sbatch=sbatch, dependency=dependency, extra=extra, args=args
    )
    if dry_run:
        log.info("would run %s", argv)
        return None
    environment = slurm_text.slurm_environment(os.environ)
    return send(run, argv, cwd, environment, timeout, script_path.name).job_id


def send(
    run: Run,
    argv: tuple[str, ...],
    cwd: Path | None,
    environment: Mapping[str, str],
    timeout: float,
    what: str,
) -> JobRef:
    """Run sbatch and return the job that it names.

    Parameters
    ----------
    run
        Runs a program.
    argv
        The command.
    cwd
        Working directory of the job.
    environment
        The whole environment of sbatch.
    timeout
        Seconds to wait for it.
    what
        What is sent, for the message.

    Raises
    ------
    SlurmFullError
        If Slurm takes no more jobs for now, of anybody or of this user. sbatch would wait for
        room; it is ended instead.
    SlurmSubmissionError
        If Slurm refuses the job.
    SlurmOutcomeError
        If it is not known whether Slurm took it.
    PrerequisiteError
        If there is no such sbatch.
    """
    try:
        done = run(argv, cwd=cwd, env=environment, timeout=timeout, stop=slurm_text.is_queue_full)
    except ProcessTimeoutError as error:
        raise _outcome_unknown(what, error.message) from error
    said = one_line(done.stderr)
    if slurm_text.is_queue_full(done.stderr) and done.returncode:
        raise SlurmFullError(f"Slurm's queue is full: {said}", _FULL_HINT, ended=True)
    if slurm_text.is_submit_limit(done.stderr) and done.returncode:
        raise SlurmFullError(f"Slurm refused {what}: {said}", _FULL_HINT)
    if done.returncode < 0 or (done.returncode and slurm_text.perhaps_accepted(done.stderr)):
        raise _outcome_unknown(what, said or f"sbatch ended with code {done.returncode}")
    if done.returncode:
        raise SlurmSubmissionError(
            f"sbatch refused {what}: {said or f'exit code {done.returncode}'}",
            "Change what Slurm names (account, partition, time, memory), then submit again.",
        )
    if said:
        log.warning("sbatch says: %s", said)
    try:
        return slurm_text.parse_submission(done.stdout)
    except SlurmSubmissionError as error:
        raise _outcome_unknown(what, error.message) from error


def _outcome_unknown(what: str, why: str) -> SlurmOutcomeError:
    return SlurmOutcomeError(
        f"whether Slurm took {what} is not known: {why}",
        "Nothing is sent twice: the next `valska submit` looks for the job first.",
    )


def one_line(text: str) -> str:
    """Return an error of Slurm's programs on one line."""
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line.removeprefix("sbatch: error: ") for line in lines if line)[:500]
