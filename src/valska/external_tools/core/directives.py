"""Which sbatch directives there are, and what may be asked of them.

The table holds every long option of sbatch from Slurm 22.05 to 25.11, so that a typing error is
found before a cluster sees it.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.suggest import did_you_mean


class DirectiveError(UsageError):
    """A Slurm directive is unknown, belongs to valska, or has an impossible value."""


class Kind(Enum):
    """Whether a directive takes a value."""

    VALUE = auto()
    OPTIONAL = auto()
    FLAG = auto()


_WITH_VALUE = """
account acctg-freq batch bb bbf begin cluster cluster-constraint clusters comment constraint
core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot distribution
exclude extra extra-node-info gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task
gres gres-flags hint licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu
mem-update mincpus network nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu
ntasks-per-node ntasks-per-socket ntasks-per-tres partition power prefer priority profile qos
reservation resources segment sockets-per-node switches tasks-per-node thread-spec
threads-per-core time time-min tmp tres-bind tres-per-task wait-all-nodes wckey
"""

_OPTIONAL = "exclusive get-user-env nice no-kill oom-kill-step propagate resv-ports"

_FLAGS = """
consolidate-segments contiguous hold overcommit oversubscribe reboot spread-job spread-segments
stepmgr use-min-nodes
"""

DIRECTIVES = dict(
    sorted(
        {
            **dict.fromkeys(_WITH_VALUE.split(), Kind.VALUE),
            **dict.fromkeys(_OPTIONAL.split(), Kind.OPTIONAL),
            **dict.fromkeys(_FLAGS.split(), Kind.FLAG),
        }.items()
    )
)
"""Every directive that a user can set, and whether it takes a value."""

_LOGS = "valska puts every job's log below logs/"
_CALL = "it changes how sbatch is called, not the job"
_REQUEUE = "valska decides by stage whether a job can be requeued"
_CONTAINER = "valska starts the container itself"

OWNED = {
    "array": "valska gives arrays their indexes",
    "autocomplete": _CALL,
    "chdir": "a stage always runs in its bundle",
    "container": _CONTAINER,
    "container-id": _CONTAINER,
    "dependency": "valska chains the stages by their order",
    "error": _LOGS,
    "export": "an exported variable would change the run without a trace in its manifest",
    "export-file": "an exported variable would change the run without a trace in its manifest",
    "external": _CALL,
    "gid": _CALL,
    "help": _CALL,
    "ignore-pbs": _CALL,
    "input": "a stage reads nothing from its standard input",
    "job-name": "valska finds a lost job again by its name",
    "kill-on-invalid-dep": "valska always sets it, so that no job waits for ever",
    "no-requeue": _REQUEUE,
    "open-mode": "a requeued job must not truncate its log",
    "output": _LOGS,
    "parsable": _CALL,
    "quiet": _CALL,
    "requeue": _REQUEUE,
    "runtime": _CONTAINER,
    "signal": "the job script relies on being told before its time is up",
    "test-only": _CALL,
    "uid": _CALL,
    "usage": _CALL,
    "verbose": _CALL,
    "version": _CALL,
    "wait": "use `valska submit --wait`",
    "wrap": "the script is what runs",
}
"""Directives that a user cannot set, and why."""

_EXCLUSIVE = frozenset({"mem", "mem-per-cpu", "mem-per-gpu"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def rivals(name: str) -> frozenset[str]:
    """Return the directives that sbatch refuses to take together with this one."""
    return _EXCLUSIVE - {name} if name in _EXCLUSIVE else frozenset()


def check_directive(name: str, value: str | bool | None) -> str | None:
    """Return a directive's text as it goes into a script.

    Parameters
    ----------
    name
        Long option of sbatch, without dashes.
    value
        Its value; True or empty for a flag that is set; None or False for what is not wanted.

    Returns
    -------
    str or None
        The value; empty for a flag without one; None where the directive is suppressed.

    Raises
    ------
    DirectiveError
        If sbatch has no such option, valska sets it itself, or the value is impossible.
    """
    kind = _kind(name)
    if value is None:
        return None
    if isinstance(value, bool):
        return _switch(name, kind, value)
    if not value and kind is not Kind.VALUE:
        return ""
    return _text(name, kind, value)


def parse_directive(text: str) -> tuple[str, str | None]:
    """Read ``key=value``, ``key`` (a flag) or ``key=`` (suppressed) from a command line.

    Raises
    ------
    DirectiveError
        See `check_directive`.
    """
    name, equals, value = text.removeprefix("--").partition("=")
    given = (value or None) if equals else True
    return name, check_directive(name, given)


def _kind(name: str) -> Kind:
    if name in OWNED:
        raise DirectiveError(
            f"the Slurm directive {name!r} cannot be set: {OWNED[name]}", "Leave it out."
        )
    if name not in DIRECTIVES:
        raise DirectiveError(
            f"sbatch has no option {name!r}",
            did_you_mean(name.replace("_", "-"), DIRECTIVES)
            or "Use a long option of sbatch, without its dashes.",
        )
    return DIRECTIVES[name]


def _switch(name: str, kind: Kind, value: bool) -> str | None:
    if kind is Kind.VALUE:
        raise DirectiveError(
            f"the Slurm directive {name!r} needs a value",
            "Write null (or `--slurm key=`) to leave a directive out.",
        )
    return "" if value else None


def _text(name: str, kind: Kind, value: str) -> str:
    if kind is Kind.FLAG:
        raise DirectiveError(
            f"the Slurm directive {name!r} takes no value",
            "Write true in a file, or `--slurm key` on the command line.",
        )
    if _CONTROL.search(value):
        raise DirectiveError(
            f"the value of the Slurm directive {name!r} has a newline or control character: "
            f"{value!r}",
            "Write it on one line, in printable characters.",
        )
    if not value.strip():
        raise DirectiveError(
            f"the Slurm directive {name!r} is empty",
            "Write null (or `--slurm key=`) to leave a directive out.",
        )
    return value.strip()
