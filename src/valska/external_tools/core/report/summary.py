"""What a tool says of what its runs found; the core puts it side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from valska.external_tools.core.tool import ToolOption

Cell = int | float | str | None
"""A number or a word of a run; None where there is none."""


@dataclass(frozen=True, slots=True)
class Column:
    """A quantity that runs have.

    Parameters
    ----------
    key
        Its name in CSV and JSON; ``[a-z][a-z0-9_]*``.
    title
        What stands above it in a table, and beside an axis.
    help
        What it is, in a sentence.
    unit
        Of the number; empty for a pure number or a word.
    error
        Key of the column that has its standard error.
    shown
        Whether the printed table has it; an error is printed with its quantity.
    """

    key: str
    title: str
    help: str
    unit: str = ""
    error: str = ""
    shown: bool = True

    @property
    def label(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True, slots=True)
class Table:
    """A table that each run has, such as a spectrum.

    Parameters
    ----------
    key
        Its name in files and JSON.
    title
        What stands above it.
    index
        Keys of the columns that tell its rows apart.
    columns
        All its columns, those of the index first.
    """

    key: str
    title: str
    index: tuple[str, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of columns against what is swept.

    Parameters
    ----------
    name
        Of its file, without suffix.
    title
        What stands above it.
    label
        Beside its axis.
    series
        Key of a column to what the legend calls it.
    zero
        Whether a line marks zero.
    """

    name: str
    title: str
    label: str
    series: Mapping[str, str]
    zero: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """A picture of a table, a line for each run and a panel for each word of a column.

    Parameters
    ----------
    name, title, label
        See `Chart`.
    table
        Key of the table.
    panel
        Key of the column of which each word has a panel.
    x, y, low, high
        Keys of columns: across, up, and the ends of the error bar.
    log
        Whether the axis across is logarithmic.
    """

    name: str
    title: str
    label: str
    table: str
    panel: str
    x: str
    y: str
    low: str
    high: str
    log: bool = False


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """What there is of a run.

    Parameters
    ----------
    outputs
        Directory with what it wrote.
    section
        The tool's own section of its manifest.
    states
        Stage to the word for what became of it; only a ``completed`` one has results.
    """

    outputs: Path
    section: Mapping[str, Any]
    states: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run found.

    Parameters
    ----------
    values
        Key of a column to its cell; what is missing counts as None.
    tables
        Key of a table to its rows, each from key of a column to cell.
    notes
        What is missing or damaged, and what else there is to say.
    complete
        Whether all is there that the run was to find.
    """

    values: Mapping[str, Cell] = field(default_factory=dict)
    tables: Mapping[str, tuple[Mapping[str, Cell], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    complete: bool = True


Summarize = Callable[[RunOutputs], RunSummary]
"""Sums up one run. Raises `ValskaError` where it cannot be summed up at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """How a tool's runs are summed up.

    Parameters
    ----------
    columns
        In the order in which files have them.
    start
        From the options, by name, to the function that sums up a run. Raises `UsageError` for an
        option that is not usable, `PrerequisiteError` for a package that is not installed.
    options
        Options of ``valska report``.
    tables, charts, profiles
        What else runs have, and what is drawn of them.
    """

    columns: tuple[Column, ...]
    start: Callable[[Mapping[str, Any]], Summarize]
    options: tuple[ToolOption, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    profiles: tuple[Profile, ...] = ()


@runtime_checkable
class Reports(Protocol):
    """What a tool has, besides, if it can sum up what its runs found."""

    def reporter(self) -> Reporter:
        """Return how its runs are summed up."""
        ...
