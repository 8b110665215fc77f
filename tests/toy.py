"""A small tool whose plan a test writes down, and bundles made with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valska.external_tools.core.bundling import BundleRequest, create, draft
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.tool import Input, RunPlan, RunSpec, Stage

COPY = ("cp", "../inputs/data.txt", "out.txt")


@dataclass(frozen=True)
class Toy:
    """Reads the inputs and runs the stages that it is told."""

    planned: tuple[Stage, ...]
    inputs: Mapping[str, Path]
    configs: Mapping[str, bytes] = field(default_factory=lambda: {"run.yaml": b"answer: 42\n"})
    taxonomy: Mapping[str, str] = field(default_factory=lambda: {"model": "plain"})
    section: Mapping[str, Any] = field(default_factory=dict)
    borrowed: Mapping[str, Path] = field(default_factory=dict)
    name: str = "toy"
    summary: str = "A tool for tests."
    definition: str = "toy.def"
    templates_dir: Path = Path()
    directives: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def stages(self):
        return tuple(stage.name for stage in self.planned)

    def discover(self, spec, read):
        return tuple(Input(f"input.{target}", path, target) for target, path in self.inputs.items())

    def plan(self, spec, inputs, read):
        return RunPlan(
            self.planned, self.configs, self.taxonomy, self.section, borrowed=self.borrowed
        )


def stage(name="simulate", argv=COPY, outputs=("out.txt",), **more):
    return Stage(name, tuple(argv), outputs=tuple(outputs), **more)


def data_file(folder, text="hello\n"):
    path = folder / "data.txt"
    path.write_text(text)
    return path


def request(folder, stages=None, *, inputs=None, run_id="r1", spec=None, tool=None, **more):
    """Return a request for a run of one `stage` on one input, on the host, or as told."""
    inputs = {"data.txt": data_file(folder)} if inputs is None else inputs
    toy = Toy(tuple(stages or [stage()]), inputs, **(tool or {}))
    return BundleRequest(
        tool=toy,
        spec=RunSpec("toy", run_id, folder / "data.txt", **(spec or {})),
        **{"runner": RunnerKind.HOST, "output": folder / "bundle", **more},
    )


def bundle(folder, stages=None, **more):
    return create(draft(request(folder, stages, **more)))
