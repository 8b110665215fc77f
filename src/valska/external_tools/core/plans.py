"""What a tool must not plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.manifest import FIELDS
from valska.external_tools.core.run_directory import check_place
from valska.external_tools.core.tool import (
    Read,
    RunPlan,
    RunSpec,
    Stage,
    Tool,
    is_within,
    owned_places,
)
from valska.external_tools.core.trees import check_borrowed


def check_plan(tool: Tool, plan: RunPlan) -> None:
    """Refuse what a tool must not plan; it is the tool's fault, not the user's.

    Raises
    ------
    ValskaError
        Naming the tool and the stage.
    UsageError
        If a path leads out of the outputs, or a borrowed directory is not there.
    """
    if tool.name in FIELDS:
        raise ValskaError(f"a tool cannot be called {tool.name!r}: the manifest has such a field")
    earlier: set[str] = set()
    for stage in plan.stages:
        if stage.name in earlier or not earlier.issuperset(stage.after):
            raise ValskaError(
                f"tool {tool.name}: stage {stage.name} comes twice, or before what it needs"
            )
        earlier.add(stage.name)
        for path in _named(stage):
            check_place(path)
    _check_directories(tool, plan)
    _check_owners(tool, plan)
    check_borrowed(plan.borrowed)


def check_perturbed(tool: Tool, spec: RunSpec, plan: RunPlan, read: Read) -> None:
    """Refuse perturbations without effect, as those of a tool that does not know of them.

    Raises
    ------
    UsageError
        If the run would be the same without them.
    """
    if not any(spec.perturbations.values()):
        return
    plain = replace(spec, perturbations={})
    same = tool.plan(plain, tool.discover(plain, read), read)
    if same.configs == plan.configs and same.stages == plan.stages:
        keys = ", ".join(spec.perturbations)
        raise UsageError(
            f"to perturb {keys} changes nothing in the configuration",
            f"Its value is 0, or tool {tool.name} cannot perturb.",
        )


def _named(stage: Stage) -> Iterator[str]:
    yield from (*stage.outputs, *stage.lends)
    if stage.resume:
        yield stage.resume.pattern


def _check_directories(tool: Tool, plan: RunPlan) -> None:
    """Check what is lent or borrowed: it is seen in place of a directory right in ``outputs/``."""
    for place in (*plan.borrowed, *(place for stage in plan.stages for place in stage.lends)):
        if "/" in check_place(place) or "*" in place:
            raise ValskaError(
                f"tool {tool.name}: {place} is lent or borrowed, and not directly in outputs/"
            )
    for stage in plan.stages:
        for place in stage.lends:
            if not any(place == own or is_within(own, place) for own in owned_places(stage)):
                raise ValskaError(
                    f"tool {tool.name}: {stage.name} lends {place} but writes nothing there"
                )


def _check_owners(tool: Tool, plan: RunPlan) -> None:
    """Check that no two stages write below one place: what each wrote is set aside by itself."""
    owners = list(_owned(plan))
    for number, (owner, place) in enumerate(owners):
        for other, theirs in owners[:number]:
            if owner != other and _overlap(place, theirs):
                narrower = max(place, theirs, key=len)
                raise ValskaError(f"tool {tool.name}: {other} and {owner} both write {narrower}")


def _owned(plan: RunPlan) -> Iterator[tuple[str, str]]:
    for place in plan.borrowed:
        yield "what it borrows", place
    for stage in plan.stages:
        for place in owned_places(stage):
            yield stage.name, place


def _overlap(place: str, other: str) -> bool:
    return place == other or is_within(place, other) or is_within(other, place)
