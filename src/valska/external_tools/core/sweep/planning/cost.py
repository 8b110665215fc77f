"""What a sweep asks of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from valska.external_tools.core.timelimit import parse_time
from valska.external_tools.core.tool import Stage


@dataclass(frozen=True, slots=True)
class Cost:
    """What is asked for, at most: no job uses more than its time limit.

    Parameters
    ----------
    jobs
        Stage to number of jobs.
    cpu_hours, gpu_hours
        Processors (GPUs) times time limit, over all jobs; None if a stage has no time limit, or
        says in no plain number how many it wants.
    """

    jobs: Mapping[str, int]
    cpu_hours: float | None
    gpu_hours: float | None


def cost_of(
    jobs: Mapping[str, int], directives: Mapping[str, Mapping[str, str]], stages: Iterable[Stage]
) -> Cost:
    """Return what jobs ask for.

    Parameters
    ----------
    jobs
        Stage to number of jobs.
    directives
        Stage to its directives.
    stages
        The stages.
    """
    cpu: float | None = 0.0
    gpu: float | None = 0.0
    for stage in stages:
        given = directives[stage.name]
        cpu = _plus(cpu, jobs[stage.name], _hours(given), cpus_of(stage, given))
        gpu = _plus(gpu, jobs[stage.name], _hours(given), gpus_of(stage, given))
    return Cost(dict(jobs), cpu, gpu)


def cpus_of(stage: Stage, directives: Mapping[str, str]) -> int | None:
    """Return how many processors a job of a stage asks for; None if that is not a number."""
    tasks = _number(directives.get("ntasks", "1"))
    each = _number(directives.get("cpus-per-task", "1"))
    return None if tasks is None or each is None else max(tasks, stage.ranks) * each


def gpus_of(stage: Stage, directives: Mapping[str, str]) -> int | None:
    """Return how many GPUs a job of a stage asks for; None if it uses them and does not say."""
    nodes = _number(directives.get("nodes", "1"))
    tasks = max(_number(directives.get("ntasks", "1")) or 1, stage.ranks)
    times = {"gpus": 1, "gpus-per-node": nodes, "gpus-per-task": tasks, "gres": nodes}
    for name, factor in times.items():
        parts = _gpu_parts(name, directives.get(name, ""))
        if parts:
            return None if factor is None else factor * sum(map(_last_number, parts))
    return None if stage.gpus else 0


def _gpu_parts(name: str, value: str) -> list[str]:
    parts = [part for part in re.sub(r"\([^)]*\)", "", value).split(",") if part]
    return [part for part in parts if name != "gres" or part.partition(":")[0] == "gpu"]


def _last_number(part: str) -> int:
    """Return the number at the end of ``type:number``; 1, if there is none."""
    last = _number(part.rpartition(":")[2])
    return 1 if last is None else last


def _hours(directives: Mapping[str, str]) -> float | None:
    seconds = parse_time(directives.get("time", ""))
    return None if seconds is None else seconds / 3600


def _plus(total: float | None, jobs: int, hours: float | None, each: int | None) -> float | None:
    if jobs == 0 or each == 0:
        return total
    return None if total is None or hours is None or each is None else total + jobs * each * hours


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None
