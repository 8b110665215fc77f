"""A sweep before anything is written: every point planned, and nothing of it left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from valska.external_tools.core.bundling import BundleRequest, require_software
from valska.external_tools.core.contents import directives_of
from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.overrides import check_distinct
from valska.external_tools.core.plans import check_perturbed, check_plan
from valska.external_tools.core.run_directory import build_run_dir, check_name, check_place
from valska.external_tools.core.sweep.layout import SWEEPS
from valska.external_tools.core.sweep.planning.cost import Cost, cost_of
from valska.external_tools.core.sweep.planning.once import each_message_once
from valska.external_tools.core.sweep.planning.points import Point, with_point
from valska.external_tools.core.sweep.planning.spool import Spool
from valska.external_tools.core.tool import (
    Input,
    PlansPoints,
    Read,
    RunPlan,
    RunSpec,
    Stage,
    Tool,
    read_file,
)

RESERVED = frozenset({"label", "values", "perturbations", "stage", "shared"})
"""Fields of a point's manifest that no tool's section can have the name of."""

Planned = tuple[tuple[Input, ...], RunPlan]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """Everything that a sweep is made from, resolved.

    Parameters
    ----------
    base
        As for a bundle, without any point's values: its run id is the sweep's id, its output
        the sweep's directory.
    points
        The points.
    """

    base: BundleRequest
    points: tuple[Point, ...]


class Config(NamedTuple):
    """A rendered configuration of a point: name below ``config/``, digest, place in the spool."""

    name: str
    sha256: str
    size: int
    place: int


class DraftedPoint(NamedTuple):
    """A point as planned.

    Parameters
    ----------
    point
        What it sets.
    configs
        Its configurations.
    inputs
        What it reads.
    section
        The tool's section of its manifest.
    work
        Stage whose work can be shared to the label of that work.
    """

    point: Point
    configs: tuple[Config, ...]
    inputs: tuple[Input, ...]
    section: Mapping[str, Any]
    work: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SweepDraft:
    """A sweep before anything is written: what a dry run shows.

    Parameters
    ----------
    request
        What it is made from.
    path
        The sweep's directory.
    taxonomy
        Levels of the results tree.
    stages
        The same for all points.
    borrowed
        See `RunPlan.borrowed`; the same for all points.
    points
        In the order of the request.
    inputs
        Of all points, each file once for each of its names.
    keys
        Label of work that can be shared to the SHA-256 of its key.
    spool
        Holds the configurations.
    directives
        Stage to those of the sweep that is there, which it keeps.
    notes
        What was asked for and stays as it is in the sweep that is there.
    lent
        Label of work that is shared, however few points use it, to what configures it.
    """

    request: SweepRequest
    path: Path
    taxonomy: Mapping[str, str]
    stages: tuple[Stage, ...]
    borrowed: Mapping[str, Path]
    points: tuple[DraftedPoint, ...]
    inputs: tuple[Input, ...]
    keys: Mapping[str, str]
    spool: Spool
    directives: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lent: Mapping[str, DraftedPoint] = field(default_factory=dict)

    @property
    def sweep_id(self) -> str:
        """The user's name for the sweep."""
        return self.request.base.spec.run_id

    @property
    def shared(self) -> frozenset[str]:
        """Labels of the work that is shared."""
        return shared_work(self.points) | self.lent.keys()

    @property
    def cost(self) -> Cost:
        """What the points ask of a cluster."""
        shared = self.shared
        jobs = dict.fromkeys([stage.name for stage in self.stages], len(self.points))
        for point in self.points:
            for stage, label in point.work.items():
                jobs[stage] -= label in shared
        for label in shared:
            jobs[stage_of(label)] += 1
        asked = {s.name: directives_of(self.request.base, s, sweep=True) for s in self.stages}
        return cost_of(jobs, self.directives or asked, self.stages)


def shared_work(points: Iterable[DraftedPoint]) -> frozenset[str]:
    """Return the labels of work that two points or more have in common."""
    counts = Counter(label for point in points for label in point.work.values())
    return frozenset(label for label, count in counts.items() if count > 1)


def stage_of(label: str) -> str:
    """Return the stage of shared work by its label."""
    return label.rpartition("-")[0]


def draft_sweep(request: SweepRequest, read: Read = read_file) -> SweepDraft:
    """Plan every point and choose the place; write nothing.

    Parameters
    ----------
    request
        What to make.
    read
        Reads the files that the configuration names.

    Raises
    ------
    UsageError
        If the configuration, a value or an input is wrong, naming the point and its keys; or
        points differ in what cannot differ within a sweep.
    PrerequisiteError
        If the container runner has no image, or the conda runner no environment.
    ValskaError
        If the tool's plan contradicts itself.
    """
    base = request.base
    check_name(base.spec.run_id, "sweep id")
    require_software(base)
    drafting = _Drafting(request, read)
    with each_message_once():
        try:
            for point, (inputs, plan) in zip(request.points, _plans(request, read), strict=True):
                with_point(point, drafting.add, point, inputs, plan)
        except ValskaError as error:
            raise _of_all(base, error, read) from error
        first = drafting.plan
        assert first is not None  # noqa: S101 - there is at least one point
        taxonomy = _base_taxonomy(base, first, read)
    return SweepDraft(
        request,
        _place(base, taxonomy).absolute(),
        taxonomy,
        first.stages,
        first.borrowed,
        tuple(drafting.points),
        tuple(drafting.inputs),
        drafting.keys,
        drafting.spool,
    )


def _plans(request: SweepRequest, read: Read) -> Iterator[Planned]:
    tool, base = request.base.tool, request.base.spec
    specs = list(_specs(base, request.points))
    several = tool.plan_points(specs, read) if isinstance(tool, PlansPoints) else None
    for point, spec in zip(request.points, specs, strict=True):
        if several is None:
            yield with_point(point, _plan_one, request.base, spec, read)
        else:
            yield with_point(point, _next, tool.name, several)


def _spec(base: RunSpec, point: Point) -> RunSpec:
    return next(_specs(base, [point]))


def _specs(base: RunSpec, points: Iterable[Point]) -> Iterator[RunSpec]:
    fields = {name: getattr(base, name) for name in RunSpec.__dataclass_fields__}
    for point in points:
        if not point.values.keys().isdisjoint(base.overrides):
            twice = ", ".join(sorted(point.values.keys() & base.overrides.keys()))
            raise UsageError(
                f"{twice} cannot be both swept and set by --override", "Leave the override out."
            )
        fields["run_id"] = point.label
        fields["overrides"] = {**base.overrides, **point.values}
        fields["perturbations"] = {**base.perturbations, **point.perturbations}
        if fields["perturbations"]:
            check_distinct(fields["overrides"], fields["perturbations"])
        yield RunSpec(**fields)


def _plan_one(base: BundleRequest, spec: RunSpec, read: Read) -> Planned:
    inputs = base.tool.discover(spec, read)
    return inputs, base.tool.plan(spec, inputs, read)


def _next(tool: str, several: Iterator[Planned]) -> Planned:
    try:
        return next(several)
    except StopIteration:
        raise ValskaError(f"tool {tool} does not plan this point") from None


def _plan_base(base: BundleRequest, read: Read) -> Planned:
    """Plan what is asked for without any point's values."""
    if isinstance(base.tool, PlansPoints):
        return next(iter(base.tool.plan_points([base.spec], read)))
    return _plan_one(base, base.spec, read)


def _of_all(base: BundleRequest, error: ValskaError, read: Read) -> ValskaError:
    """Return a point's error; without naming the point if all have it."""
    try:
        _plan_base(base, read)
    except ValskaError as own:
        if error.message.endswith(f": {own.message}"):
            return own
    return error


def _base_taxonomy(base: BundleRequest, first: RunPlan, read: Read) -> Mapping[str, str]:
    """Return the levels without any point's values, so that they do not depend on the points."""
    try:
        return _plan_base(base, read)[1].taxonomy
    except ValskaError:
        return first.taxonomy


def _place(base: BundleRequest, taxonomy: Mapping[str, str]) -> Path:
    if base.output is not None:
        return base.output
    if base.results_root is None:
        raise UsageError(
            "no place for the sweep",
            "Name it with -o DIR, or set results_root (--results-root or the configuration).",
        )
    run_dir = build_run_dir(base.results_root, base.tool.name, taxonomy, base.spec.run_id)
    return run_dir.parent / SWEEPS / run_dir.name


class _Drafting:
    """Takes plans one after the other, and keeps of each what a sweep needs."""

    def __init__(self, request: SweepRequest, read: Read) -> None:
        self._read = read
        self._perturbs = False
        self.plan: RunPlan | None = None
        self.points: list[DraftedPoint] = []
        self.inputs: dict[Input, None] = {}
        self.keys: dict[str, str] = {}
        self.spool = Spool()
        self._request = request
        self._targets: dict[str, Path] = {}
        self._same: dict[tuple[Input, ...], tuple[Input, ...]] = {}
        self._last: tuple[Input, ...] | None = None
        self._names: set[tuple[str, ...]] = set()
        self._works: dict[tuple[str, str], str] = {}

    def add(self, point: Point, inputs: tuple[Input, ...], plan: RunPlan) -> None:
        if self.plan is None:
            _check_plan(self._request.base.tool, plan)
            self.plan = plan
        elif plan.stages is not self.plan.stages and plan.stages != self.plan.stages:
            raise _other_stages(self.points[0].point, self.plan.stages, plan.stages)
        elif plan.borrowed != self.plan.borrowed:
            raise UsageError(
                f"it would borrow other directories than point {self.points[0].point.label}"
            )
        if not self._perturbs and any(point.perturbations.values()):
            base = self._request.base
            check_perturbed(base.tool, _spec(base.spec, point), plan, self._read)
            self._perturbs = True
        self.points.append(
            DraftedPoint(
                point,
                self._configs(plan.configs),
                self._same_inputs(inputs),
                plan.section if type(plan.section) is dict else dict(plan.section),
                self._work(plan.shares) if plan.shares else {},
            )
        )

    def _configs(self, configs: Mapping[str, bytes]) -> tuple[Config, ...]:
        names = tuple(configs)
        if names not in self._names:
            for name in names:
                check_place(name)
            self._names.add(names)
        return tuple([Config(name, *self.spool.add(data)) for name, data in configs.items()])

    def _same_inputs(self, inputs: tuple[Input, ...]) -> tuple[Input, ...]:
        if inputs is self._last:
            return inputs
        known = self._same.get(inputs)
        if known is not None:
            return known
        for item in inputs:
            source = self._targets.setdefault(item.target, item.source)
            if source != item.source and not source.samefile(item.source):
                raise UsageError(
                    f"input {item.name} is {item.source}, and another point's {source} has the "
                    f"same name {item.target} in the sweep",
                    "Rename one of the two files.",
                )
            self.inputs[item] = None
        self._same[inputs] = self._last = inputs
        return inputs

    def _work(self, shares: Mapping[str, str]) -> dict[str, str]:
        return {stage: self._work_label(stage, key) for stage, key in shares.items()}

    def _work_label(self, stage: str, key: str) -> str:
        label = self._works.get((stage, key))
        if label is None:
            digest = hashlib.sha256(key.encode()).hexdigest()
            label = f"{stage}-{digest[:12]}"
            if self.keys.setdefault(label, digest) != digest:
                raise ValskaError(f"two works of stage {stage} have the same name {label}")
            self._works[stage, key] = label
        return label


def _check_plan(tool: Tool, plan: RunPlan) -> None:
    check_plan(tool, plan)
    if tool.name in RESERVED:
        raise ValskaError(f"a tool cannot be called {tool.name!r}: a point has such a field")
    lenders = {stage.name for stage in plan.stages if stage.lends}
    if not plan.shares.keys() <= lenders:
        raise ValskaError(f"tool {tool.name} has a key for a stage that lends nothing")


def _other_stages(first: Point, stages: Sequence[Stage], others: Sequence[Stage]) -> UsageError:
    names, other_names = _names(stages), _names(others)
    if names != other_names:
        what = f"stages {', '.join(other_names)}, not {', '.join(names)}"
    else:
        what = "; ".join(_differences(stages, others))
    return UsageError(
        f"it would run something else than point {first.label}: {what}",
        "All points of a sweep run the same commands; make a sweep for each.",
    )


def _names(stages: Iterable[Stage]) -> list[str]:
    return [stage.name for stage in stages]


def _differences(stages: Iterable[Stage], others: Iterable[Stage]) -> Iterator[str]:
    for one, other in zip(stages, others, strict=True):
        for name in Stage.__dataclass_fields__:
            mine, theirs = getattr(one, name), getattr(other, name)
            if mine != theirs:
                yield f"{name} of {one.name} is {theirs!r}, not {mine!r}"
