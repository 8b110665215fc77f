"""Which process: told apart from a later one with the same number."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_STATE, _START = 0, 19


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process on a host.

    Parameters
    ----------
    host
        Name of the host.
    boot
        Random id of the host's boot, where there is one.
    pid
        Number of the process.
    start
        Start in clock ticks since the boot, where it can be read.
    """

    host: str
    boot: str | None
    pid: int
    start: int | None

    def alive(self, host: str | None = None) -> bool | None:
        """Return whether it still runs; None if that cannot be told from this host."""
        if self.host != (host or os.uname().nodename):
            return None
        if self.boot != _boot_id():
            return False
        if not _PROC.joinpath("self").exists():
            return _answers(self.pid)
        found = process_start(self.pid)
        return found is not None and self.start in (None, found)

    def as_json(self) -> dict[str, Any]:
        """Return the fields for a JSON file."""
        return asdict(self)


def identify(pid: int | None = None, host: str | None = None) -> ProcessIdentity:
    """Return the identity of a process on this host; of this one by default."""
    number = os.getpid() if pid is None else pid
    return ProcessIdentity(host or os.uname().nodename, _boot_id(), number, process_start(number))


def read_identity(data: Mapping[str, Any]) -> ProcessIdentity:
    """Return an identity from its JSON fields.

    Raises
    ------
    ValueError
        If a field is missing or of a wrong type.
    """
    host, boot, pid, start = (data.get(key) for key in ("host", "boot", "pid", "start"))
    if not isinstance(host, str) or not isinstance(pid, int):
        raise ValueError("no process identity")  # noqa: TRY004 - of a file, not of an argument
    return ProcessIdentity(
        host,
        str(boot) if boot is not None else None,
        pid,
        start if isinstance(start, int) else None,
    )


def process_start(pid: int) -> int | None:
    """Return when a process started; None if there is none, or it has ended and is a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in "ZX" else int(fields[_START])


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
