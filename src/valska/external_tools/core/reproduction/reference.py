"""What is to be reproduced: a bundle, a point of a sweep, or an archive of a bundle."""

from __future__ import annotations

from pathlib import Path

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.reproduction.replay import Parent, open_parent
from valska.external_tools.core.sweep.layout import open_unit


def open_reference(path: Path, unpacked: Path) -> Parent:
    """Return the bundle that a path names, whole and checked.

    Parameters
    ----------
    path
        A bundle, a point of a sweep, or an archive.
    unpacked
        Where an archive is unpacked; what an earlier call has unpacked there is taken.

    Raises
    ------
    ValskaError
        If it is none of these, or not intact.
    """
    if path.is_dir():
        return open_parent(open_unit(path))
    if not path.is_file():
        raise UsageError(f"no such bundle or archive: {path}", "Check the path.")
    raise UsageError(f"{path} is a file", "Unpack it, and name the bundle's directory.")
