"""The keys that pyuvsim 1.4 reads, and a check of a user's file against them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from valska.external_tools.core.errors import UsageError

_NEAR = 0.8


def _keys(words: str) -> frozenset[str]:
    return frozenset(words.split())


FILING = _keys("outdir outfile_name outfile_prefix outfile_suffix output_format clobber")

SECTIONS: Mapping[str, frozenset[str]] = {
    "filing": FILING,
    "freq": _keys("freq_array channel_width start_freq end_freq Nfreqs bandwidth Nspws"),
    "ordering": _keys("conjugation_convention blt_order"),
    "select": _keys(
        "antenna_names antenna_nums ant_str bls blt_inds freq_chans frequencies no_autos "
        "redundant_threshold times"
    ),
    "sources": _keys(
        "catalog array_location dec_column diffuse_model diffuse_params filetype flux_columns "
        "frame freq_array horizon_buffer id_column lat_column lon_column map_nside max_flux "
        "min_alt min_flux mock_arrangement non_nan non_negative Nsrcs ra_column "
        "reference_frequency save spectral_index_column spectral_type table_name time zen_ang"
    ),
    "telescope": _keys(
        "antenna_diameters antenna_names antenna_numbers array_layout ellipsoid feed_angle "
        "feed_array instrument mount_type select telescope_config_name telescope_location "
        "telescope_name world x_orientation"
    ),
    "time": _keys(
        "time_array integration_time start_time end_time Ntimes duration_days duration_hours "
        "time_offset"
    ),
}
"""Sections of an obsparam file, and their keys."""

REQUIRED = ("freq", "time", "telescope", "sources")
TOP = frozenset({*SECTIONS, "cat_name", "object_name", "polarization_array"})
TELESCOPE_CONFIG = _keys(
    "beam_paths ellipsoid freq_interp_kind select spline_interp_opts telescope_location "
    "telescope_name world"
)

_STRICT = frozenset({"freq", "time"})
"""Sections in which pyuvsim stops at an unknown key."""

_POSITIVE = frozenset(("freq.Nfreqs", "freq.channel_width", "time.Ntimes", "time.integration_time"))
"""Counts and widths, without which there is nothing to simulate."""


def known_overrides() -> frozenset[str]:
    """Return the dotted keys that an override may add to an obsparam file."""
    return frozenset(
        [f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys]
        + ["cat_name", "object_name", "polarization_array"]
    )


def check_obsparam(document: Any, what: str) -> None:
    """Check that a document is an obsparam file as far as its keys tell.

    Raises
    ------
    UsageError
        If it is something else, a section is missing, or a key looks like a typing error.
    """
    if not isinstance(document, dict):
        raise _not_obsparam(what, "it holds no sections")
    top = TOP if "filing" in document else TOP | FILING
    for found in document:
        _check_key(found, top, what)
    missing = [name for name in REQUIRED if name not in document]
    if missing:
        raise _not_obsparam(what, f"no section {', '.join(missing)}", _is_telescope(document))
    for name, keys in SECTIONS.items():
        if name in document:
            _check_section(document[name], name, keys, what)
    _check_numbers(document, what)


def check_telescope_config(document: Any, what: str) -> None:
    """Check that a document is a telescope configuration as far as its keys tell.

    Raises
    ------
    UsageError
        If it is something else, or a key looks like a typing error.
    """
    hint = "telescope.telescope_config_name names a YAML file with beam_paths and the location."
    if not isinstance(document, dict):
        raise UsageError(f"{what} is no telescope configuration", hint)
    for found in document:
        _check_key(found, TELESCOPE_CONFIG, what)
    missing = [
        k for k in ("telescope_name", "telescope_location", "beam_paths") if k not in document
    ]
    if missing:
        raise UsageError(f"{what} has no {', '.join(missing)}", hint)
    if not isinstance(document["beam_paths"], dict):
        raise UsageError(f"{what}: beam_paths does not map beam numbers to beams", hint)


def unknown_keys(obsparam: Mapping[Any, Any], telescope: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the keys of both documents that pyuvsim passes over."""
    top = TOP if "filing" in obsparam else TOP | FILING
    unknown = [str(key) for key in obsparam if key not in top]
    for name, keys in SECTIONS.items():
        unknown += [f"{name}.{key}" for key in obsparam.get(name, {}) if key not in keys]
    unknown += [f"telescope_config.{key}" for key in telescope if key not in TELESCOPE_CONFIG]
    return tuple(unknown)


def is_possible(key: str, number: float) -> bool:
    """Return whether a number can stand at a dotted key: counts and widths are above 0."""
    return key not in _POSITIVE or number > 0


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known key that a name is probably a typing error of."""
    by_fold = {key.casefold(): key for key in known}
    match = difflib.get_close_matches(name.casefold(), list(by_fold), n=1, cutoff=_NEAR)
    return by_fold[match[0]] if match else None


def _check_section(section: Any, name: str, keys: frozenset[str], what: str) -> None:
    if not isinstance(section, dict):
        raise UsageError(
            f"{what}: {name} is not a section with keys", f"Known keys: {', '.join(sorted(keys))}."
        )
    for found in section:
        _check_key(found, keys, what, name)


def _check_key(found: Any, known: frozenset[str], what: str, section: str = "") -> None:
    if found in known:
        return
    key = f"{section}.{found}" if section else str(found)
    meant = near(str(found), known)
    if meant is not None:
        raise UsageError(f"{what}: unknown key {key!r}", f"Did you mean {meant!r}?")
    if section in _STRICT:
        raise UsageError(
            f"{what}: unknown key {key!r}", f"pyuvsim knows here: {', '.join(sorted(known))}."
        )


def _check_numbers(document: Mapping[str, Any], what: str) -> None:
    for section in sorted(_STRICT):
        for key, value in document[section].items():
            for element in value if isinstance(value, list) else [value]:
                if not isinstance(element, int | float):
                    raise _not_number(f"{section}.{key}", element, what)
                if not is_possible(f"{section}.{key}", element):
                    raise UsageError(
                        f"{what}: {section}.{key} is not above 0: {element!r}",
                        "Write a positive number.",
                    )


def _not_number(key: str, value: Any, what: str) -> UsageError:
    try:
        hint = f"For YAML {value} is text; write {float(value)!r}."
    except (TypeError, ValueError):
        hint = "Write a number or a list of numbers."
    return UsageError(f"{what}: {key} is not a number: {value!r}", hint)


def _is_telescope(document: Mapping[Any, Any]) -> bool:
    return "beam_paths" in document


def _not_obsparam(what: str, why: str, telescope: bool = False) -> UsageError:
    hint = (
        "This is a telescope configuration; name the obsparam file that uses it."
        if telescope
        else f"An obsparam file has the sections {', '.join(REQUIRED)} (and filing)."
    )
    return UsageError(f"{what} is no pyuvsim obsparam file: {why}", hint)
