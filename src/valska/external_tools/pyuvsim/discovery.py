"""Which files an obsparam file names, and where pyuvsim would find them.

A relative path is looked for in the current directory, then beside the obsparam file (for a
template the other way round). pyuvsim does the same for the catalogue, the telescope configuration
and the layout; for beam files it knows only the current directory, which for most users is where
the obsparam file lies. Neither ``~`` nor variables are expanded, since pyuvsim does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.overrides import apply_overrides, apply_perturbations
from valska.external_tools.core.templates import get_templates_dir
from valska.external_tools.core.tool import Read, RunSpec
from valska.external_tools.pyuvsim.beams import (
    Roots,
    beam_files,
    is_settings,
    load_settings,
    settings_files,
)
from valska.external_tools.pyuvsim.document import parse_yaml
from valska.external_tools.pyuvsim.files import NamedFile, locate, missing, path_text
from valska.external_tools.pyuvsim.keys import (
    TELESCOPE_CONFIG,
    check_obsparam,
    check_telescope_config,
    known_overrides,
)

TELESCOPE_PREFIX = "telescope_config."
"""Overrides and logical names that begin so belong to the telescope configuration."""


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """A CST settings file, and the key that names it."""

    file: NamedFile
    document: dict[Any, Any]


@dataclass(frozen=True, slots=True)
class Configuration:
    """An obsparam file and everything below it that is YAML too, overrides applied.

    Parameters
    ----------
    obsparam, telescope
        The two documents.
    settings
        CST settings files.
    files
        All further files that these documents name.
    """

    obsparam: dict[Any, Any]
    telescope: dict[Any, Any]
    settings: tuple[BeamSettings, ...]
    files: tuple[NamedFile, ...]


def load_configuration(spec: RunSpec, read: Read) -> Configuration:
    """Read the obsparam file of a spec and the YAML files that it names.

    Raises
    ------
    UsageError
        If one of them is missing or wrong, or an override names no key.
    """
    roots = _roots(spec.source)
    obsparam = _load_obsparam(spec, read)
    telescope = _load_telescope(spec, obsparam, roots, read)
    beams = [
        *beam_files(obsparam, "obsparam", "", roots),
        *beam_files(telescope, "telescope", TELESCOPE_PREFIX, roots),
    ]
    files = [*_source_files(obsparam, roots), *_layout_files(obsparam, roots)]
    files += [file for file in beams if not is_settings(file)]
    settings = []
    for file in filter(is_settings, beams):
        path = locate(file)
        settings.append(BeamSettings(file, load_settings(path, read)))
        files += settings_files(file.name, settings[-1].document, path.parent)
    return Configuration(obsparam, telescope, tuple(settings), tuple(files))


def _roots(source: Path) -> Roots:
    template = get_templates_dir(__file__) in source.absolute().parents
    return (source.parent, Path()) if template else (Path(), source.parent)


def _load_obsparam(spec: RunSpec, read: Read) -> dict[Any, Any]:
    what = spec.source.name
    document = parse_yaml(read(spec.source), what)
    check_obsparam(document, what)
    changed = apply_overrides(document, _split(spec.overrides)[0], known_overrides())
    changed = apply_perturbations(changed, _split(spec.perturbations)[0])
    check_obsparam(changed, what)
    return changed


def _split(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes of the obsparam file, and those of the telescope configuration."""
    telescope = {k: v for k, v in changes.items() if k.startswith(TELESCOPE_PREFIX)}
    return {k: v for k, v in changes.items() if k not in telescope}, telescope


def _load_telescope(
    spec: RunSpec, obsparam: Mapping[str, Any], roots: Roots, read: Read
) -> dict[Any, Any]:
    section = obsparam["telescope"]
    if "telescope_config_name" not in section:
        raise UsageError(
            f"{spec.source.name}: telescope.telescope_config_name is missing",
            "Name the telescope's YAML file; pyuvsim cannot simulate without its beams.",
        )
    path = locate(_file("telescope", "telescope_config_name", section, roots))
    document = parse_yaml(read(path), path.name)
    check_telescope_config(document, path.name)
    section_name = TELESCOPE_PREFIX.removesuffix(".")
    known = [TELESCOPE_PREFIX + key for key in TELESCOPE_CONFIG]
    whole = apply_overrides({section_name: document}, _split(spec.overrides)[1], known)
    changed = apply_perturbations(whole, _split(spec.perturbations)[1])[section_name]
    check_telescope_config(changed, path.name)
    return dict(changed)


def _source_files(obsparam: Mapping[str, Any], roots: Roots) -> Iterator[NamedFile]:
    section = obsparam["sources"]
    if "catalog" not in section:
        raise UsageError(
            "sources.catalog is missing", "Name a catalogue file, or 'mock' with mock_arrangement."
        )
    if section["catalog"] != "mock":
        yield _file("sources", "catalog", section, roots, _catalogue_label)


def _layout_files(obsparam: Mapping[str, Any], roots: Roots) -> Iterator[NamedFile]:
    section = obsparam["telescope"]
    layout = section.get("array_layout")
    if layout is None:
        raise UsageError("telescope.array_layout is missing", "Name the CSV file of the antennas.")
    if isinstance(layout, dict):
        raise UsageError(
            "telescope.array_layout: pyuvsim cannot simulate a layout that is written out here",
            "Write it as a CSV file with the columns Name Number BeamID E N U, and name that.",
        )
    yield _file("telescope", "array_layout", section, roots)


def _catalogue_label(value: str) -> str:
    """Keep what pyuvsim takes for a sign of a GLEAM table, which may be in a directory's name."""
    name = Path(value).name
    gleam = value.endswith(".vot") and "gleam" in value.casefold()
    return f"gleam_{name}" if gleam and "gleam" not in name.casefold() else name


def _file(
    section: str,
    key: str,
    values: Mapping[str, Any],
    roots: Roots,
    label: Callable[[str], str] = lambda value: Path(value).name,
) -> NamedFile:
    name = f"{section}.{key}"
    value = path_text(values[key], name)
    places = tuple(root / value for root in roots)
    return NamedFile(name, "obsparam", (section, key), places, label(value), missing(value))
