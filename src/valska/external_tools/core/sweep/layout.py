"""Where everything of a sweep lies; the only place that knows the layout of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.run_directory import (
    COMMON,
    Bundle,
    RunDirectoryError,
    open_bundle,
)

SWEEPS = "_sweeps"
"""Level of the results tree that holds sweeps."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's files by name. Nothing is read or written here.

    Parameters
    ----------
    path
        The sweep's directory.
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """Which points there are; replaced as points are added, so not sealed."""
        return self.path / "sweep_manifest.json"

    @property
    def common(self) -> Path:
        """What the manifests of all points have in common; sealed."""
        return self.path / COMMON

    @property
    def bundle(self) -> Bundle:
        """What is stored once, by the names that it has in a bundle: scripts, inputs, logs, …."""
        return Bundle(self.path)

    @property
    def points(self) -> Path:
        """One directory for each point."""
        return self.path / "points"

    @property
    def shared(self) -> Path:
        """One directory for each stage's work that several points share."""
        return self.path / "shared"

    @property
    def arrays(self) -> Path:
        """One list for each slice of a job array: a seal and a unit per task."""
        return self.path / "arrays"

    def point(self, label: str) -> Bundle:
        """Return a point as a bundle."""
        return Bundle(self.points / label, self.path)

    def shared_unit(self, label: str) -> Bundle:
        """Return the directory of shared work as a bundle."""
        return Bundle(self.shared / label, self.path)

    def unit(self, place: str) -> Bundle:
        """Return a point or shared work by its path relative to the sweep."""
        return Bundle(self.path / place, self.path)


def is_sweep(path: Path) -> bool:
    """Return whether a directory is a sweep."""
    return Sweep(path).manifest.is_file()


def open_sweep(path: Path) -> Sweep:
    """Return the sweep at a path, made absolute.

    Raises
    ------
    RunDirectoryError
        If it is not a sweep.
    """
    if not path.is_dir():
        raise RunDirectoryError(
            f"no such sweep: {path}", "Make one with `valska sweep`, or check the path."
        )
    if not is_sweep(path):
        raise RunDirectoryError(
            f"{path} is not a sweep: {Sweep(path).manifest.name} missing",
            "Name the directory that `valska sweep` made.",
        )
    return Sweep(path.absolute())


def sweep_of(path: Path) -> Sweep | None:
    """Return the sweep that a point's (or shared unit's) directory belongs to, or None."""
    whole = path.absolute()
    sweep = Sweep(whole.parent.parent)
    belongs = whole.parent in (sweep.points, sweep.shared) and is_sweep(sweep.path)
    return sweep if belongs else None


def open_unit(path: Path) -> Bundle:
    """Return the bundle, or the point of a sweep, at a path.

    Raises
    ------
    RunDirectoryError
        If it is neither.
    """
    if is_sweep(path):
        raise RunDirectoryError(
            f"{path} is a sweep, not a run",
            f"Name one of its points, as {path / Sweep(path).points.name}/LABEL.",
        )
    if sweep := sweep_of(path):
        whole = path.absolute()
        return sweep.unit(f"{whole.parent.name}/{whole.name}")
    return open_bundle(path)
