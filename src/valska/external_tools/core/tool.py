"""What a tool is to the core: a spec goes in, inputs and a plan come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.suggest import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from valska.external_tools.core.comparison.verdict import (
        OutputComparison,
        RunFiles,
        Tolerances,
    )

ENTRY_POINT_GROUP = "valska.tools"

BUILT_IN = {
    "bayeseor": "valska.external_tools.bayeseor:TOOL",
    "pyuvsim": "valska.external_tools.pyuvsim:TOOL",
}
"""valska's own entry points, which are found without looking through all that is installed."""

Read = Callable[[Path], bytes]
"""Reads a file that the spec names; raises `UsageError` if it cannot."""


class Launch(StrEnum):
    """How a stage with several MPI ranks is started."""

    MPIEXEC = "mpiexec"
    """``mpiexec`` of the image, inside one container, on one node."""
    SRUN = "srun"
    """``srun`` starts one container per rank, also across nodes."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What the user asked for, with defaults, files and flags already merged.

    Parameters
    ----------
    tool
        Name of the tool.
    run_id
        The user's name for the run.
    source
        The tool's own configuration file: the user's, or a template.
    taxonomy
        Levels of the results tree that the user fixed (tool-specific names).
    overrides
        Dotted configuration key to typed value.
    directives
        Per stage: sbatch long option without dashes to value, merged already.
    launch
        How MPI stages are started.
    perturbations
        Dotted configuration key to a fraction f: its value is multiplied by 1 + f.
    options
        The tool's own options, see `ToolOption`.
    """

    tool: str
    run_id: str
    source: Path
    taxonomy: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    directives: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    launch: Launch = Launch.MPIEXEC
    perturbations: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Input:
    """A file that the run reads and that is not part of the image.

    Parameters
    ----------
    name
        Logical name, independent of where the file lies (``sources.catalog``).
    source
        Where it lies now; absolute.
    target
        Name below ``inputs/``: lower-case and plain.
    own
        Whether it is the tool's own, not the user's: always copied, however inputs are staged.
    """

    name: str
    source: Path
    target: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """How a stage goes on from an earlier attempt's files.

    Parameters
    ----------
    pattern
        Path below ``outputs/``, with patterns, of a file that only an attempt to go on from has.
    option
        Option added to the command; its value is the name of the directory of that file.
    """

    pattern: str
    option: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One job of a run.

    Parameters
    ----------
    name
        Unique within the run; ``[a-z][a-z0-9_]*``.
    argv
        The payload's command, without any MPI launcher. Its working directory is the bundle's
        ``outputs/``; it finds its configuration at ``../config/…``.
    after
        Stages that must have succeeded before.
    outputs
        Files, relative to ``outputs/``, without which an exit code of 0 is a failure. A component
        may be a pattern (``*``, ``**``); the stage then owns all below what stands before it.
    env
        Environment of the payload.
    ranks
        MPI ranks.
    probe
        A command that prints the size of its MPI world, one line a rank; run in the same way
        before the payload. Needed where `ranks` can be more than 1.
    launch
        How the ranks are started.
    gpus
        Whether the payload uses GPUs.
    lends
        Directories below ``outputs/`` that other stages read, and that runs with the same work
        can share.
    resume
        How an attempt goes on from what an earlier one left; None if it cannot.
    """

    name: str
    argv: tuple[str, ...]
    after: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ranks: int = 1
    probe: tuple[str, ...] = ()
    launch: Launch = Launch.MPIEXEC
    gpus: bool = False
    lends: tuple[str, ...] = ()
    resume: Resume | None = None


def owned_place(path: str) -> str:
    """Return what a declared output makes a stage own, below ``outputs/``; ``.`` for all of it.

    That is the output itself, or the directory before its first component with a pattern.
    """
    parts = path.split("/")
    plain = next((n for n, part in enumerate(parts) if "*" in part), len(parts))
    return "/".join(parts[:plain]) or "."


def owned_places(stage: Stage) -> tuple[str, ...]:
    """Return all that a stage owns below ``outputs/``, sorted, none within another."""
    places = sorted({owned_place(path) for path in stage.outputs})
    return tuple(place for place in places if not any(is_within(place, o) for o in places))


def is_within(place: str, other: str) -> bool:
    """Return whether one place below ``outputs/`` lies inside another, and is not the same."""
    return place != other and (other == "." or place.startswith(f"{other}/"))


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a tool makes of a spec; pure data, nothing written yet.

    Parameters
    ----------
    stages
        In an order in which they could run.
    configs
        Name below ``config/`` to content.
    taxonomy
        Levels of the results tree between the tool and the run id, in order.
    section
        The tool's own section of the manifest; JSON types only.
    shares
        Name of a stage that lends to a key of all that determines its work: points of a sweep
        with equal keys run it once.
    borrowed
        Place below ``outputs/`` to an existing directory that the run reads there instead of
        making it; absolute.
    """

    stages: tuple[Stage, ...]
    configs: Mapping[str, bytes]
    taxonomy: Mapping[str, str]
    section: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    borrowed: Mapping[str, Path] = field(default_factory=dict)


@runtime_checkable
class Tool(Protocol):
    """A tool as an entry point in the group ``valska.tools`` provides it."""

    name: str
    """Plain lower-case name, used on the command line and in paths."""
    summary: str
    """One line for ``valska tools``."""
    definition: str
    """Name of its definition file below ``containers/``."""
    templates_dir: Path
    """Directory with its templates."""
    stages: tuple[str, ...]
    """Names of the stages that it can have."""
    directives: Mapping[str, Mapping[str, str]]
    """Default Slurm directives per stage."""

    def discover(self, spec: RunSpec, read: Read) -> tuple[Input, ...]:
        """Find every file that the configuration names, reading what it has to."""
        ...

    def plan(self, spec: RunSpec, inputs: tuple[Input, ...], read: Read) -> RunPlan:
        """Turn a spec and its inputs into stages and rendered configurations."""
        ...


@runtime_checkable
class PlansPoints(Protocol):
    """What a tool has, besides, if it can plan many similar runs faster than one by one."""

    def plan_points(
        self, specs: Sequence[RunSpec], read: Read
    ) -> Iterator[tuple[tuple[Input, ...], RunPlan]]:
        """Yield, for each spec in turn, what `Tool.discover` and `Tool.plan` would return.

        The specs differ only in run id, overrides and perturbations. A fault of a spec is raised
        when its turn comes. Equal inputs and stages should be the same objects.
        """
        ...


@dataclass(frozen=True, slots=True)
class ToolOption:
    """An option of ``valska bundle`` and ``valska sweep`` that one tool has.

    Parameters
    ----------
    name
        Without dashes; also its key in `RunSpec.options`, with ``_`` for ``-``.
    help
        For ``--help``.
    choices
        Possible values; any text, if empty.
    default
        Its value if it is not given.
    flag
        Whether it takes no value.
    metavar
        What stands for its value in ``--help``.
    file
        Whether its value names an input or what is borrowed: what counts is its content.
    """

    name: str
    help: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    flag: bool = False
    metavar: str | None = None
    file: bool = False


@runtime_checkable
class HasOptions(Protocol):
    """What a tool has, besides, if it adds options of its own."""

    options: tuple[ToolOption, ...]


@runtime_checkable
class VariesDirectives(Protocol):
    """What a tool has, besides, if its default directives depend on its own options."""

    def directives_with(self, options: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
        """Return the default Slurm directives per stage, for the options of a run."""
        ...


@runtime_checkable
class Plots(Protocol):
    """What a tool has, besides, if it can draw what its runs wrote."""

    def plot(self, outputs: Path, section: Mapping[str, Any], title: str) -> bytes:
        """Draw what a run wrote.

        Parameters
        ----------
        outputs
            Directory with what the run wrote.
        section
            The tool's own section of the manifest.
        title
            What stands above the picture.

        Returns
        -------
        bytes
            A PNG; the same for the same outputs and title.

        Raises
        ------
        PrerequisiteError
            If the run has not written it yet, or a package that draws is not installed.
        UsageError
            If the outputs are of a format that cannot be drawn.
        """
        ...


@runtime_checkable
class Compares(Protocol):
    """What a tool has, besides, if it knows what of its outputs is science and what is not."""

    def compare(
        self, reference: RunFiles, new: RunFiles, tolerances: Tolerances
    ) -> Iterator[OutputComparison]:
        """Compare those outputs that it knows; the others are compared by their formats.

        Parameters
        ----------
        reference, new
            What two runs wrote. Files whose bytes agree, or of which only a digest is left, are
            not among them: they are judged already.
        tolerances
            What numbers may differ by.
        """
        ...


def read_file(path: Path) -> bytes:
    """Read a file that a spec names.

    Raises
    ------
    UsageError
        If it is missing, a directory, or unreadable.
    """
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a directory, not a file", "Name a file in it.") from error
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {path}", "Check the path for a typing error.") from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", "Check its permissions."
        ) from error


def tool_names() -> tuple[str, ...]:
    """Return the names of all installed tools, sorted, loading none of them."""
    return tuple(sorted(_entry_points()))


def load_tool(name: str) -> Tool:
    """Load a tool by name.

    Raises
    ------
    UsageError
        If no tool has that name.
    ValskaError
        If its plugin cannot be imported or is no `Tool`.
    """
    place, load = _find(name)
    try:
        tool = load()
    except Exception as error:
        raise ValskaError(
            f"the plugin of tool {name!r} ({place}) does not load: {error}",
            "Reinstall or remove that plugin; other tools are not affected.",
        ) from error
    if not isinstance(tool, Tool):
        raise ValskaError(f"the plugin of tool {name!r} ({place}) is no valska tool")
    return tool


def default_directives(tool: Tool, options: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return a tool's default Slurm directives for every stage.

    Parameters
    ----------
    tool
        The tool.
    options
        Values of its own options, see `RunSpec.options`.
    """
    found = tool.directives_with(options) if isinstance(tool, VariesDirectives) else tool.directives
    return {stage: found.get(stage, {}) for stage in tool.stages}


def _find(name: str) -> tuple[str, Callable[[], Any]]:
    """Return where a tool is, and what loads it."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return BUILT_IN[name], lambda: getattr(import_module(module), attribute)
    entries = _entry_points()
    if name not in entries:
        near = did_you_mean(name, entries)
        installed = f"Installed: {', '.join(sorted(entries)) or 'none'}."
        raise UsageError(
            f"no tool is called {name!r}", f"{near} {installed}" if near else installed
        )
    return entries[name].value, entries[name].load


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
