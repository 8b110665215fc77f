"""A picture of simulated visibilities: waterfalls of a few baselines."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import PrerequisiteError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHOWN = 3
"""How many baselines are drawn."""

_DAY_MINUTES = 24 * 60
_PRODUCTS = {
    **dict(zip(range(1, 5), ("pI", "pQ", "pU", "pV"), strict=True)),
    **dict(zip(range(-1, -5, -1), ("RR", "LL", "RL", "LR"), strict=True)),
    **dict(zip(range(-5, -9, -1), ("XX", "YY", "XY", "YX"), strict=True)),
}


@dataclass(frozen=True, slots=True)
class Baseline:
    """Two antennas and the way from one to the other, in metres to the east and north."""

    antennas: tuple[int, int]
    east: float
    north: float

    def __str__(self) -> str:
        """Return what stands above the baseline's panels."""
        one, two = self.antennas
        east, north = _way(self.east, "E", "W"), _way(self.north, "N", "S")
        return f"antennas {one} and {two}: {east}, {north}"


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Visibilities of one baseline.

    Parameters
    ----------
    baseline
        The baseline.
    jd
        Julian dates, (times,).
    data
        Visibilities, (times, frequencies); NaN where flagged.
    """

    baseline: Baseline
    jd: Floats
    data: NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class Visibilities:
    """What of a UVH5 file is drawn.

    Parameters
    ----------
    mhz
        Edges of the channels in MHz, (frequencies + 1,).
    minutes
        Length of an integration in minutes.
    unit
        Of the amplitudes.
    product
        Name of the polarization product.
    waterfalls
        One per baseline.
    """

    mhz: Floats
    minutes: float
    unit: str
    product: str
    waterfalls: tuple[Waterfall, ...]


def draw(outputs: Path, section: Mapping[str, Any], title: str) -> bytes:
    """Draw amplitude and phase of the shortest few baselines that differ; see `Plots.plot`.

    Raises
    ------
    PrerequisiteError
        If the run has written no visibilities yet, or h5py or matplotlib is not installed.
    UsageError
        If the visibilities are not UVH5.
    """
    if section["output_format"] != "uvh5":
        raise UsageError(
            f"this run writes {section['output_format']}; only uvh5 can be drawn",
            "Make it with --override filing.output_format=uvh5.",
        )
    path = outputs / section["output"]
    if not path.is_file():
        raise PrerequisiteError(
            f"there are no visibilities yet: {path}",
            "Run the bundle first: valska submit, valska status.",
        )
    _require_packages()
    return _render(read_visibilities(path), title)


def _require_packages() -> None:
    try:
        import h5py  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            f"drawing needs a package that is not installed: {error.name}",
            "pip install 'valska[plot]'",
        ) from error


def read_visibilities(path: Path, shown: int = SHOWN) -> Visibilities:
    """Read the baselines of a UVH5 file that are drawn, and no others.

    Raises
    ------
    UsageError
        If the file is not readable UVH5.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _read(file, shown)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"{path} is not readable as UVH5: {error}", "Is the run complete? See valska status."
        ) from error


def _read(file: Any, shown: int) -> Visibilities:
    header = file["Header"]
    pairs = _pairs(header)
    minutes = float(header["integration_time"][0]) / 60
    product = int(header["polarization_array"][0])
    chosen = choose(_baselines(header, set(pairs)), shown)
    return Visibilities(
        mhz=edges(header["freq_array"][:] / 1e6, float(header["channel_width"][0]) / 1e6),
        minutes=minutes,
        unit=_text(header["vis_units"][()]),
        product=_PRODUCTS.get(product, str(product)),
        waterfalls=tuple(_waterfall(file, pairs, baseline) for baseline in chosen),
    )


def _pairs(header: Any) -> list[tuple[int, int]]:
    return list(
        zip(header["ant_1_array"][:].tolist(), header["ant_2_array"][:].tolist(), strict=True)
    )


def _baselines(header: Any, pairs: set[tuple[int, int]]) -> list[Baseline]:
    import numpy as np

    latitude, longitude = np.radians([header["latitude"][()], header["longitude"][()]])
    x, y, z = header["antenna_positions"][:].T
    outward = np.cos(longitude) * x + np.sin(longitude) * y
    east = np.cos(longitude) * y - np.sin(longitude) * x
    north = np.cos(latitude) * z - np.sin(latitude) * outward
    place = {number: index for index, number in enumerate(header["antenna_numbers"][:].tolist())}
    return [
        Baseline(
            (one, two),
            float(east[place[two]] - east[place[one]]),
            float(north[place[two]] - north[place[one]]),
        )
        for one, two in sorted(pairs)
    ]


def choose(baselines: Sequence[Baseline], shown: int) -> list[Baseline]:
    """Return the shortest baselines of which no two have the same length and orientation.

    An antenna with itself is chosen only if there is nothing else.
    """
    crossed = [each for each in baselines if each.antennas[0] != each.antennas[1]]
    distinct: dict[tuple[float, float], Baseline] = {}
    for each in sorted(crossed or baselines, key=_length):
        sign = -1 if (round(each.north, 1), round(each.east, 1)) < (0, 0) else 1
        distinct.setdefault((round(sign * each.east), round(sign * each.north)), each)
    return list(distinct.values())[:shown]


def _length(baseline: Baseline) -> tuple[float, tuple[int, int]]:
    return round((baseline.east**2 + baseline.north**2) ** 0.5, 1), baseline.antennas


def _waterfall(file: Any, pairs: list[tuple[int, int]], baseline: Baseline) -> Waterfall:
    import numpy as np

    rows = [row for row, pair in enumerate(pairs) if pair == baseline.antennas]
    data = file["Data/visdata"][rows, :, 0]
    if data.dtype.names:
        data = data["r"] + 1j * data["i"]
    data = np.where(file["Data/flags"][rows, :, 0], np.nan, data)
    jd = file["Header/time_array"][rows]
    order = np.argsort(jd)
    return Waterfall(baseline, jd[order], data[order])


def edges(centres: Floats, width: float) -> Floats:
    """Return the edges of bins: half-way between their centres, the outer ones by `width`."""
    import numpy as np

    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[centres[0] - width / 2], between, [centres[-1] + width / 2]])


def _render(found: Visibilities, title: str) -> bytes:
    import matplotlib.style
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.style.context("default", after_reset=True):
        count = len(found.waterfalls)
        figure = Figure(figsize=(9, 1.1 + 2.1 * count), dpi=100, layout="constrained")
        panels = figure.subplots(count, 2, sharex=True, sharey=True, squeeze=False)
        _fill(figure, panels, found)
        figure.suptitle(title, fontsize=9)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _fill(figure: Any, panels: Any, found: Visibilities) -> None:
    import numpy as np

    start = min(fall.jd[0] for fall in found.waterfalls)
    top = max((np.nanmax(np.abs(fall.data), initial=0) for fall in found.waterfalls), default=0)
    for row, fall in zip(panels, found.waterfalls, strict=True):
        minutes = edges((fall.jd - start) * _DAY_MINUTES, found.minutes)
        amplitude = row[0].pcolormesh(
            found.mhz, minutes, np.abs(fall.data), cmap="viridis", vmin=0, vmax=top or 1
        )
        phase = row[1].pcolormesh(
            found.mhz,
            minutes,
            np.degrees(np.angle(fall.data)),
            cmap="twilight",
            vmin=-180,
            vmax=180,
        )
        row[0].set_title(str(fall.baseline), fontsize=9, loc="left")
    figure.colorbar(
        amplitude, ax=panels[:, 0], label=f"amplitude of {found.product} ({found.unit})"
    )
    figure.colorbar(phase, ax=panels[:, 1], label="phase (degrees)", ticks=[-180, -90, 0, 90, 180])
    figure.supxlabel("frequency (MHz)", fontsize=10)
    figure.supylabel(f"time since JD {start:.5f} (minutes)", fontsize=10)


def _way(metres: float, forth: str, back: str) -> str:
    return f"{abs(metres):.1f} m {back if round(metres, 1) < 0 else forth}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
