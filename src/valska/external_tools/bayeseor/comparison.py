"""Two runs compared: matrices exactly, evidences and posteriors as statistics.

MultiNest takes its seed from the clock, so what it writes never has the same bytes twice. How far
honest repeats scatter was measured on nine runs of one small case: the importance-sampled ln Z by
three of its own errors, which is one of plain nested sampling's; and the means of the posterior as
if they were taken of the live points, not of all samples. The errors used here follow from that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from valska.external_tools.bayeseor.chains import (
    SAMPLES,
    STATS,
    ChainsError,
    find_chains,
    read_rows,
    were_resumed,
)
from valska.external_tools.bayeseor.driver import FINISHED
from valska.external_tools.bayeseor.evidence import Estimate, Estimator, read_evidence
from valska.external_tools.bayeseor.keys import HYPOTHESES
from valska.external_tools.bayeseor.matrices import MATRICES
from valska.external_tools.bayeseor.spectrum import Bin, read_spectrum
from valska.external_tools.core.comparison.formats import compare_file, differ_in_bytes
from valska.external_tools.core.comparison.verdict import (
    OutputComparison,
    OutputFile,
    Part,
    RunFiles,
    Tolerances,
    Verdict,
    judged,
)
from valska.external_tools.core.utils import sha256_file

NEGLIGIBLE = 0.01
"""A difference of ln Z, 1 % of a Bayes factor, that is none, however small the errors are."""

_LIVE = "data-phys_live.points"
_LIVE_PER_BIN = 25
"""How many live points BayesEoR takes for each k bin; not configurable."""
_NAMES = {Estimator.NS: "nested sampling", Estimator.INS: "importance-sampled"}
_SAMPLER = "data-"
"""What MultiNest's own files begin with."""


@dataclass(frozen=True, slots=True)
class _Sampled:
    """What one run found for a hypothesis."""

    folder: str
    evidences: Mapping[Estimator, Estimate]
    bins: tuple[Bin, ...]
    live: int
    resumed: bool


def compare_outputs(
    reference: RunFiles, new: RunFiles, tolerances: Tolerances
) -> Iterator[OutputComparison]:
    """Compare matrices, evidences and posteriors of two runs; see `Compares`."""
    for path, mine in reference.files.items():
        theirs = new.files.get(path)
        if path.startswith(f"{MATRICES}/") and theirs is not None:
            yield compare_file(mine, theirs, tolerances.exact())
    for name in HYPOTHESES:
        yield from _hypothesis(name, reference, new, tolerances)


def _hypothesis(
    name: str, reference: RunFiles, new: RunFiles, tolerances: Tolerances
) -> Iterator[OutputComparison]:
    folders = [_folder(name, files) for files in (reference, new)]
    if None in folders:
        return
    pairs = _pairs(f"{folders[0]}", f"{folders[1]}", reference, new)
    stats = next((pair for pair in pairs if pair[0].path.endswith(f"/{STATS}")), None)
    for mine, theirs in pairs:
        if not _is_sampler(mine):
            other = (theirs.path,) if theirs.path != mine.path else ()
            yield replace(compare_file(mine, theirs, tolerances), covers=other)
    yield from _notes_of_ends(name, reference, new)
    if stats is not None:
        covers = {*_judged_by(stats, folders[0], name, reference)}
        covers |= {*_judged_by(stats, folders[1], name, new)}
        yield _statistics(name, stats, covers, (reference, new), tolerances)


def _folder(name: str, files: RunFiles) -> str | None:
    """Return the directory of chains that counts, below ``outputs/``; None without one."""
    try:
        chains, _ = find_chains(files.outputs / name)
    except ChainsError:
        return None
    return f"{name}/{chains.name}"


def _pairs(
    mine: str, theirs: str, reference: RunFiles, new: RunFiles
) -> list[tuple[OutputFile, OutputFile]]:
    """Return the files of two directories of chains by name: one may be ``…-v1``, one ``…-v2``."""
    names = [p.removeprefix(theirs) for p in new.files if p.startswith(f"{theirs}/")]
    found = [(_file(mine + name, reference), new.files[theirs + name]) for name in names]
    return [(one, other) for one, other in found if one is not None]


def _file(path: str, files: RunFiles) -> OutputFile | None:
    """Return a file of a run, also one that agrees with another of its name."""
    place = files.outputs / path
    if path in files.files or not place.is_file():
        return files.files.get(path)
    return OutputFile(path, place.stat().st_size, sha256_file(place), place)


def _judged_by(
    stats: tuple[OutputFile, OutputFile], folder: str | None, name: str, files: RunFiles
) -> Iterator[str]:
    """Yield what says nothing beside the statistics: samplers' files, and chains given up."""
    for path, file in files.files.items():
        chains = path.startswith(f"{name}/MN-") and path != stats[0].path
        if chains and (_is_sampler(file) or not path.startswith(f"{folder}/")):
            yield path


def _is_sampler(file: OutputFile) -> bool:
    return Path(file.path).name.startswith(_SAMPLER)


def _notes_of_ends(name: str, reference: RunFiles, new: RunFiles) -> Iterator[OutputComparison]:
    """Compare what the job noted when it had ended: the number of an attempt does not count."""
    path = f"{name}/{FINISHED}"
    mine, theirs = reference.files.get(path), new.files.get(path)
    if mine is not None and theirs is not None:
        detail = "it names the directory of the chains, and whether they were resumed"
        part = Part(name="note", verdict=Verdict.EQUIVALENT, detail=detail, counted=False)
        yield judged(mine, theirs, "note", [part])


def _statistics(
    name: str,
    stats: tuple[OutputFile, OutputFile],
    covers: set[str],
    runs: tuple[RunFiles, RunFiles],
    tolerances: Tolerances,
) -> OutputComparison:
    try:
        mine, theirs = (_read(name, files) for files in runs)
    except ChainsError as error:
        return differ_in_bytes(*stats, f"{error.message}: only bytes were compared")
    parts = [
        *(_evidence(kind, mine, theirs, tolerances) for kind in Estimator),
        *_posteriors(mine, theirs, tolerances),
    ]
    notes = (
        "MultiNest's seed is the clock: no two runs agree in their bytes, and these are statistics",
    )
    return judged(
        *stats,
        "statistics",
        parts,
        notes=notes,
        covers=tuple(sorted(covers)),
    )


def _read(name: str, files: RunFiles) -> _Sampled:
    chains, _ = find_chains(files.outputs / name)
    bins = read_spectrum(chains, bool(files.section.get("log_priors", True)))
    try:
        live = len(read_rows(chains / _LIVE))
    except ChainsError:
        live = _LIVE_PER_BIN * len(bins)
    return _Sampled(
        folder=chains.name,
        evidences={kind: read_evidence(chains, kind) for kind in Estimator},
        bins=bins,
        live=live,
        resumed=were_resumed(files.outputs / name),
    )


def _evidence(kind: Estimator, reference: _Sampled, new: _Sampled, tolerances: Tolerances) -> Part:
    """Compare ln Z; no estimate's error is taken to be less than nested sampling's.

    The estimate that reports have decides: the importance-sampled one, unless a run was resumed.
    """
    mine, theirs = (_with_error(kind, one) for one in (reference, new))
    delta = theirs - mine
    size = abs(delta.value)
    sigma = size / delta.error if delta.error else (0.0 if size == 0 else math.inf)
    agrees = size <= NEGLIGIBLE or sigma <= tolerances.sigma
    spoilt = reference.resumed or new.resumed
    decides = Estimator.NS if spoilt else Estimator.INS
    said = f"{mine.value:.4f} ± {mine.error:.2g} and {theirs.value:.4f} ± {theirs.error:.2g}"
    why = f"{sigma:.1f} standard errors, allowed {tolerances.sigma:g}"
    if size <= NEGLIGIBLE:
        why = f"less than {NEGLIGIBLE:g}, which is no difference"
    elif kind is Estimator.INS:
        why += " (nested sampling's errors: its own are too small)"
    if spoilt and kind is not decides:
        why += "; a run went on from an earlier attempt, which spoils this estimate"
    return Part(
        name=f"ln Z ({_NAMES[kind]})",
        verdict=_verdict(size == 0, agrees),
        detail=f"{said} differ by {size:.2g}: {why}",
        counted=kind is decides,
        differing=int(size > 0),
        total=1,
        sigma=_finite(sigma),
    )


def _with_error(kind: Estimator, one: _Sampled) -> Estimate:
    error = max(estimate.error for estimate in one.evidences.values())
    return Estimate(one.evidences[kind].value, error)


def _posteriors(reference: _Sampled, new: _Sampled, tolerances: Tolerances) -> Iterator[Part]:
    """Compare the mean of each k bin, in units of how well so many live points tell it."""
    if len(reference.bins) != len(new.bins):
        detail = f"{len(reference.bins)} and {len(new.bins)} k bins"
        yield Part(name=f"posterior ({SAMPLES})", verdict=Verdict.DIFFERENT, detail=detail)
        return
    for number, (mine, theirs) in enumerate(zip(reference.bins, new.bins, strict=True), 1):
        yield _posterior(
            number, _mean(mine, reference.live), _mean(theirs, new.live), (mine, theirs), tolerances
        )


def _mean(one: Bin, live: int) -> Estimate:
    """Return the mean with its error: samples of one live point are not independent."""
    return Estimate(one.mean, one.std / math.sqrt(max(min(one.samples, live), 1)))


def _posterior(
    number: int, a: Estimate, b: Estimate, bins: tuple[Bin, Bin], tolerances: Tolerances
) -> Part:
    delta = b - a
    size = abs(delta.value)
    sigma = size / delta.error if delta.error else (0.0 if size == 0 else math.inf)
    spread = math.hypot(bins[0].std, bins[1].std) / math.sqrt(2)
    share = f", {size / spread:.2f} of their spread" if spread else ""
    return Part(
        name=f"posterior mean of k bin {number} (k = {bins[0].k:.4g} 1/Mpc)",
        verdict=_verdict(size == 0, sigma <= tolerances.sigma),
        detail=f"{a.value:.3f} ± {bins[0].std:.3f} and {b.value:.3f} ± {bins[1].std:.3f} (spread): "
        f"the means differ by {sigma:.1f} standard errors{share}, allowed {tolerances.sigma:g}",
        differing=int(size > 0),
        total=1,
        sigma=_finite(sigma),
    )


def _verdict(same: bool, agrees: bool) -> Verdict:
    if same:
        return Verdict.IDENTICAL
    return Verdict.EQUIVALENT if agrees else Verdict.DIFFERENT


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
