"""pyuvsim as a tool: an obsparam file goes in, one stage and its configuration come out."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.run_directory import check_name
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.templates import get_templates_dir
from valska.external_tools.core.tool import Input, Read, RunPlan, RunSpec, Stage

if TYPE_CHECKING:
    from valska.external_tools.core.comparison.verdict import (
        OutputComparison,
        RunFiles,
        Tolerances,
    )
    from valska.external_tools.core.report.summary import Reporter

_log = logging.getLogger(__name__)

SIMULATE = "simulate"
LEVELS = ("telescope", "sky", "variant")

_PROBE = "from mpi4py import MPI; print(MPI.COMM_WORLD.Get_size(), flush=True)"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_MIB = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True, slots=True)
class PyuvsimTool:
    """pyuvsim, the simulator of radio interferometers (a `Tool`)."""

    name: str = "pyuvsim"
    summary: str = "simulate the visibilities of a radio interferometer with pyuvsim"
    definition: str = "pyuvsim.def"
    templates_dir: Path = field(default_factory=lambda: get_templates_dir(__file__))
    stages: tuple[str, ...] = (SIMULATE,)
    directives: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {SIMULATE: {"time": "01:00:00", "cpus-per-task": "1", "mem": "4G"}}
    )

    def discover(self, spec: RunSpec, read: Read) -> tuple[Input, ...]:
        """Find the catalogue, the layout and every beam file.

        Raises
        ------
        UsageError
            If a file is missing or wrong, or a key looks like a typing error.
        """
        from valska.external_tools.pyuvsim.discovery import load_configuration
        from valska.external_tools.pyuvsim.files import stage
        from valska.external_tools.pyuvsim.keys import unknown_keys

        found = load_configuration(spec, read)
        for key in unknown_keys(found.obsparam, found.telescope):
            _log.warning("pyuvsim does not know the key %r; it is kept", key)
        return stage(found.files)

    def plan(self, spec: RunSpec, inputs: tuple[Input, ...], read: Read) -> RunPlan:
        """Render the configuration and the one stage.

        Raises
        ------
        UsageError
            If the configuration or a directive is not usable.
        """
        from valska.external_tools.pyuvsim.discovery import load_configuration
        from valska.external_tools.pyuvsim.filing import plan_filing
        from valska.external_tools.pyuvsim.render import render

        found = load_configuration(spec, read)
        filing = plan_filing(found.obsparam)
        for need in _beyond_image(found.obsparam["sources"], found.telescope, filing.format):
            _log.warning("%s, which pyuvsim's image does not have", need)
        targets = {file.name: file.target for file in inputs}
        outputs = (filing.name, *_catalogue_output(found.obsparam["sources"]))
        taxonomy = plan_taxonomy(spec, found.obsparam, found.telescope)
        section = {
            "obsparam": "config/obsparam.yaml",
            "telescope": str(found.telescope["telescope_name"]),
            "sky": taxonomy["sky"],
            "output": filing.name,
            "output_format": filing.format,
            "paths": [
                {"key": name, "base": "working directory", "path": f"inputs/{target}"}
                for name, target in targets.items()
            ],
        }
        stage = plan_stage(spec.directives.get(SIMULATE, {}), outputs, spec)
        return RunPlan((stage,), render(found, targets, filing), taxonomy, section)

    def plan_points(
        self, specs: Sequence[RunSpec], read: Read
    ) -> Iterator[tuple[tuple[Input, ...], RunPlan]]:
        """Plan many runs that differ in run id, overrides and perturbations only.

        Raises
        ------
        UsageError
            If a point is not usable; when its turn comes.
        """
        from valska.external_tools.pyuvsim.points import PointPlanner

        def whole(spec: RunSpec) -> tuple[tuple[Input, ...], RunPlan]:
            inputs = self.discover(spec, read)
            return inputs, self.plan(spec, inputs, read)

        if specs:
            yield from PointPlanner(specs[0], read, whole).plan(specs)

    def plot(self, outputs: Path, section: Mapping[str, Any], title: str) -> bytes:
        """Draw the visibilities of a few short baselines over time and frequency.

        Raises
        ------
        PrerequisiteError
            If there are none yet, or h5py or matplotlib is not installed.
        UsageError
            If they are not UVH5.
        """
        from valska.external_tools.pyuvsim.picture import draw

        return draw(outputs, section, title)

    def reporter(self) -> Reporter:
        """Return how visibilities are summed up."""
        from valska.external_tools.pyuvsim.report import REPORTER

        return REPORTER

    def compare(
        self, reference: RunFiles, new: RunFiles, tolerances: Tolerances
    ) -> Iterator[OutputComparison]:
        """Compare visibilities, flags, axes and metadata; the history does not count."""
        from valska.external_tools.pyuvsim.comparison import compare_outputs

        return compare_outputs(reference, new, tolerances)


TOOL = PyuvsimTool()


def plan_stage(directives: Mapping[str, str], outputs: tuple[str, ...], spec: RunSpec) -> Stage:
    """Return the stage that runs the simulation.

    Raises
    ------
    UsageError
        If a directive that counts something is not a positive whole number.
    """
    threads = str(_count(directives, "cpus-per-task", 1))
    memory = _memory(directives.get("mem"))
    return Stage(
        name=SIMULATE,
        argv=("run_pyuvsim", "--param", "../config/obsparam.yaml"),
        outputs=outputs,
        env=dict.fromkeys(_THREADS, threads) | memory,
        ranks=plan_ranks(directives),
        probe=("python3", "-c", _PROBE),
        launch=spec.launch,
    )


def plan_ranks(directives: Mapping[str, str]) -> int:
    """Return how many MPI ranks Slurm would start for these directives.

    Raises
    ------
    UsageError
        If a number is not a positive whole number, or two of them contradict each other.
    """
    per_node = directives.get("ntasks-per-node", directives.get("tasks-per-node"))
    by_node = 1
    if per_node is not None:
        key = "ntasks-per-node" if "ntasks-per-node" in directives else "tasks-per-node"
        by_node = _count(directives, "nodes", 1) * _count(directives, key, 1)
    if "ntasks" not in directives:
        return by_node if per_node is not None else _count(directives, "nodes", 1)
    ranks = _count(directives, "ntasks", 1)
    if ranks == 1 and by_node > 1:
        raise UsageError(
            f"ntasks=1 contradicts {by_node} tasks by nodes and ntasks-per-node",
            f"Ask for ntasks={by_node}, or leave ntasks out.",
        )
    return ranks


def plan_taxonomy(
    spec: RunSpec, obsparam: Mapping[str, Any], telescope: Mapping[str, Any]
) -> dict[str, str]:
    """Return the levels of the results tree: telescope, sky, variant.

    Raises
    ------
    UsageError
        If the spec fixes a level that there is not, or to something that is no name.
    """
    for level, value in spec.taxonomy.items():
        if level not in LEVELS:
            hint = did_you_mean(level, LEVELS) or f"Levels: {', '.join(LEVELS)}."
            raise UsageError(f"pyuvsim has no taxonomy level {level!r}", hint)
        check_name(value, f"{level} level")
    derived = {
        "telescope": _level(str(telescope["telescope_name"]), "telescope"),
        "sky": _sky(obsparam["sources"]),
        "variant": _variant(spec.source),
    }
    return {level: spec.taxonomy.get(level, value) for level, value in derived.items()}


def _sky(sources: Mapping[str, Any]) -> str:
    if sources["catalog"] == "mock":
        return f"mock_{_level(str(sources.get('mock_arrangement')), 'sky')}"
    return _level(Path(sources["catalog"]).stem, "sky")


def _variant(source: Path) -> str:
    return _level(re.sub(r"^(obs)?param[._-]*", "", source.stem, flags=re.IGNORECASE), "base")


def _level(text: str, default: str) -> str:
    plain = re.sub(r"[^a-z0-9._+=-]+", "_", text.lower())
    return plain.strip("._+=-")[:80] or default


def _catalogue_output(sources: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what pyuvsim writes for ``save``; say what about a mock sky cannot be repeated."""
    if sources["catalog"] != "mock":
        return ()
    arrangement = sources.get("mock_arrangement")
    if not isinstance(arrangement, str):
        raise UsageError(
            "sources.mock_arrangement is missing", "Name one, such as zenith, cross or hera_text."
        )
    if arrangement == "random":
        _log.warning("a random mock sky differs from run to run: pyuvsim takes no seed for it")
    return (f"mock_catalog_{arrangement}.npz",) if sources.get("save") else ()


def _beyond_image(
    sources: Mapping[str, Any], telescope: Mapping[str, Any], output_format: str
) -> Iterator[str]:
    if telescope.get("world") == "moon":
        yield "a telescope on the Moon needs the package lunarsky"
    if sources.get("mock_arrangement") == "diffuse" and sources["catalog"] == "mock":
        yield "a diffuse mock sky needs the package analytic_diffuse"
    if output_format == "ms":
        yield "a measurement set needs the package python-casacore"


def _count(directives: Mapping[str, str], key: str, default: int) -> int:
    text = directives.get(key)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise UsageError(
            f"the Slurm directive {key!r} is not a positive whole number: {text!r}",
            "The number of MPI ranks and threads must be known before the job runs.",
        )
    return int(text)


def _memory(text: str | None) -> dict[str, str]:
    """Return the variable by which pyuvsim learns its memory; without it, it takes the node's."""
    match = re.fullmatch(r"([0-9]{1,12})([KMGT]?)B?", (text or "0").upper())
    mib = int(int(match[1]) * _MIB[match[2]]) if match else 0
    return {"SLURM_MEM_PER_NODE": str(mib)} if mib else {}
