"""How many jobs Slurm takes: what its configuration and the limits of an account say."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_FIELD = re.compile(r"(\w+)=(\S*)")
_LIMIT = re.compile(r"(\d+)\((\d+)\)")


@dataclass(frozen=True, slots=True)
class Bound:
    """How many jobs more fit, and whose limit it is."""

    room: int
    why: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """What ``scontrol show config`` says of numbers of jobs; None where it does not.

    Parameters
    ----------
    largest_array
        How many tasks an array may have; each index is below ``MaxArraySize`` too.
    most_jobs
        How many jobs and tasks the controller holds, those ended lately included.
    """

    largest_array: int | None = None
    most_jobs: int | None = None


def ask_limits(
    ask: Callable[[Sequence[str]], str],
    user: str,
    account: str | None,
    qos: str | None,
    where: Sequence[str] = (),
) -> tuple[Configuration, list[Bound]]:
    """Ask Slurm how many tasks fit: in an array, and in the queue.

    Parameters
    ----------
    ask
        Runs one of Slurm's programs and returns what it prints; nothing if it fails.
    user
        Name or number of the user.
    account, qos
        See `account_bounds`.
    where
        Option that names the cluster.
    """
    configuration = parse_config(ask(["scontrol", *where, "show", "config"]))
    listing = ["squeue", *where, "--noheader", "--array", "--states=all", "--format=%i"]
    held = ask(listing).count("\n") if configuration.most_jobs else 0
    bounds = [bound] if (bound := controller_bound(configuration, held)) else []
    name = user_name(user)
    words = ["--oneliner", "show", "assoc_mgr", f"users={name}", "flags=assoc,qos"]
    said = ask(["scontrol", *where, *words])
    return configuration, [*bounds, *account_bounds(said, name, account, qos)]


def user_name(user: str) -> str:
    """Return the name of a user given by name or number."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (ValueError, KeyError):
        return user


def user_number(user: str) -> str:
    """Return the number of a user given by name."""
    try:
        return str(pwd.getpwnam(user).pw_uid)
    except KeyError:
        return user


def parse_config(text: str) -> Configuration:
    """Read the answer of ``scontrol show config``."""
    found = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
    sizes = [_number(found.get("MaxArraySize"))]
    parameters = re.search(r"\bmax_array_tasks=(\d+)", found.get("SchedulerParameters", ""))
    sizes += [int(parameters[1])] if parameters else []
    known = [size for size in sizes if size is not None]
    return Configuration(min(known, default=None), _number(found.get("MaxJobCount")))


def controller_bound(configuration: Configuration, held: int) -> Bound | None:
    """Return how many jobs the controller has room for.

    It was seen to hold one job less than ``MaxJobCount``, and to count each task of an array from
    the beginning; an ended job stays in it for ``MinJobAge``.

    Parameters
    ----------
    configuration
        What `parse_config` returned.
    held
        How many it holds.
    """
    most = configuration.most_jobs
    if most is None:
        return None
    return Bound(max(most - 1 - held, 0), f"MaxJobCount={most}, of which {held} are taken")


def account_bounds(text: str, user: str, account: str | None, qos: str | None) -> Iterator[Bound]:
    """Yield the limits of submission in ``scontrol --oneliner show assoc_mgr``.

    Parameters
    ----------
    text
        The answer.
    user
        Name of the user.
    account, qos
        Those asked for; the user's default account, and the only QOS, otherwise.
    """
    lines = [(line, dict(_FIELD.findall(line))) for line in text.splitlines()]
    associations = [fields for _, fields in lines if "Account" in fields and "UserName" in fields]
    yield from _association_bounds(associations, user, account)
    all_qos = [(line, fields) for line, fields in lines if line.startswith("QOS=")]
    for line, fields in all_qos:
        name = fields["QOS"].partition("(")[0]
        if name == qos or (qos is None and len(all_qos) == 1):
            yield from _qos_bounds(line, fields, name, user)


def _association_bounds(
    associations: Iterable[Mapping[str, str]], user: str, account: str | None
) -> Iterator[Bound]:
    mine: Mapping[str, str] | None = None
    parents: dict[str, Mapping[str, str]] = {}
    for one in associations:
        if not one["UserName"]:
            parents[one["Account"]] = one
        elif one["UserName"].partition("(")[0] == user and not one.get("Partition"):
            default = one.get("DefAssoc") == "Yes"
            mine = one if (one["Account"] == account if account else default) else mine
    if mine is None:
        return
    yield from _bounds(mine, ("MaxSubmitJobs", "GrpSubmitJobs"), f"account {mine['Account']}")
    above: Mapping[str, str] | None = parents.get(mine["Account"])
    while above is not None:
        yield from _bounds(above, ("GrpSubmitJobs",), f"account {above['Account']}")
        name = above.get("ParentAccount", "").partition("(")[0]
        above = parents.pop(name, None)


def _qos_bounds(line: str, fields: Mapping[str, str], name: str, user: str) -> Iterator[Bound]:
    yield from _bounds(fields, ("GrpSubmitJobs",), f"QOS {name}")
    of_users = line.partition("User Limits=")[2]
    mine = re.search(
        rf"(?:^|\s|\()(?:{re.escape(user)}|{user_number(user)})\)?=\{{([^}}]*)\}}", of_users
    )
    if mine:
        yield from _bounds(dict(_FIELD.findall(mine[1])), ("MaxSubmitJobsPU",), f"QOS {name}")


def _bounds(fields: Mapping[str, str], names: Iterable[str], whose: str) -> Iterator[Bound]:
    for name in names:
        found = _LIMIT.fullmatch(fields.get(name, ""))
        if found:
            limit, used = int(found[1]), int(found[2])
            why = f"{name}={limit} of {whose}, of which {used} are taken"
            yield Bound(max(limit - used, 0), why)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and int(text) > 0 else None
