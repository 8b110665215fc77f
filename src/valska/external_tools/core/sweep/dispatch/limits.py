"""How many tasks a scheduler takes: at once, and in one array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.slurm import Slurm


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tasks a scheduler takes.

    Parameters
    ----------
    largest_array
        In one array; None for any number.
    room
        In all, now; None for any number.
    why
        Whose limit `room` is, for a person.
    """

    largest_array: int | None = None
    room: int | None = None
    why: str | None = None


def limits_of(
    scheduler: Scheduler, directives: Mapping[str, str], cluster: str | None = None
) -> Limits:
    """Ask a scheduler for its limits. What it does not say is found out by its refusals.

    Parameters
    ----------
    scheduler
        The scheduler. The local one has no limits.
    directives
        Of the stages to be sent: their account and QOS have limits too.
    cluster
        The Slurm cluster that is meant.
    """
    if not isinstance(scheduler, Slurm):
        return Limits()
    configuration, bounds = scheduler.limits(
        directives.get("account"), directives.get("qos"), cluster
    )
    tightest = min(bounds, key=lambda bound: bound.room, default=None)
    if tightest is None:
        return Limits(configuration.largest_array)
    return Limits(configuration.largest_array, tightest.room, tightest.why)
