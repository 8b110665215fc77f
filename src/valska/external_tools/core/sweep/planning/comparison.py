"""How a planned sweep compares with one that is there: what fits, what is kept, what is new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core import contents
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import BorrowedEntry, Manifest
from valska.external_tools.core.sweep.document import PointEntry, SweepManifest
from valska.external_tools.core.sweep.planning.drafting import DraftedPoint, SweepDraft
from valska.external_tools.core.sweep.planning.points import content_key
from valska.external_tools.core.sweep.planning.values import PointError
from valska.external_tools.core.sweep.writing.assembly import Sciences
from valska.external_tools.core.tool import HasOptions, Input, Stage, Tool
from valska.external_tools.core.trees import borrow
from valska.external_tools.core.utils import sha256_file


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a draft a sweep has already.

    Parameters
    ----------
    kept
        Labels of points that are there, equal.
    new
        The others.
    sciences
        Bundle ids of the draft's points.
    notes
        What was asked for and stays as it is in the sweep.
    """

    kept: tuple[str, ...]
    new: tuple[DraftedPoint, ...]
    sciences: Sciences
    notes: tuple[str, ...] = ()


def compare(draft: SweepDraft, manifest: SweepManifest, common: Manifest) -> Standing:
    """Compare a draft with a sweep, reading every input that the draft names.

    Raises
    ------
    UsageError
        If the draft does not fit: another tool, stages, image, input or setting.
    PointError
        If a point has the name of another, or is one under another name.
    """
    digests = _digests(draft.inputs, common)
    borrowed = borrow(draft.borrowed)
    faults = list(_faults(draft, common, digests, borrowed))
    if faults:
        raise UsageError(
            f"this does not fit the sweep in {draft.path}: {'; '.join(faults)}",
            "What all points share is sealed. Choose another --sweep-id or -o DIR.",
        )
    sciences = Sciences(draft, digests, borrowed)
    there = _There(manifest.points)
    kept, new = [], []
    for drafted in draft.points:
        entry = there.equal_of(drafted)
        if entry is None:
            new.append(drafted)
            continue
        if sciences.bundle_id(drafted, draft.stages) != entry.bundle_id:
            raise PointError(
                f"point {entry.label} is in the sweep already, made from another configuration",
                "The configuration has changed since. Choose another --sweep-id or -o DIR.",
            )
        kept.append(entry.label)
    return Standing(tuple(kept), tuple(new), sciences, tuple(_unheeded(draft, manifest, common)))


class _There:
    """The points that a sweep has, by name and by what they set."""

    def __init__(self, points: Iterable[PointEntry]) -> None:
        self._by_name = {point.label.casefold(): point for point in points}
        self._by_content = {content_key(p.values, p.perturbations): p for p in points}

    def equal_of(self, drafted: DraftedPoint) -> PointEntry | None:
        """Return the point that sets the same under the same name, or None."""
        point = drafted.point
        same = self._by_content.get(content_key(point.values, point.perturbations))
        named = self._by_name.get(point.label.casefold())
        if same is not None and same.label == point.label:
            return same
        if same is not None:
            raise PointError(
                f"point {point} is in the sweep already, as {same.label}", "Leave it out."
            )
        if named is not None:
            raise PointError(
                f"the name of point {point} is taken by another, {named.label}",
                "Give it another with --points and a column `label`.",
            )
        return None


def _digests(inputs: Iterable[Input], common: Manifest) -> dict[str, str]:
    """Return the digest of each input; a tool's own file stays what the sweep has of it."""
    sealed = {entry.path: entry.sha256 for entry in common.inputs}
    own = {item.target: sealed.get(f"inputs/{item.target}") for item in inputs if item.own}
    sources = {item.target: item.source for item in inputs}
    try:
        return {
            target: own.get(target) or sha256_file(source) for target, source in sources.items()
        }
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error


def _faults(
    draft: SweepDraft,
    common: Manifest,
    digests: Mapping[str, str],
    borrowed: Iterable[BorrowedEntry],
) -> Iterator[str]:
    base = draft.request.base
    environment = (common.environment or {}).get("explicit_sha256")
    pairs: dict[str, tuple[Any, Any]] = {
        "tool": (common.tool, base.tool.name),
        "runner": (common.runner, base.runner.value),
        "image": ((common.image or {}).get("sha256"), contents.image_sha256(base)),
        "environment": (environment, contents.environment_sha256(base)),
        **_each("override", common.spec["overrides"], base.spec.overrides),
        **_each("perturbation", common.spec["perturbations"], base.spec.perturbations),
        **_each("option", *_without_files(base.tool, common.spec["options"], base.spec.options)),
        "stages": (_plain(common.stages), _plain(draft.stages)),
        "borrowed directories": (
            {entry.path: entry.sha256 for entry in common.borrowed},
            {entry.path: entry.sha256 for entry in borrowed},
        ),
    }
    for what, (there, asked) in pairs.items():
        if there != asked:
            yield f"other {what}" if what == "stages" else f"{what} {_shown(asked, there)}"
    yield from _input_faults(draft.inputs, common, digests)


def _without_files(tool: Tool, *options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Leave out options that name files: their contents are compared, wherever they lie."""
    known = tool.options if isinstance(tool, HasOptions) else ()
    files = {option.name.replace("-", "_") for option in known if option.file}
    for one in options:
        yield {name: value for name, value in one.items() if name not in files}


def _unheeded(draft: SweepDraft, manifest: SweepManifest, common: Manifest) -> Iterator[str]:
    """Name what is asked for that does not change results, and that a sweep keeps as it was."""
    if draft.sweep_id != manifest.sweep_id:
        yield f"the sweep's id stays {manifest.sweep_id}"
    for entry, stage in zip(common.stages, draft.stages, strict=True):
        asked = contents.directives_of(draft.request.base, stage, sweep=True)
        other = [name for name in asked if asked[name] != entry.directives.get(name)]
        gone = [name for name in entry.directives if name not in asked]
        if other or gone:
            wanted = [f"{name}={asked[name]}" for name in other] + [f"no {name}" for name in gone]
            yield (
                f"the script of {stage.name} stays as it is, without {', '.join(wanted)}: "
                "give --slurm to `valska submit`"
            )


def _each(
    what: str, there: Mapping[str, Any], asked: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return each key of two mappings with both of its values, so that equal ones go untold."""
    keys = {**there, **asked}
    return {f"{what} {key}": (there.get(key, _UNSET), asked.get(key, _UNSET)) for key in keys}


def _input_faults(
    inputs: Iterable[Input], common: Manifest, digests: Mapping[str, str]
) -> Iterator[str]:
    there = {(entry.name, entry.path): entry.sha256 for entry in common.inputs}
    for item in inputs:
        digest = there.get((item.name, f"inputs/{item.target}"))
        if digest is None:
            yield f"it has no input {item.name} ({Path(item.source).name})"
        elif digest != digests[item.target]:
            yield f"input {item.name} has changed since: {item.source}"


_UNSET = object()


def _shown(asked: Any, there: Any) -> str:
    one, other = ("unset" if value is _UNSET else repr(value) for value in (asked, there))
    return f"{one}, not {other}"


def _plain(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    return [{name: getattr(s, name) for name in Stage.__dataclass_fields__} for s in stages]
