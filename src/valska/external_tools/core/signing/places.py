"""Where signatures lie, beside what they sign, and what they are for."""

from __future__ import annotations

from pathlib import Path

NAMESPACE = "valska"
"""What the signatures are for, in OpenSSH's sense: none made for something else counts."""

_STATEMENT = ".intoto.json"
_SIGNATURE = ".sig"


def statement_of(archive: Path) -> Path:
    """Return the place of the statement about an archive."""
    return archive.with_name(archive.name + _STATEMENT)


def archive_of(path: Path) -> Path | None:
    """Return the archive that a statement, or its signature, is about by its name."""
    name = path.name.removesuffix(_SIGNATURE)
    return path.with_name(name.removesuffix(_STATEMENT)) if name.endswith(_STATEMENT) else None


def signature_of(signed: Path) -> Path:
    """Return the place of the signature of a file, where ``ssh-keygen -Y sign`` puts it too."""
    return signed.with_name(signed.name + _SIGNATURE)
