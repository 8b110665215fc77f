"""What runs of BayesEoR found: evidences, the null test, and the power spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.bayeseor.chains import ChainsError, find_chains, were_resumed
from valska.external_tools.bayeseor.evidence import (
    Estimate,
    Estimator,
    null_test,
    read_evidence,
)
from valska.external_tools.bayeseor.keys import HYPOTHESES, NO_SIGNAL, SIGNAL_FIT
from valska.external_tools.bayeseor.spectrum import Bin, read_spectrum
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.report.summary import (
    Cell,
    Chart,
    Column,
    Profile,
    Reporter,
    RunOutputs,
    RunSummary,
    Summarize,
    Table,
)
from valska.external_tools.core.tool import ToolOption

_DONE = "completed"
_SIGMA = "3"
_POWER = "log10 mK²"
"""The unit of what is sampled: the logarithm of the dimensionless power spectrum Δ² in mK²."""

_NOT_NORMALISED = (
    "uprior_bins: BayesEoR does not normalise uniform priors, and the evidences of two hypotheses "
    "cannot be compared: no Δ ln Z"
)

_RESUMED = (
    "went on from chains of an earlier attempt, after which MultiNest's importance-sampled "
    "evidence is wrong: that of plain nested sampling is taken; for all alike: --evidence ns"
)

_COLUMNS = (
    Column(
        "ln_z_signal_fit",
        "ln Z signal_fit",
        "Natural logarithm of the evidence of the model with a signal.",
        error="ln_z_signal_fit_error",
    ),
    Column("ln_z_signal_fit_error", "error", "Its standard error (MultiNest).", shown=False),
    Column(
        "ln_z_no_signal",
        "ln Z no_signal",
        "Natural logarithm of the evidence of the model without a signal.",
        error="ln_z_no_signal_error",
    ),
    Column("ln_z_no_signal_error", "error", "Its standard error (MultiNest).", shown=False),
    Column(
        "delta_ln_z",
        "Δ ln Z",
        "ln Z of signal_fit less ln Z of no_signal.",
        error="delta_ln_z_error",
    ),
    Column(
        "delta_ln_z_error", "error", "Its standard error: both errors in quadrature.", shown=False
    ),
    Column(
        "log10_bayes_factor",
        "log10 B",
        "Logarithm to base 10 of the Bayes factor of signal_fit over no_signal: Δ ln Z / ln 10.",
        error="log10_bayes_factor_error",
    ),
    Column("log10_bayes_factor_error", "error", "Its standard error.", shown=False),
    Column(
        "null_test",
        "null test",
        "pass, fail or inconclusive: whether no_signal is preferred by sigma standard errors.",
    ),
    Column("evidence_signal_fit", "evidence", "Which one was read: ins or ns.", shown=False),
    Column("evidence_no_signal", "evidence", "Which one was read: ins or ns.", shown=False),
    Column(
        "chains_signal_fit", "chains", "Directory of chains of signal_fit that was read.",
        shown=False,
    ),
    Column(
        "chains_no_signal", "chains", "Directory of chains of no_signal that was read.",
        shown=False,
    ),
)  # fmt: skip

_SPECTRUM = Table(
    "spectrum",
    "Posterior of the dimensionless power spectrum Δ²(k), per k bin",
    ("hypothesis", "bin"),
    (
        Column("hypothesis", "hypothesis", "Which model."),
        Column("bin", "bin", "Number of the k bin, from 1."),
        Column("k", "k", "Mean length of the bin's modes.", "1/Mpc"),
        Column("modes", "modes", "How many modes the bin has.", shown=False),
        Column("samples", "samples", "Samples of the posterior.", shown=False),
        Column("mean", "mean", "Mean of the posterior.", _POWER, error="std"),
        Column("std", "std", "Standard deviation of the posterior.", _POWER, shown=False),
        Column("p16", "16 %", "16th percentile of the posterior.", _POWER),
        Column("p50", "median", "Median of the posterior.", _POWER),
        Column("p84", "84 %", "84th percentile of the posterior.", _POWER),
        Column("p95", "95 %", "95th percentile, an upper limit.", _POWER),
    ),
)


@dataclass(frozen=True, slots=True)
class _Found:
    """What one hypothesis found; what is None is missing or damaged."""

    evidence: Estimate | None = None
    estimator: Estimator | None = None
    bins: tuple[Bin, ...] = ()
    chains: str | None = None
    notes: tuple[str, ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class _Summing:
    """Sums up runs with one set of options."""

    estimator: Estimator = Estimator.INS
    sigma: float = float(_SIGMA)

    def __call__(self, run: RunOutputs) -> RunSummary:
        planned = [name for name in HYPOTHESES if name in run.section.get("hypotheses", HYPOTHESES)]
        found = {name: self._hypothesis(run, name) for name in planned}
        values: dict[str, Cell] = {}
        for name, one in found.items():
            values |= _with_error(f"ln_z_{name}", one.evidence)
            values[f"evidence_{name}"] = one.estimator.value if one.estimator else None
            values[f"chains_{name}"] = one.chains
        lines = [line for name, one in found.items() for line in _lines(name, one.bins)]
        notes = [note for one in found.values() for note in one.notes]
        missing = [name for name in HYPOTHESES if name not in planned]
        notes += [f"{name} is not part of this run: no Δ ln Z" for name in missing]
        comparable = not run.section.get("uprior_bins")
        if not comparable:
            notes.append(_NOT_NORMALISED)
        return RunSummary(
            values=values | (self._together(found) if comparable else {}),
            tables={_SPECTRUM.key: tuple(lines)},
            notes=tuple(notes),
            complete=all(one.complete for one in found.values()),
        )

    def _hypothesis(self, run: RunOutputs, name: str) -> _Found:
        state = run.states.get(name, "not planned")
        if state != _DONE:
            return _Found(notes=(f"{name}: {state}",))
        try:
            chains, notes = find_chains(run.outputs / name)
            estimator = self.estimator
            if estimator is Estimator.INS and were_resumed(run.outputs / name):
                estimator, notes = Estimator.NS, (*notes, _RESUMED)
        except ChainsError as error:
            return _Found(notes=(f"{name}: {error.message}",))
        told = [f"{name}: {note}" for note in notes]
        return _read(name, chains, estimator, told, bool(run.section.get("log_priors", True)))

    def _together(self, found: Mapping[str, _Found]) -> dict[str, Cell]:
        signal, none = (found.get(name, _Found()).evidence for name in (SIGNAL_FIT, NO_SIGNAL))
        if signal is None or none is None:
            return {}
        delta = signal - none
        return {
            **_with_error("delta_ln_z", delta),
            **_with_error("log10_bayes_factor", delta.in_decades()),
            "null_test": null_test(delta, self.sigma).value,
        }


def _read(name: str, chains: Path, estimator: Estimator, told: list[str], log: bool) -> _Found:
    evidence: Estimate | None = None
    bins: tuple[Bin, ...] = ()
    try:
        evidence = read_evidence(chains, estimator)
    except ChainsError as error:
        told.append(f"{name}: {error.message}")
    try:
        bins = read_spectrum(chains, log)
    except ChainsError as error:
        told.append(f"{name}: {error.message}")
    used = estimator if evidence else None
    whole = evidence is not None and bool(bins)
    return _Found(evidence, used, bins, chains.name, tuple(told), whole)


def start(options: Mapping[str, Any]) -> Summarize:
    """Return what sums up runs with these options; see `Reporter.start`.

    Raises
    ------
    UsageError
        If an option is not usable.
    """
    return _Summing(_estimator(options.get("evidence")), _sigma(options.get("sigma")))


def _estimator(text: str | None) -> Estimator:
    try:
        return Estimator(text or Estimator.INS)
    except ValueError as error:
        raise UsageError(
            f"--evidence {text!r} is none", f"One of {', '.join(Estimator)}."
        ) from error


def _sigma(text: str | None) -> float:
    try:
        value = float(_SIGMA if text is None else text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"--sigma {text!r} is no number of standard errors", "Write 0, 1, 3, ….")
    return value


def _with_error(key: str, estimate: Estimate | None) -> dict[str, Cell]:
    if estimate is None:
        return {}
    return {key: estimate.value, f"{key}_error": estimate.error}


def _lines(hypothesis: str, bins: tuple[Bin, ...]) -> list[dict[str, Cell]]:
    return [
        {
            "hypothesis": hypothesis,
            "bin": number,
            "k": one.k,
            "modes": one.modes,
            "samples": one.samples,
            "mean": one.mean,
            "std": one.std,
            **dict(zip(("p16", "p50", "p84", "p95"), one.percentiles, strict=True)),
        }
        for number, one in enumerate(bins, 1)
    ]


REPORTER = Reporter(
    columns=_COLUMNS,
    start=start,
    options=(
        ToolOption(
            "evidence",
            "Importance-sampled evidences, or plain nested sampling's.",
            choices=tuple(one.value for one in Estimator),
            default=Estimator.INS.value,
        ),
        ToolOption(
            "sigma",
            "Standard errors by which Δ ln Z has to differ from 0 for the null test to be decided.",
            default=_SIGMA,
            metavar="N",
        ),
    ),
    tables=(_SPECTRUM,),
    charts=(
        Chart(
            "delta_ln_z",
            "Evidence for a signal: above 0 signal_fit is preferred, below 0 no_signal",
            "Δ ln Z",
            {"delta_ln_z": "Δ ln Z"},
            zero=True,
        ),
        Chart(
            "ln_z",
            "Evidence of each hypothesis",
            "ln Z",
            {"ln_z_signal_fit": SIGNAL_FIT, "ln_z_no_signal": NO_SIGNAL},
        ),
    ),
    profiles=(
        Profile(
            "spectrum",
            "Power spectrum: median and 16th to 84th percentile",
            "log10 Δ²(k) (Δ² in mK²)",
            "spectrum",
            panel="hypothesis",
            x="k",
            y="p50",
            low="p16",
            high="p84",
            log=True,
        ),
    ),
)
"""How runs of BayesEoR are summed up."""
