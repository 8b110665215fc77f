"""From specs to plans: everything that the runs of a sweep have in common is worked out once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from valska.external_tools.bayeseor.document import text_of
from valska.external_tools.bayeseor.files import find_files
from valska.external_tools.bayeseor.kbins import count_bins
from valska.external_tools.bayeseor.keys import ALONE, FILES, HYPOTHESES, PRIORS
from valska.external_tools.bayeseor.matrices import (
    MATRICES,
    PRECOMPUTE,
    config_name,
    file_lines,
    find_matrices,
    matrix_names,
    sharing_key,
)
from valska.external_tools.bayeseor.settings import (
    Values,
    changed,
    check_together,
    is_beam_file,
    load,
    priors_of,
)
from valska.external_tools.bayeseor.stages import DRIVER, plan_stages
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.run_directory import check_name
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.tool import Input, Read, RunPlan, RunSpec, Stage

LEVELS = ("beam", "sky", "variant", "label")

_NO_LINES = frozenset({"priors", *PRIORS.values()})
"""Keys that are written anew for each hypothesis."""

Files = tuple[tuple[Input, ...], dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Frame:
    """All of a plan that follows from other keys than those of `ALONE`.

    Parameters
    ----------
    values
        What it was made from.
    inputs, stages, taxonomy, section
        See `RunPlan`.
    paths
        Key to the value that it has in a bundle.
    lines
        Of the configuration, by key; those that both hypotheses have.
    tails
        Name of a configuration to the lines that only it has.
    matrix_names
        Keys that may change the matrices, sorted.
    files
        Which files they name.
    """

    values: Values
    inputs: tuple[Input, ...]
    stages: tuple[Stage, ...]
    taxonomy: Mapping[str, str]
    section: Mapping[str, Any]
    paths: Mapping[str, str]
    lines: Mapping[str, str]
    tails: Mapping[str, str]
    matrix_names: tuple[str, ...]
    files: str


class Planner:
    """Plans runs that differ in run id, overrides and perturbations only.

    Parameters
    ----------
    spec
        Any of them.
    read
        Reads files.
    warn
        Whether to say which values of the configuration are not used.
    """

    def __init__(self, spec: RunSpec, read: Read, warn: bool = True) -> None:
        self._source = spec.source
        self._base = load(spec.source, read, warn)
        self._options = spec.options
        wanted = spec.options.get("hypothesis") or "both"
        self._hypotheses = HYPOTHESES if wanted == "both" else (wanted,)
        self._spec = spec
        self._lines = {name: _line(name, value) for name, value in self._base.items()}
        self._files: dict[tuple[Any, ...], Files] = {}
        self._stages: dict[bool, tuple[Stage, ...]] = {}
        self._borrowed: dict[str, Path] = {}
        self._last: tuple[object, _Frame] | None = None

    def point(self, spec: RunSpec) -> tuple[tuple[Input, ...], RunPlan]:
        """Return the inputs and the plan of one run.

        Raises
        ------
        UsageError
            If its configuration is not usable.
        PrerequisiteError
            If matrices of another run are not complete.
        """
        values = changed(self._base, spec.overrides, spec.perturbations)
        names = [*spec.overrides, *spec.perturbations]
        frame = self._frame_of(names, values)
        lines = dict(frame.lines)
        for name in names:
            if name in ALONE and name in lines:
                lines[name] = _line(name, values[name])
        matrices = "".join([lines[name] for name in frame.matrix_names])
        borrowed = self._borrow(matrices, values, frame)
        common = "".join(lines.values())
        return frame.inputs, RunPlan(
            frame.stages,
            {name: f"{common}{tail}".encode() for name, tail in frame.tails.items()},
            frame.taxonomy,
            frame.section,
            {} if borrowed else {PRECOMPUTE: sharing_key(matrices, frame.files)},
            borrowed,
        )

    def _frame_of(self, names: Iterable[str], values: Values) -> _Frame:
        """Return the frame of the point before, if all but `ALONE` is the very same."""
        found = [(name, values.get(name)) for name in names]
        key = [(name, (name in ALONE and value is not None) or id(value)) for name, value in found]
        if self._last is None or self._last[0] != key:
            self._last = key, self._frame(values)
        return self._last[1]

    def _frame(self, values: Values) -> _Frame:
        check_together(values, self._hypotheses)
        inputs, paths = self._find(values)
        priors = priors_of(values, self._hypotheses)
        bins = self._check_priors(values, inputs, priors)
        lines = self._render({**values, **paths})
        return _Frame(
            values,
            inputs,
            self._plan_stages(values, not self._options.get("matrices")),
            self._taxonomy(values, inputs),
            self._section(values, paths, bins),
            paths,
            lines,
            {config_name(name): f"{_tail(name)}{_line('priors', priors[name])}" for name in priors},
            matrix_names(lines),
            file_lines(inputs[:-1]),
        )

    def _find(self, values: Values) -> Files:
        data = self._options.get("data")
        key = tuple(values.get(name) for name in FILES)
        if key not in self._files:
            found, paths = find_files(values, self._source, data)
            self._files[key] = (*found, DRIVER), paths
        return self._files[key]

    def _check_priors(
        self, values: Values, inputs: tuple[Input, ...], priors: Mapping[str, Any]
    ) -> int | None:
        data = next(item.source for item in inputs if item.name == "data_path")
        bins = count_bins(values, data)
        for name, ranges in priors.items():
            if bins is not None and len(ranges) != bins:
                raise UsageError(
                    f"there are {bins} k bins and {len(ranges)} priors of {name}",
                    "Give one [min, max] for each k bin; their number follows from nu, nv, neta, "
                    "the field of view and the channels of the data.",
                )
        return bins

    def _render(self, values: Values) -> dict[str, str]:
        """Return each line of the configuration that both hypotheses have, by key."""
        base, lines = self._base, self._lines
        return {
            name: lines[name] if value is base.get(name) else _line(name, value)
            for name, value in values.items()
            if name not in _NO_LINES
        }

    def _plan_stages(self, values: Values, precompute: bool) -> tuple[Stage, ...]:
        sparse = bool(values.get("use_sparse_matrices", True))
        if sparse not in self._stages:
            self._stages[sparse] = plan_stages(
                self._spec, self._hypotheses, precompute=precompute, sparse=sparse
            )
        return self._stages[sparse]

    def _borrow(self, lines: str, values: Values, frame: _Frame) -> dict[str, Path]:
        reference = self._options.get("matrices")
        if not reference:
            return {}
        key = lines + frame.files
        if key not in self._borrowed:
            whole = {**values, **frame.paths}
            self._borrowed[key] = find_matrices(str(reference), whole, frame.inputs[:-1])
        return {MATRICES: self._borrowed[key]}

    def _taxonomy(self, values: Values, inputs: tuple[Input, ...]) -> dict[str, str]:
        data = next(item.source for item in inputs if item.name == "data_path")
        derived = {
            "beam": _beam(values),
            "sky": _level(data.stem, "sky"),
            "variant": _level(re.sub(r"^config[._-]*", "", self._source.stem), "base"),
            "label": "default",
        }
        return derived | _fixed(self._spec.taxonomy)

    def _section(
        self, values: Values, paths: Mapping[str, str], bins: int | None
    ) -> dict[str, Any]:
        return {
            "hypotheses": {name: f"outputs/{name}" for name in self._hypotheses},
            "k_bins": bins,
            "log_priors": values.get("log_priors", True),
            "uprior_bins": values.get("uprior_bins", ""),
            "mode": "cpu" if self._options.get("cpu") else "gpu",
            "paths": [
                {
                    "key": key,
                    "base": "working directory" if key == "beam_type" else "configuration",
                    "path": path.removeprefix("../"),
                }
                for key, path in paths.items()
            ],
        }


def _tail(hypothesis: str) -> str:
    """Return the lines of a hypothesis's configuration that valska sets."""
    return _line("array_dir_prefix", f"{MATRICES}/") + _line("output_dir", hypothesis)


def _line(name: str, value: Any) -> str:
    return f"{name}: {text_of(value)}\n"


def _beam(values: Values) -> str:
    kind = str(values["beam_type"])
    if is_beam_file(kind):
        return _level(Path(kind).stem, "beam")
    return _level(f"achromatic_{kind}" if values.get("achromatic_beam") else kind, "beam")


@lru_cache
def _level(text: str, default: str) -> str:
    plain = re.sub(r"[^a-z0-9._+=-]+", "_", text.lower())
    return plain.strip("._+=-")[:80] or default


def _fixed(taxonomy: Mapping[str, str]) -> dict[str, str]:
    for level, value in taxonomy.items():
        if level not in LEVELS:
            hint = did_you_mean(level, LEVELS) or f"Levels: {', '.join(LEVELS)}."
            raise UsageError(f"bayeseor has no taxonomy level {level!r}", hint)
        check_name(value, f"{level} level")
    return dict(taxonomy)
