"""Python's byte-code files, some of which carry the time of the source that they are made from."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

SUFFIX = ".pyc"

_CACHE = "__pycache__"
_HEADER = struct.Struct("<4s3I")
_BY_TIME = 0
_MASK = 0xFFFFFFFF


def settle_bytecode(path: str, time: int, times: Mapping[str, int]) -> bool:
    """Have byte-code name the time that its source has now, if it named the one it had.

    Byte-code that is checked by its source's digest, or not at all, is left alone (PEP 552).

    Parameters
    ----------
    path
        The file.
    time
        Seconds since 1970, for byte-code without a source.
    times
        When sources were changed before they were given another time, in seconds since 1970.

    Returns
    -------
    bool
        False if Python would not use it, since it is older or newer than its source.
    """
    with open(path, "r+b") as file:  # noqa: PTH123 - thousands of them
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return True
        magic, flags, named, size = _HEADER.unpack(head)
        if flags != _BY_TIME:
            return True
        wanted = _wanted(path, named, size, time, times)
        if wanted is not None and wanted != named:
            file.seek(0)
            file.write(_HEADER.pack(magic, flags, wanted, size))
        return wanted is not None


def _wanted(path: str, named: int, size: int, time: int, times: Mapping[str, int]) -> int | None:
    source = _source(path)
    try:
        status = os.lstat(source)
    except OSError:
        return min(named, time)
    now = int(status.st_mtime)
    current = {times.get(source, now) & _MASK, now & _MASK}
    if named not in current or status.st_size & _MASK != size:
        return None
    return now & _MASK


def _source(path: str) -> str:
    """Return the name of the source that a byte-code file is made from."""
    file = Path(path)
    if file.parent.name == _CACHE:
        return os.fspath(file.parent.parent / f"{file.name.partition('.')[0]}.py")
    return path.removesuffix("c")
