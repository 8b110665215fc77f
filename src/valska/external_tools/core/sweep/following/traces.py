"""What the jobs of a sweep's units wrote down, looked at without reading more than is needed."""

from __future__ import annotations

import os
import time
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from valska.external_tools.core.records import RecordState
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.layout import Sweep

RECORDS = Bundle(Path()).records.name
LOGS = Bundle(Path()).logs.name
_HEAD_BYTES = 512
_STATE = b'"state": "'
"""The state is the third field of a record; the job script writes each on a line."""
_STATES = {state.value.encode(): state for state in RecordState}

_FEW = 64
_SLOW_S = 150e-6
"""Seconds for one directory, from which on many are read at once: a file system of a network."""
_AT_ONCE = 16

Traces = dict[str, list[str]]
"""Place of a unit (``points/x``) to the names of its records, where there are any."""


def read_traces(sweep: Sweep, places: Sequence[str]) -> Traces:
    """Return the names of the records of many units."""
    start = time.perf_counter()
    found = _read(sweep, places[:_FEW])
    rest = places[_FEW:]
    if (time.perf_counter() - start) / _FEW < _SLOW_S or not rest:
        return found | _read(sweep, rest)
    size = -(-len(rest) // _AT_ONCE)
    parts = [rest[i : i + size] for i in range(0, len(rest), size)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for part in pool.map(lambda part: _read(sweep, part), parts):
            found |= part
    return found


def newest_of_job(names: Sequence[str], stage: str, job: str) -> str | None:
    """Return the newest of the records of a job (``17_4``), or None."""
    begin = f"{stage}-{job}-r"
    found = [name for name in names if name.startswith(begin) and name.endswith(".json")]
    return max(found, key=lambda name: (len(name), name)) if found else None


def has_stage(names: Sequence[str], stage: str) -> bool:
    """Return whether there is any record of a stage."""
    return any(name.startswith(f"{stage}-") and name.endswith(".json") for name in names)


def has_other(names: Sequence[str], sent: Container[str]) -> bool:
    """Return whether there is a record by a job that is none of these arrays."""
    return any(name.partition("-")[2].partition("_")[0] not in sent for name in names)


def state_in(sweep: Sweep, place: str, name: str) -> RecordState | None:
    """Return the state in a record, without reading all of it; None where it is not clear."""
    try:
        with open(f"{_directory(sweep, place)}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    return _STATES.get(head.partition(_STATE)[2].partition(b'"')[0])


def _read(sweep: Sweep, places: Sequence[str]) -> Traces:
    found: Traces = {}
    for place in places:
        try:
            names = os.listdir(_directory(sweep, place))  # noqa: PTH208
        except OSError:
            continue
        if names:
            found[place] = names
    return found


def _directory(sweep: Sweep, place: str) -> str:
    return f"{sweep.path}/{place}/{RECORDS}"
