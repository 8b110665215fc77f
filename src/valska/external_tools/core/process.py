"""The one seam to other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from valska.external_tools.core.errors import PrerequisiteError, ValskaError


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program left behind: its exit code and its two texts."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class ProcessTimeoutError(ValskaError):
    """A program did not end in time; whether it had its effect is not known."""


class Run(Protocol):
    """The shape of `run`; passed in, so that a caller can watch or replace it."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        capture: bool = True,
    ) -> Completed:
        """Run a program to its end."""
        ...


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    capture: bool = True,
) -> Completed:
    """Run a program to its end, without a shell.

    Parameters
    ----------
    argv
        Program and arguments.
    cwd
        Working directory; the caller's if not given.
    env
        The whole environment; the caller's if not given.
    timeout
        Seconds to wait.
    capture
        Keep stdout and stderr; otherwise they go where the caller's go.

    Raises
    ------
    PrerequisiteError
        If there is no such program or directory, or the program cannot be run.
    ProcessTimeoutError
        If it did not end in time. It has been killed then.
    """
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            timeout=timeout,
            capture_output=capture,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.exists():
            raise PrerequisiteError(f"no such directory: {cwd}") from error
        raise PrerequisiteError(f"no such program: {argv[0]}") from error
    except OSError as error:
        raise PrerequisiteError(f"{argv[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ProcessTimeoutError(f"{argv[0]} did not answer within {timeout:g} s") from error
    return Completed(tuple(argv), done.returncode, done.stdout or "", done.stderr or "")
