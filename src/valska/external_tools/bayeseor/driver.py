"""Runs BayesEoR's own driver, ends it early where it could only go wrong, and notes its end.

    python -u driver.py PROGRAM --config CONFIG [OPTION...]

A copy of this file goes into every bundle and runs where BayesEoR does: it needs Python alone.

BayesEoR takes more priors than k bins without a word, samples nonsense with fewer, and where it can
use no GPU ends, after all its preparations, with a message about print(). MultiNest writes results
long before it has finished, and where it aborts it ends the process with exit code 0. So
``finished.json`` is written beside the chains when BayesEoR says that they are complete; it tells
whether they were begun by an earlier attempt, since that spoils one of MultiNest's evidences.
"""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

FINISHED = "finished.json"
"""Names the directory of the complete chains; lies beside it."""
_RESUME = "--file-root-dir"
_STATE = "data-resume.dat"
"""What MultiNest has saved; a single T until it has."""
MISUSE = 2

_K_BINS = re.compile(r"k bins: (\d+)\s*$")
_COMPLETE = re.compile(r"Sampling complete!")
_CHAINS = re.compile(r"Final MultiNest output base: (.+?)/?\s*$")


class Watched:
    """Standard output, read along for what BayesEoR says of its k bins and its chains.

    Parameters
    ----------
    stream
        Where it goes.
    priors
        How many priors there are; None if that is not known.
    """

    def __init__(self, stream: Any, priors: int | None) -> None:
        self._stream = stream
        self._priors = priors
        self._line = ""
        self.complete = False
        self.chains = ""

    def __getattr__(self, name: str) -> Any:
        """Be the stream in all else."""
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        """Write, and end the process if there are not as many k bins as priors."""
        written = self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._read(line)
        return written

    def _read(self, line: str) -> None:
        if found := _K_BINS.match(line):
            if self._priors not in (None, int(found[1])):
                _end(f"there are {found[1]} k bins and {self._priors} priors: give one for each")
        elif _COMPLETE.match(line):
            self.complete = True
        elif found := _CHAINS.match(line):
            self.chains = found[1]


def main(argv: list[str]) -> None:
    """Run a driver as if it had been started by itself.

    Parameters
    ----------
    argv
        The driver and its arguments.
    """
    program, arguments = argv[0], argv[1:]
    if not Path(program).is_file():
        _end(f"there is no {program}; name BayesEoR's run-analysis.py with --program")
    if "--gpu" in arguments:
        _check_gpu()
    priors, resumed = _configured(arguments, "priors"), _goes_on(arguments)
    watched = Watched(sys.stdout, None if priors is None else len(priors))
    sys.stdout = watched
    sys.argv = argv
    sys.path[0] = str(Path(program).parent)
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    if watched.complete and watched.chains:
        chains = Path(watched.chains)
        note = {"chains": chains.name, "resumed": resumed}
        chains.with_name(FINISHED).write_text(json.dumps(note) + "\n")


def _goes_on(arguments: list[str]) -> bool:
    """Return whether there are chains to go on from; sampling begins anew where none was saved.

    Until MultiNest has saved a state for the first time, it may not be able to read what there is
    (first points that a kill cut off), or leaves the first points out of one of its evidences.
    """
    if _RESUME not in arguments[:-1]:
        return False
    chains = arguments[arguments.index(_RESUME) + 1]
    state = Path(str(_configured(arguments, "output_dir") or "."), chains, _STATE)
    if state.is_file() and state.read_text(encoding="ascii").split() == ["T"]:
        print("valska: nothing was saved of the chains yet: sampling begins anew", flush=True)
        state.unlink(missing_ok=True)
    return state.exists()


def _configured(arguments: list[str], key: str) -> Any:
    """Return a value of the configuration; None if it is not there."""
    if "--config" not in arguments[:-1]:
        return None
    config = Path(arguments[arguments.index("--config") + 1])
    pattern = rf"^{key}: (.*)$"
    found = re.search(pattern, config.read_text(encoding="utf-8"), re.MULTILINE)
    return ast.literal_eval(found[1]) if found else None


def _check_gpu() -> None:
    try:
        cuda = import_module("pycuda.driver")
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
