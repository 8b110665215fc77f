"""Whether two bundles were to do the same: parameters, inputs, software, commands, directives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from valska.external_tools.core.comparison.environment import (
    package_differences,
    recorded_packages_of,
)
from valska.external_tools.core.comparison.values import (
    UnreadableError,
    compare_documents,
    flatten,
    read_yaml,
)
from valska.external_tools.core.comparison.verdict import Tolerances, Verdict
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import Manifest, StageEntry
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.utils import load_json

_PARSED = (".yaml", ".yml", ".json")
_FEW_LINES, _MANY_LINES = 20, 10_000
_MOST_LEAVES = 100_000


class Kind(StrEnum):
    """What of a run's intent."""

    TOOL = "tool"
    PARAMETER = "parameter"
    INPUT = "input"
    COMMAND = "command"
    IMAGE = "image"
    PACKAGE = "package"
    DIRECTIVE = "directive"
    VERSION = "version"
    AXIS = "axis"
    POINT = "point"


SCIENCE = frozenset({Kind.TOOL, Kind.PARAMETER, Kind.INPUT, Kind.COMMAND, Kind.IMAGE})
"""Kinds of what determines the science; see `Difference.science`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that two bundles do not have in common.

    Parameters
    ----------
    kind
        What it is.
    key
        Which one.
    a, b
        What either has; None if it has none.
    science
        Whether the bundle id depends on it.
    """

    kind: Kind
    key: str
    a: str | None
    b: str | None
    science: bool


@dataclass(frozen=True, slots=True)
class Side:
    """A bundle of which the intent is compared."""

    bundle: Bundle
    manifest: Manifest


def compare_intent(a: Side, b: Side) -> tuple[Difference, ...]:
    """Compare what two bundles, or points of sweeps, were to do.

    Run ids, places, times and how inputs were staged do not count.

    Parameters
    ----------
    a, b
        The bundles.

    Raises
    ------
    ValskaError
        If a sealed file of one cannot be read.
    """
    return (
        *_pairs(Kind.TOOL, {"tool": a.manifest.tool}, {"tool": b.manifest.tool}),
        *_parameters(a, b),
        *_pairs(Kind.INPUT, *(_inputs(side.manifest) for side in (a, b))),
        *_commands(a.manifest, b.manifest),
        *_pairs(Kind.IMAGE, *(_software(side.manifest) for side in (a, b))),
        *_packages(a, b),
        *_pairs(Kind.DIRECTIVE, *(_directives(side.manifest) for side in (a, b))),
        *_pairs(Kind.VERSION, *(_versions(side.manifest) for side in (a, b))),
    )


def _pairs(
    kind: Kind, a: Mapping[str, str | None], b: Mapping[str, str | None]
) -> Iterator[Difference]:
    for key in dict.fromkeys((*a, *b)):
        if a.get(key) != b.get(key):
            yield Difference(kind, key, a.get(key), b.get(key), _counts(kind, key))


def _counts(kind: Kind, key: str) -> bool:
    if kind is Kind.COMMAND:
        return key.rpartition(".")[2] in ("argv", "ranks")
    if kind is Kind.IMAGE:
        return key in ("sha256", "runner", "conda packages")
    return kind in SCIENCE


def _parameters(a: Side, b: Side) -> Iterator[Difference]:
    sides = [_configs(side) for side in (a, b)]
    for name in dict.fromkeys((*sides[0], *sides[1])):
        mine, theirs = (side.get(name) for side in sides)
        if mine is None or theirs is None:
            said = ["is there" if one else None for one in (mine, theirs)]
            yield Difference(Kind.PARAMETER, name, said[0], said[1], True)
        elif mine.read_bytes() != theirs.read_bytes():
            yield from _in_config(name, mine, theirs)


def _configs(side: Side) -> dict[str, Path]:
    """Return the configurations that are there."""
    entries = [entry.path for entry in side.manifest.files if entry.role == "config"]
    places = {place.partition("/")[2]: side.bundle.path / place for place in entries}
    return {name: path for name, path in places.items() if path.is_file()}


def _in_config(name: str, a: Path, b: Path) -> Iterator[Difference]:
    found: list[Difference] = []
    if a.suffix.lower() in _PARSED:
        with suppress(UnreadableError, RecursionError):
            documents = [read_yaml(path) for path in (a, b)]
            found = list(_in_documents(name, *documents))
    yield from found or _in_lines(name, a, b)


def _in_documents(name: str, a: Any, b: Any) -> Iterator[Difference]:
    leaves = [_leaves(name, document) for document in (a, b)]
    if compare_documents(a, b, Tolerances(0.0)).verdict is not Verdict.IDENTICAL:
        yield from _pairs(Kind.PARAMETER, *leaves)


def _leaves(name: str, document: Any) -> dict[str, str]:
    """Return the values of a document by their places; YAML's aliases can stand for any number."""
    found: dict[str, str] = {}
    for place, leaf in flatten(document):
        if len(found) == _MOST_LEAVES:
            raise UnreadableError(f"{name} has more than {_MOST_LEAVES} values")
        found[_dotted(name, place)] = repr(leaf)
    return found


def _dotted(name: str, place: Iterable[int | str]) -> str:
    return f"{name}: {'.'.join(map(str, place))}"


def _in_lines(name: str, a: Path, b: Path) -> Iterator[Difference]:
    """Tell the lines that differ, or only that they do, in what is no document."""
    mine, theirs = (path.read_bytes().decode(errors="replace").splitlines() for path in (a, b))
    small = len(mine) + len(theirs) <= _MANY_LINES
    codes = difflib.SequenceMatcher(None, mine, theirs).get_opcodes() if small else []
    blocks = [code for code in codes if code[0] != "equal"]
    if not blocks:
        yield Difference(Kind.PARAMETER, name, "differs", "differs", True)
        return
    for _, first, last, start, end in blocks[:_FEW_LINES]:
        key = f"{name}: line {first + 1}"
        lines = ["\n".join(part) or None for part in (mine[first:last], theirs[start:end])]
        yield Difference(Kind.PARAMETER, key, lines[0], lines[1], True)


def _inputs(manifest: Manifest) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        entry.name: f"{entry.sha256} ({entry.size} bytes)" for entry in manifest.inputs
    }
    return found | {
        entry.path: f"{entry.sha256} ({entry.files} files)" for entry in manifest.borrowed
    }


def _commands(a: Manifest, b: Manifest) -> Iterator[Difference]:
    sides = [{stage.name: stage for stage in manifest.stages} for manifest in (a, b)]
    for name in dict.fromkeys((*sides[0], *sides[1])):
        told = [_stage(side[name]) if name in side else {} for side in sides]
        yield from _pairs(
            Kind.COMMAND,
            *({f"{name}.{key}": value for key, value in one.items()} for one in told),
        )


def _stage(stage: StageEntry) -> dict[str, str]:
    import shlex

    return {
        "argv": shlex.join(stage.argv),
        "ranks": str(stage.ranks),
        "launch": stage.launch.value,
        **{f"env {name}": value for name, value in stage.env.items()},
    }


def _software(manifest: Manifest) -> dict[str, str | None]:
    image, environment = manifest.image or {}, manifest.environment or {}
    base = image.get("base") or {}
    arguments = image.get("build_arguments") or {}
    return {
        "runner": manifest.runner,
        "sha256": image.get("sha256"),
        "definition": image.get("definition_sha256"),
        "lock": image.get("lock_sha256"),
        "base": base.get("reference"),
        "base sha256": base.get("sha256"),
        "Apptainer": image.get("apptainer_version"),
        **{f"argument {name}": str(value) for name, value in arguments.items()},
        "conda packages": environment.get("explicit_sha256"),
    }


def _packages(a: Side, b: Side) -> Iterator[Difference]:
    """Yield packages that are not the same in both, as far as both have records."""
    yield from _conda_packages(a, b)
    before, after = _packages_of(a), _packages_of(b)
    if before is None or after is None or before == after:
        return
    from valska.external_tools.core.images.difference import compare_packages
    from valska.external_tools.core.images.packages import recorded_packages

    for one in compare_packages(recorded_packages(before), recorded_packages(after)):
        key = f"{one.ecosystem} {one.name}" + (f" in {one.place}" if one.place else "")
        yield Difference(Kind.PACKAGE, key, one.before, one.after, science=False)


def _conda_packages(a: Side, b: Side) -> Iterator[Difference]:
    digests = [(side.manifest.environment or {}).get("explicit_sha256") for side in (a, b)]
    if None in digests or digests[0] == digests[1]:
        return
    before, after = (recorded_packages_of(side.bundle) for side in (a, b))
    if before is not None and after is not None:
        for name, old, new in package_differences(before, after):
            yield Difference(Kind.PACKAGE, f"conda {name}", old, new, science=False)


def _packages_of(side: Side) -> Mapping[str, Any] | None:
    for entry in side.manifest.files:
        if entry.role == "image-record":
            found: Mapping[str, Any] = load_json(side.bundle.shared_path / entry.path)["packages"]
            return found
    return None


def _directives(manifest: Manifest) -> dict[str, str | None]:
    return {
        f"{stage.name}.{name}": value or "(set)"
        for stage in manifest.stages
        for name, value in stage.directives.items()
    }


def _versions(manifest: Manifest) -> dict[str, str | None]:
    git = manifest.git or {}
    return {
        "valska": manifest.valska_version,
        "valska's commit": git.get("commit"),
        "manifest schema": manifest.schema_version,
    }


def require_same_tool(a: Manifest, b: Manifest) -> None:
    """Refuse to compare what different tools wrote.

    Raises
    ------
    UsageError
        Naming both tools.
    """
    if a.tool != b.tool:
        raise UsageError(
            f"one is a run of {a.tool}, the other of {b.tool}", "Compare runs of one tool."
        )
