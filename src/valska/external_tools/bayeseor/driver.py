"""Runs BayesEoR's own driver, and ends it early where it could only go wrong.

    python -u driver.py PROGRAM --config CONFIG [OPTION...]

A copy of this file goes into every bundle and runs where BayesEoR does: it needs Python alone.
BayesEoR takes more priors than k bins without a word, samples nonsense with fewer, and where it can
use no GPU ends, after all its preparations, with a message about print().
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

_K_BINS = re.compile(r"k bins: (\d+)\s*$")
_PRIORS = re.compile(r"^priors: (.*)$", re.MULTILINE)

MISUSE = 2


class Watched:
    """Standard output, read along until BayesEoR says how many k bins there are.

    Parameters
    ----------
    stream
        Where it goes.
    priors
        How many priors there are.
    """

    def __init__(self, stream: Any, priors: int) -> None:
        self._stream = stream
        self._priors = priors
        self._line = ""

    def __getattr__(self, name: str) -> Any:
        """Be the stream in all else."""
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        """Write, and end the process if the numbers differ."""
        written = self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            found = _K_BINS.match(line)
            if found and int(found[1]) != self._priors:
                _end(f"there are {found[1]} k bins and {self._priors} priors: give one for each")
        return written


def main(argv: list[str]) -> None:
    """Run a driver as if it had been started by itself.

    Parameters
    ----------
    argv
        The driver and its arguments.
    """
    program, arguments = argv[0], argv[1:]
    if "--gpu" in arguments:
        _check_gpu()
    priors = _priors(arguments)
    if priors is not None:
        sys.stdout = Watched(sys.stdout, priors)
    sys.argv = argv
    sys.path[0] = str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")


def _priors(arguments: list[str]) -> int | None:
    """Return how many priors the configuration has."""
    if "--config" not in arguments[:-1]:
        return None
    config = Path(arguments[arguments.index("--config") + 1])
    found = _PRIORS.search(config.read_text(encoding="utf-8"))
    return len(ast.literal_eval(found[1])) if found else None


def _check_gpu() -> None:
    try:
        import pycuda.driver as cuda

        cuda.init()
        found = cuda.Device.count()
    except Exception as error:  # noqa: BLE001 - whatever keeps it from using a GPU
        _end(f"no GPU can be used ({error}); make the bundle with --cpu, or run it where one is")
    if not found:
        _end("there is no GPU; make the bundle with --cpu, or ask for one (--slurm gres=gpu:1)")


def _end(message: str) -> None:
    """End the process at once, past whatever would catch an exception."""
    sys.stdout.flush()
    sys.stderr.write(f"valska: {message}\n")
    sys.stderr.flush()
    os._exit(MISUSE)


if __name__ == "__main__":
    main(sys.argv[1:])
