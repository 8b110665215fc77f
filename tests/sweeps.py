"""Sweeps of the toy tool, and lists of slices as they are sent."""

from dataclasses import dataclass, field, replace

from toy import Toy, request, stage

from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.sweep.planning.points import Point
from valska.external_tools.core.sweep.writing.making import SweepRequest, create_sweep, draft_sweep
from valska.external_tools.core.utils import sha256_file


@dataclass(frozen=True)
class SweepToy(Toy):
    """A toy whose points read their own name, and share the work of some stages."""

    shares: dict = field(default_factory=dict)

    def plan(self, spec, inputs, read):
        config = f"unit: {spec.overrides.get('name')}\n"
        plan = super().plan(spec, inputs, read)
        return replace(plan, configs={"run.yaml": config.encode()}, shares=self.shares)


def shell(text, name="simulate", **more):
    return stage(name, **{"argv": ("bash", "-c", text), **more})


def make_sweep(folder, stages=None, *, points=("a", "b"), shares=None, name="sweep", **more):
    """Make a sweep; `shares` maps stages to keys, `more` is for `request`."""
    more = {"output": folder / name, **more}
    base = request(folder, stages, run_id="s1", **more)
    toy = base.tool
    tool = SweepToy(toy.planned, toy.inputs, borrowed=toy.borrowed, shares=shares or {})
    wanted = SweepRequest(
        base=replace(base, tool=tool),
        points=tuple(Point(label, {"name": label}) for label in points),
    )
    return create_sweep(draft_sweep(wanted)).sweep


def bundle_id(unit):
    return read_manifest(unit).bundle_id


def make_list(sweep, places, name="ab12cd34-0"):
    """Write the list of a slice; return the arguments that a job array gets."""
    path = sweep.arrays / f"{name}.sums"
    lines = [f"{sha256_file(sweep.unit(place).sums)}  {place}/SHA256SUMS\n" for place in places]
    path.write_text("".join(lines))
    return sha256_file(path), f"arrays/{path.name}"
