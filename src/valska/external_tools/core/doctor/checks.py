"""What a check of this machine is, and what it looks at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.apptainer import clean_environment
from valska.external_tools.core.process import Completed, Run, run

TIMEOUT_S = 20.0


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """Something is not as good as it could be; runs are possible."""
    MISSING = "missing"
    """Runs are not possible until it is there."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name
        What.
    status
        How it came out.
    found
        What was found.
    advice
        What to do; empty where all is well.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks look at, replaceable piece by piece.

    Parameters
    ----------
    settings
        What holds here.
    run
        Runs programs.
    which
        Finds programs.
    environ
        The environment.
    uid
        The user.
    etc
        Where system configuration lies.
    fuse
        The FUSE device.
    """

    settings: Settings
    run: Run = run
    which: Callable[[str], str | None] = shutil.which
    environ: Mapping[str, str] | None = None
    uid: int | None = None
    etc: Path = Path("/etc")
    fuse: Path = Path("/dev/fuse")

    def ask(self, *argv: str) -> Completed | None:
        """Run a program; None if it is not there or does not answer."""
        try:
            return self.run(argv, timeout=TIMEOUT_S, env=self.environ)
        except ValskaError:
            return None

    def in_image(self, image: Path, *argv: str) -> Completed | None:
        """Run a program in an image, after the site's set-up lines."""
        lines = "\n".join([*self.settings.setup, 'exec "$@"'])
        environ = clean_environment(os.environ if self.environ is None else self.environ)
        command = exec_command(self.settings, image, *argv)
        return replace(self, environ=environ).ask("bash", "-c", lines, "valska", *command)


def exec_command(settings: Settings, image: Path, *argv: str) -> list[str]:
    """Return the command that runs a program contained in an image."""
    contained = ("--cleanenv", "--containall", "--no-home", "--no-eval")
    return [settings.apptainer, "exec", *contained, os.fspath(image), *argv]
