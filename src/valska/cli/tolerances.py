"""The options that say by how much numbers may differ."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from valska.cli.options import Function
from valska.external_tools.core.comparison.verdict import RTOL, SIGMA, Tolerances


class Tolerance(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number that is finite and not negative."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a tolerance."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            self.fail(f"{value!r} is no tolerance. Write 0, 1e-9, ….", param, ctx)
        return number


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--rtol",
        type=Tolerance(),
        metavar="X",
        help=f"Relative tolerance of numbers.  [{RTOL:g}; 0 where the tool asks for the same]",
    ),
    click.option(
        "--atol",
        type=Tolerance(),
        default=0.0,
        metavar="X",
        help="Absolute tolerance of numbers.  [0]",
    ),
    click.option(
        "--sigma",
        type=Tolerance(),
        default=SIGMA,
        metavar="N",
        help=f"Standard errors by which statistical results may differ.  [{SIGMA:g}]",
    ),
)


def tolerance_options(function: Function) -> Function:
    """Give a command ``--rtol``, ``--atol`` and ``--sigma``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def take_tolerances(options: dict[str, Any]) -> Tolerances:
    """Take the values of `tolerance_options` out of those of a command."""
    return Tolerances(options.pop("rtol"), options.pop("atol"), options.pop("sigma"))
