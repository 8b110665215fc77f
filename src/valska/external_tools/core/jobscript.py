"""The sbatch script of a stage: rendered from a plan, readable before it runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.runner import SRUN_ENVIRONMENT, RunnerKind, part, render_runner
from valska.external_tools.core.timelimit import grace_of, parse_time
from valska.external_tools.core.tool import Launch, Resume, Stage, owned_place, owned_places

GRACE_SECONDS = 60
"""How long before the time limit a job is asked to stop; a tenth of a shorter limit."""

_COMMON = ("job.sh", "job_outputs.sh", "job_record.sh")
"""Parts that are the same in every script."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STAGE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REQUEUE = frozenset({"requeue", "no-requeue"})


@dataclass(frozen=True, slots=True)
class Identity:
    """What a script has to know of the bundle or sweep that it belongs to.

    Parameters
    ----------
    tool
        Name of the tool.
    run_id
        The user's name for the run or the sweep.
    bundle_id
        Digest of the science; empty for a sweep, whose points have each their own.
    instance
        Tells this bundle or sweep from another of the same science.
    valska_version
        Which valska made it.
    """

    tool: str
    run_id: str
    bundle_id: str
    instance: str
    valska_version: str


def all_directives(
    tool: str, stage: Stage, directives: Mapping[str, str], *, sweep: bool = False
) -> dict[str, str]:
    """Return the directives of a stage's script: valska's own, then the user's.

    A stage that can go on from where it was stopped may be requeued; another may not.

    Parameters
    ----------
    tool
        Name of the tool.
    stage
        The stage.
    directives
        The user's: option of sbatch, without dashes, to value; an empty value is a flag.
    sweep
        Whether the script is a sweep's: its tasks have logs of their own, Slurm's is one.
    """
    limit = parse_time(directives.get("time", ""))
    grace = GRACE_SECONDS if limit is None else min(GRACE_SECONDS, max(limit // 10, 5))
    requeue = {} if _REQUEUE & directives.keys() else {_requeue(stage): ""}
    return {
        "job-name": f"{tool}-{stage.name}",
        "output": "logs/%x-%A.log" if sweep else "logs/%x-%j.log",
        "open-mode": "append",
        **requeue,
        "signal": f"B:TERM@{grace}",
        **directives,
    }


def _requeue(stage: Stage) -> str:
    return "requeue" if stage.resume else "no-requeue"


def render_script(
    identity: Identity,
    stage: Stage,
    directives: Mapping[str, str],
    *,
    runner: RunnerKind,
    image_sha256: str | None = None,
    environment_sha256: str | None = None,
    references: Iterable[tuple[str, str]] = (),
    borrowed: Iterable[tuple[str, str]] = (),
    alone: bool = True,
    sweep: bool = False,
    lent: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the job script of a stage.

    Parameters
    ----------
    identity
        Of the bundle or sweep.
    stage
        What to run.
    directives
        All that stand in the script, see `all_directives`.
    runner
        How to run it.
    image_sha256
        Digest that the image must have; for the container runner.
    environment_sha256
        Digest that the environment's explicit package list must have; for the conda runner.
    references
        Pairs of place in the bundle and SHA-256 of inputs that lie outside.
    borrowed
        Pairs of place in the bundle and tree digest of directories that lie outside.
    alone
        Whether it is the bundle's only stage: then all of ``outputs/`` is its own.
    sweep
        Whether the script stands in a sweep, and runs one unit of it at a time.
    lent
        Pairs of a stage and a directory below ``outputs/`` that it lends; of all stages, this
        one too.

    Raises
    ------
    UsageError
        If a value holds a control character or is not text.
    """
    if not _STAGE.fullmatch(stage.name):
        raise UsageError(f"stage name {stage.name!r} is not usable", "Use a-z, 0-9 and _.")
    constants = [
        *_stage_constants(stage, alone),
        _array("references", [word for pair in references for word in pair]),
        _array("borrowed", [word for pair in borrowed for word in pair]),
        *([_array("lent", [word for pair in lent for word in pair])] if sweep else []),
        _array("needs", [word for pair in lent if pair[0] in stage.after for word in pair]),
        f"patience={grace_of(directives, GRACE_SECONDS) * 3 // 4}",
        f"image_sha256={image_sha256 or ''}",
        f"environment_sha256={environment_sha256 or ''}",
        f"runner={runner.value}",
        *_identity_constants(identity, sweep),
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            *_directive_lines(directives),
            "",
            *_head(identity, stage, sweep),
            "",
            *(f"readonly {line}" for line in constants),
            "",
            render_runner(runner, stage, sweep=sweep),
            part("job_sweep.sh" if sweep else "job_bundle.sh"),
            *(part(name).rstrip("\n") + "\n" for name in _COMMON),
            'main "$@"',
            "exit",
            "",
        ]
    )


def quote_directive(value: str) -> str:
    r"""Quote a value for an ``#SBATCH`` line.

    sbatch splits such a line itself: white space separates, quotes group, ``#`` starts a
    comment, and a backslash takes the next character as it is, inside quotes too.

    Raises
    ------
    UsageError
        If the value holds a control character.
    """
    checked_text(value, "directive value")
    if value and not re.search(r"[\s\"'\\#]", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def checked_text(value: str, what: str) -> str:
    """Return a value that may stand in a script on one line.

    Raises
    ------
    UsageError
        If it holds a newline or another control character, or is not UTF-8.
    """
    if _CONTROL.search(value):
        raise UsageError(f"{what} {value!r} holds a control character", "Write it on one line.")
    return _encodable(value, what)


def _encodable(value: str, what: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} {value!r} is not UTF-8", "Rename it.") from error
    return value


def _directive_lines(directives: Mapping[str, str]) -> list[str]:
    lines = []
    for name, value in directives.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise UsageError(f"{name!r} is not an option of sbatch", "Name it without dashes.")
        lines.append(f"#SBATCH --{name}" + (f"={quote_directive(value)}" if value else ""))
    return lines


def _head(identity: Identity, stage: Stage, sweep: bool) -> list[str]:
    script = f"submit_{stage.name}.sh"
    kind, usage = "run", [f"# In the bundle's directory:  sbatch {script}   or   bash {script}"]
    unit = ""
    if sweep:
        kind, unit = "sweep", " points/LABEL"
        usage = [
            f"# In the sweep's directory:  bash {script}{unit}",
            f"# or, for many at once:  sbatch --array=0-N {script} LIST_SHA256 arrays/LIST",
        ]
    return [
        f"# Stage {stage.name} of {identity.tool} {kind} {identity.run_id}, made by valska "
        f"{identity.valska_version}.",
        *usage,
        f"# See the command, run nothing:  bash {script}{unit} --show",
        "# What this job runs is said here; how it checks and records follows below.",
        "# shellcheck disable=SC2016,SC2034,SC2054,SC2317",
        "set +o posix",
    ]


def _stage_constants(stage: Stage, alone: bool) -> list[str]:
    environment = dict(stage.env)
    if stage.launch is Launch.SRUN and stage.ranks > 1:
        environment |= SRUN_ENVIRONMENT
    for name in environment:
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"{name!r} is not usable as the name of an environment variable")
    resume = stage.resume or Resume("", "")
    patterns = [path for path in (*stage.outputs, resume.pattern) if "*" in path]
    return [
        _array("payload", _program_first(stage.argv)),
        _array("environment", [f"{name}={value}" for name, value in environment.items()]),
        f"ranks={stage.ranks}",
        _array("probe", stage.probe),
        _array("declared", stage.outputs),
        _array("owned", (".",) if alone else owned_places(stage)),
        _array("directories", {owned_place(path): None for path in patterns}),
        _array("resume_by", (resume.pattern, resume.option) if stage.resume else ()),
        f"gpus={'yes' if stage.gpus else 'no'}",
        f"stage={stage.name}",
        f"script=submit_{stage.name}.sh",
    ]


def _identity_constants(identity: Identity, sweep: bool) -> list[str]:
    version = shlex.quote(checked_text(identity.valska_version, "version"))
    return [
        *([] if sweep else [f"bundle_id={identity.bundle_id}"]),
        f"instance={identity.instance}",
        f"valska_version={version}",
    ]


def _program_first(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a program that ``env``, which starts the payload, would take for a variable."""
    if "=" in argv[0]:
        raise UsageError(f"a program cannot be called {argv[0]!r}", "Call it without an = sign.")
    return argv


def _array(name: str, values: Iterable[str]) -> str:
    words = " ".join(shlex.quote(_checked_argument(value)) for value in values)
    return f"{name}=({words})"


def _checked_argument(value: str) -> str:
    if "\x00" in value:
        raise UsageError(f"{value!r} holds a null character")
    return _encodable(value, "argument")
