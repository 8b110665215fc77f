"""Evidences: how well each hypothesis explains the data, and what the two say together."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from valska.external_tools.bayeseor.chains import STATS, ChainsError, number, read_text

_LINE = re.compile(
    r"\s*Nested (Importance )?Sampling Global Log-Evidence\s*:\s*(\S+)\s*\+/-\s*(\S+)\s*"
)


class Estimator(StrEnum):
    """How MultiNest estimates an evidence."""

    INS = "ins"
    """From all points that it drew, weighted: nested importance sampling."""
    NS = "ns"
    """From the points that replaced others: nested sampling."""


class Verdict(StrEnum):
    """What the null test says."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A natural logarithm and its standard error."""

    value: float
    error: float

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the difference; independent errors add in quadrature."""
        return Estimate(self.value - other.value, math.hypot(self.error, other.error))

    def in_decades(self) -> Estimate:
        """Return the same as a logarithm to base 10, never forming the number itself."""
        return Estimate(self.value / math.log(10), self.error / math.log(10))


def read_evidence(chains: Path, estimator: Estimator) -> Estimate:
    """Read ln Z from what MultiNest wrote.

    Parameters
    ----------
    chains
        A directory of chains.
    estimator
        Which of its two estimates.

    Raises
    ------
    ChainsError
        If the file is missing or damaged, or does not have that estimate.
    """
    path = chains / STATS
    for line in read_text(path).splitlines():
        match = _LINE.fullmatch(line)
        if match and bool(match[1]) is (estimator is Estimator.INS):
            value, error = number(match[2], path), number(match[3], path)
            return Estimate(value, abs(error))
    raise ChainsError(f"{path.name} has no evidence of the kind {estimator.value!r}")


def null_test(delta: Estimate, sigma: float) -> Verdict:
    """Say whether data without a signal are explained better without one.

    Parameters
    ----------
    delta
        ln Z of signal_fit less that of no_signal.
    sigma
        By how many standard errors it has to differ from 0.

    Returns
    -------
    Verdict
        ``pass`` if delta + margin ≤ 0, ``fail`` if delta - margin > 0, otherwise ``inconclusive``;
        the margin is `sigma` times the error. With `sigma` 0 the sign alone decides, and 0 passes.
    """
    margin = sigma * delta.error
    if delta.value + margin <= 0:
        return Verdict.PASS
    return Verdict.FAIL if delta.value - margin > 0 else Verdict.INCONCLUSIVE
