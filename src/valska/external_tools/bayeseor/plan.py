"""BayesEoR as a tool: a configuration goes in, three stages and a configuration each come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.bayeseor.stages import ON_CPU, ON_GPU, PROGRAM, STAGES
from valska.external_tools.core.templates import get_templates_dir
from valska.external_tools.core.tool import Input, Read, RunPlan, RunSpec, ToolOption

if TYPE_CHECKING:
    from valska.external_tools.bayeseor.planner import Planner
    from valska.external_tools.core.comparison.verdict import (
        OutputComparison,
        RunFiles,
        Tolerances,
    )
    from valska.external_tools.core.report.summary import Reporter

_OPTIONS = (
    ToolOption(
        "hypothesis",
        "Which models are sampled.",
        choices=("both", "signal_fit", "no_signal"),
        default="both",
    ),
    ToolOption("cpu", "Sample on the CPU, for small cases; otherwise on a GPU.", flag=True),
    ToolOption(
        "matrices",
        "Use the matrices of another run, read-only: a bundle, or their directory.",
        metavar="BUNDLE|DIR",
        file=True,
    ),
    ToolOption("data", "The visibilities, instead of data_path.", metavar="FILE", file=True),
    ToolOption(
        "program",
        f"BayesEoR's driver as the job finds it.  [{PROGRAM}]",
        metavar="PATH",
    ),
)


@dataclass(frozen=True, slots=True)
class BayesEoRTool:
    """BayesEoR, the power spectrum estimator (a `Tool`)."""

    name: str = "bayeseor"
    summary: str = "infer the 21-cm power spectrum from visibilities with BayesEoR"
    definition: str = "bayeseor.def"
    templates_dir: Path = field(default_factory=lambda: get_templates_dir(__file__))
    stages: tuple[str, ...] = STAGES
    directives: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: ON_GPU)
    options: tuple[ToolOption, ...] = _OPTIONS

    def directives_with(self, options: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
        """Return the default Slurm directives for the options of a run."""
        return ON_CPU if options.get("cpu") else ON_GPU

    def discover(self, spec: RunSpec, read: Read) -> tuple[Input, ...]:
        """Find the visibilities, the noise, the instrument model and the beam file.

        Raises
        ------
        UsageError
            If a file is missing, or the configuration is wrong.
        """
        return self._planner(spec, read).point(spec)[0]

    def plan(self, spec: RunSpec, inputs: tuple[Input, ...], read: Read) -> RunPlan:
        """Render the configurations and the stages.

        Raises
        ------
        UsageError
            If the configuration, an option or a directive is not usable.
        PrerequisiteError
            If matrices of another run are not complete.
        """
        return self._planner(spec, read, warn=False).point(spec)[1]

    def plan_points(
        self, specs: Sequence[RunSpec], read: Read
    ) -> Iterator[tuple[tuple[Input, ...], RunPlan]]:
        """Plan many runs that differ in run id, overrides and perturbations only.

        Raises
        ------
        UsageError
            If a point is not usable; when its turn comes.
        PrerequisiteError
            If matrices of another run are not complete.
        """
        if specs:
            planner = self._planner(specs[0], read)
            yield from map(planner.point, specs)

    def reporter(self) -> Reporter:
        """Return how evidences and power spectra are read from what runs wrote."""
        from valska.external_tools.bayeseor.report import REPORTER

        return REPORTER

    def compare(
        self, reference: RunFiles, new: RunFiles, tolerances: Tolerances
    ) -> Iterator[OutputComparison]:
        """Compare matrices exactly, evidences and posteriors as statistics."""
        from valska.external_tools.bayeseor.comparison import compare_outputs

        return compare_outputs(reference, new, tolerances)

    def _planner(self, spec: RunSpec, read: Read, warn: bool = True) -> Planner:
        from valska.external_tools.bayeseor.planner import Planner

        return Planner(spec, read, warn)


TOOL = BayesEoRTool()
