"""One root for every error that a user can meet, with the exit code that it means."""

from __future__ import annotations

from typing import ClassVar


class ValskaError(Exception):
    """An error to be shown to the user as one line and a hint.

    Parameters
    ----------
    message
        What is wrong, in one line.
    hint
        What to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ValskaError):
    """Arguments, a configuration or an input file are not usable."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file (runtime paths or a tool's own) is wrong."""


class PrerequisiteError(ValskaError):
    """Something that has to be there first is not: a bundle, an image, a program."""

    exit_code = 3


class SubmissionError(ValskaError):
    """The scheduler did not take a job."""

    exit_code = 4


class VerificationError(ValskaError):
    """A bundle, an image or a comparison does not hold."""

    exit_code = 5
