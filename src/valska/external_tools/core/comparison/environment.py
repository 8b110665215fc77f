"""Conda environments of two runs, by the package lists that their jobs wrote down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from valska.external_tools.core.records import read_records
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.layout import Sweep, is_sweep

_ENDINGS = (".conda", ".tar.bz2")


def recorded_packages_of(bundle: Bundle) -> tuple[str, ...] | None:
    """Return the explicit package list that the newest job wrote down; None without one.

    Parameters
    ----------
    bundle
        The bundle, or a point; of a sweep's directory the points are asked in turn.
    """
    units = [bundle]
    if bundle.common is None and is_sweep(bundle.path):
        sweep = Sweep(bundle.path)
        units = [Bundle(path, sweep.path) for path in sorted(sweep.points.glob("*"))]
    for unit in units:
        for record in reversed(read_records(unit).records):
            explicit = (record.data.get("environment") or {}).get("explicit")
            if explicit:
                return tuple(map(str, explicit))
    return None


def package_differences(
    before: tuple[str, ...], after: tuple[str, ...]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the name of each package that is not the same in two lists, with its builds.

    Parameters
    ----------
    before, after
        Lines of ``conda list --explicit``: an address with the file's name.
    """
    old, new = (dict(map(_package, _addresses(lines))) for lines in (before, after))
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def _addresses(lines: tuple[str, ...]) -> list[str]:
    return [line for line in lines if "/" in line]


def _package(address: str) -> tuple[str, str]:
    """Return a package's name, and its version and build, from ``…/name-version-build.conda#…``."""
    file = PurePosixPath(address.partition("#")[0]).name
    for ending in _ENDINGS:
        file = file.removesuffix(ending)
    name, _, rest = file.rpartition("-")
    before, _, version = name.rpartition("-")
    return (before, f"{version}-{rest}") if before else (name or file, rest)
