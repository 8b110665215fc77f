"""What runs of pyuvsim found: a few numbers that sum up all visibilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.report.summary import (
    Cell,
    Chart,
    Column,
    Reporter,
    RunOutputs,
    RunSummary,
    Summarize,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 4096
"""How many rows of visibilities are held in memory at once."""
_DONE = "completed"
_STAGE = "simulate"

_COLUMNS = (
    Column("visibilities", "visibilities", "Visibilities that are not flagged."),
    Column("flagged", "flagged", "Visibilities that are flagged; no number counts them.",
           shown=False),
    Column("mean_amplitude", "mean |V|", "Mean amplitude, in the unit of the file."),
    Column("rms_amplitude", "rms |V|", "Root mean square amplitude, in the unit of the file."),
    Column("max_amplitude", "max |V|", "Largest amplitude, in the unit of the file.", shown=False),
    Column("unit", "unit", "Unit of the amplitudes, as the file names it."),
    Column("low_mhz", "lowest MHz", "Centre of the lowest channel.", "MHz", shown=False),
    Column("high_mhz", "highest MHz", "Centre of the highest channel.", "MHz", shown=False),
)  # fmt: skip


def start(options: Mapping[str, Any]) -> Summarize:
    """Return what sums up runs; see `Reporter.start`.

    Raises
    ------
    PrerequisiteError
        If h5py is not installed.
    """
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            f"a report needs a package that is not installed: {error.name}",
            "pip install 'valska[plot]'",
        ) from error
    return summarize


def summarize(run: RunOutputs) -> RunSummary:
    """Sum up the visibilities of a run; see `Summarize`.

    Raises
    ------
    ValskaError
        If they cannot be read.
    """
    state = run.states.get(_STAGE, "not planned")
    if state != _DONE:
        return RunSummary(notes=(f"{_STAGE}: {state}",), complete=False)
    kind, name = run.section.get("output_format"), str(run.section.get("output"))
    if kind != "uvh5":
        return RunSummary(notes=(f"only uvh5 can be summed up, not {kind}",), complete=False)
    return RunSummary(values=read_numbers(run.outputs / name))


def read_numbers(path: Path) -> dict[str, Cell]:
    """Read the numbers that sum up a UVH5 file.

    Raises
    ------
    ValskaError
        If it is missing, or not readable as UVH5.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _numbers(file)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise ValskaError(f"{path.name} is not readable as UVH5: {error}") from error


def _numbers(file: Any) -> dict[str, Cell]:
    count, flagged, total, squares, largest = 0, 0, 0.0, 0.0, 0.0
    for amplitudes, flags in _amplitudes(file):
        count += amplitudes.size
        flagged += flags
        total += float(amplitudes.sum())
        squares += float((amplitudes**2).sum())
        largest = max(largest, float(amplitudes.max(initial=0)))
    frequencies = file["Header/freq_array"][:].ravel() / 1e6
    unit = file["Header/vis_units"][()]
    return {
        "visibilities": count,
        "flagged": flagged,
        "mean_amplitude": total / count if count else None,
        "rms_amplitude": (squares / count) ** 0.5 if count else None,
        "max_amplitude": largest if count else None,
        "unit": unit.decode() if isinstance(unit, bytes) else str(unit),
        "low_mhz": float(frequencies.min()),
        "high_mhz": float(frequencies.max()),
    }


def _amplitudes(file: Any) -> Iterator[tuple[NDArray[np.float64], int]]:
    """Yield, a block of rows at a time, the amplitudes that are not flagged and a count."""
    import numpy as np

    visibilities, flags = file["Data/visdata"], file["Data/flags"]
    for first in range(0, visibilities.shape[0], _ROWS):
        data, bad = visibilities[first : first + _ROWS], flags[first : first + _ROWS]
        if data.dtype.names:
            data = data["r"] + 1j * data["i"]
        yield np.abs(data[~bad]).astype(np.float64), int(bad.sum())


REPORTER = Reporter(
    columns=_COLUMNS,
    start=start,
    charts=(
        Chart(
            "mean_amplitude",
            "Amplitude of all visibilities",
            "amplitude, in the unit of the files",
            {"mean_amplitude": "mean", "rms_amplitude": "root mean square"},
        ),
    ),
)
"""How runs of pyuvsim are summed up."""
