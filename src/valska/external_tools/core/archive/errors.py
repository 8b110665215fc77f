"""What can go wrong with an archive."""

from __future__ import annotations

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    ValskaError,
    VerificationError,
)


class ArchiveError(ValskaError):
    """An archive cannot be written, or not be read."""


class ChangedError(ArchiveError):
    """A file changed while it was packed."""


class SecretsError(UsageError):
    """What is to be packed holds what looks like secrets."""


class NoArchiveError(UsageError):
    """A file is not an archive, nor one that was damaged."""


class LeftOutError(PrerequisiteError):
    """Something that is to be packed is not there."""


class HostileError(VerificationError):
    """An archive would write where it must not, or more than is allowed."""
