"""Requests to end jobs, as files beside the state file: the supervisor may be anybody's child."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.utils import load_json, random_hex, write_json_atomic


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Which jobs and tasks to end.

    Parameters
    ----------
    ids
        Of jobs and single tasks.
    grace_s
        Seconds between TERM and KILL.
    """

    ids: frozenset[str]
    grace_s: float


def write_request(bundle: Bundle, token: str, ids: Sequence[str], grace_s: float) -> Path:
    """Ask the supervisor of a queue to end jobs; it removes the file when it has read it.

    Raises
    ------
    ValskaError
        If the file cannot be written.
    """
    path = bundle.logs / f".cancel-{token}-{random_hex(4)}"
    write_json_atomic(path, {"ids": list(ids), "grace_s": grace_s})
    return path


def take_requests(bundle: Bundle, token: str) -> Iterator[CancelRequest]:
    """Yield the requests to the supervisor of a queue, and remove them."""
    for path in bundle.logs.glob(f".cancel-{token}-*"):
        with suppress(ValskaError, KeyError, TypeError, ValueError):
            data = load_json(path)
            yield CancelRequest(frozenset(data["ids"]), float(data["grace_s"]))
        path.unlink(missing_ok=True)
