"""The one seam to other programs."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

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


Stop = Callable[[str], bool]
"""Says, from what a program has written to stderr so far, whether to end it."""


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
        stop: Stop | None = None,
        stdin: Path | None = None,
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
    stop: Stop | None = None,
    stdin: Path | None = None,
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
    stop
        Called with what stands on stderr so far, each time that there is more. If it returns
        true, the program and all that it started are killed. Implies `capture`.
    stdin
        A file that the program reads from its standard input, which is empty without it.

    Raises
    ------
    PrerequisiteError
        If there is no such program or directory, or the program cannot be run, or `stdin` cannot
        be read.
    ProcessTimeoutError
        If it did not end in time. It has been killed then.
    """
    environment = None if env is None else dict(env)
    with _opened(stdin) as source:
        return _run(argv, cwd, environment, timeout, capture, stop, source)


def _opened(stdin: Path | None) -> BinaryIO:
    try:
        return Path(os.devnull if stdin is None else stdin).open("rb")
    except OSError as error:
        raise PrerequisiteError(f"{stdin} cannot be read: {error.strerror}") from error


def _run(
    argv: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    timeout: float | None,
    capture: bool,
    stop: Stop | None,
    stdin: BinaryIO,
) -> Completed:
    try:
        if stop is not None:
            return _run_watched(argv, cwd, env, timeout, stop, stdin)
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env=env,
            timeout=timeout,
            capture_output=capture,
            stdin=stdin,
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


def _run_watched(
    argv: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    timeout: float | None,
    stop: Stop,
    stdin: BinaryIO,
) -> Completed:
    with subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = _read_both(process, timeout, stop)
            process.wait(timeout)
        except BaseException:
            _kill_group(process)
            raise
    return Completed(tuple(argv), process.returncode, stdout, stderr)


def _read_both(
    process: subprocess.Popen[bytes], timeout: float | None, stop: Stop
) -> tuple[str, str]:
    assert process.stdout is not None  # noqa: S101 - they were asked for
    assert process.stderr is not None  # noqa: S101
    texts = {process.stdout: b"", process.stderr: b""}
    end = None if timeout is None else time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(process.args, timeout or 0.0)
            for key, _ in selector.select(left):
                stream = process.stdout if key.fileobj is process.stdout else process.stderr
                chunk = os.read(stream.fileno(), 65536)
                texts[stream] += chunk
                if not chunk:
                    selector.unregister(stream)
                elif stream is process.stderr and stop(_decoded(texts[stream])):
                    _kill_group(process)
    return _decoded(texts[process.stdout]), _decoded(texts[process.stderr])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _decoded(data: bytes) -> str:
    return data.decode(errors="replace")
