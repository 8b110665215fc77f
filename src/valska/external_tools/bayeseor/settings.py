"""What a run is asked to do: the user's configuration with overrides and perturbations applied."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.bayeseor.document import parse
from valska.external_tools.bayeseor.keys import (
    HYPOTHESES,
    NO_SIGNAL,
    OWNED,
    PRIORS,
    SIGNAL_FIT,
    check_key,
    check_value,
    is_replaced,
)
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.overrides import perturbed
from valska.external_tools.core.tool import Read

_log = logging.getLogger(__name__)

BEAM_WIDTHS = ("fwhm_deg", "antenna_diameter")
_BEAMS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "uniform": (),
    "gaussian": (BEAM_WIDTHS,),
    "airy": (BEAM_WIDTHS[::-1],),
    "taperairy": (("fwhm_deg",), ("antenna_diameter",)),
    "gausscosine": (("fwhm_deg",), ("cosfreq",)),
}
"""Beam to what it needs: of each group one key, and the first that is there is the one used."""

Values = dict[str, Any]


def load(source: Path, read: Read, warn: bool = True) -> Values:
    """Read a configuration and check each of its keys by itself.

    Parameters
    ----------
    source
        The file.
    read
        What reads it.
    warn
        Whether to say which values are not used.

    Returns
    -------
    dict
        Its keys and values, without those that valska sets itself.

    Raises
    ------
    UsageError
        If a key is unknown or cannot be set, or a value is of a wrong type.
    """
    where = f"{source.name}: "
    values, replaced = {}, []
    for name, value in parse(read(source), source.name).items():
        check_key(name, where)
        check_value(name, value, where)
        if is_replaced(name, value, where):
            replaced.append(name)
        else:
            values[name] = value
    if replaced and warn:
        _log.warning("%svalska sets %s itself", where, ", ".join(replaced))
    return values


def changed(
    base: Values, overrides: Mapping[str, Any], perturbations: Mapping[str, float]
) -> Values:
    """Return a copy of a configuration with some values replaced, then some multiplied.

    Parameters
    ----------
    base
        As `load` returns it.
    overrides
        Key to value; None removes the key.
    perturbations
        Key to a fraction f: the value is multiplied by 1 + f.

    Raises
    ------
    UsageError
        If a key is unknown or valska's own, a value is of a wrong type, or a perturbation has
        nothing to act on.
    """
    values = dict(base)
    for name, value in overrides.items():
        check_key(name, "")
        if name in OWNED:
            raise UsageError(f"{name} cannot be set", f"Leave it out: {OWNED[name]}.")
        if value is None:
            values.pop(name, None)
            continue
        check_value(name, value)
        values[name] = value
    return _perturbed(values, perturbations) if perturbations else values


def check_together(values: Values, hypotheses: tuple[str, ...]) -> None:
    """Check what can only be checked of all keys together.

    Raises
    ------
    UsageError
        If a key is missing that the run needs.
    """
    needed = ["nside", "nu", "fov_ra_eor", "telescope_latlonalt", "beam_type"]
    if values.get("noise_data_path") is None or not values.get("calc_noise"):
        needed.append("sigma")
    missing = [name for name in needed if values.get(name) is None]
    if missing:
        raise UsageError(
            f"the configuration has no {', '.join(missing)}",
            "BayesEoR cannot run without; add it to the file, or set it with --override.",
        )
    beam_key(values, "")
    numbers = {name: len(ranges) for name, ranges in priors_of(values, hypotheses).items()}
    if len(set(numbers.values())) > 1:
        listed = " and ".join(f"{count} {PRIORS[name]}" for name, count in numbers.items())
        raise UsageError(f"there are {listed}", "Both need one [min, max] for each k bin.")


def priors_of(values: Values, hypotheses: tuple[str, ...]) -> dict[str, Any]:
    """Return the priors of each hypothesis.

    Raises
    ------
    UsageError
        If there are none, or ``priors`` and ``signal_fit_priors`` are both there.
    """
    plain, own = values.get("priors"), values.get(PRIORS[SIGNAL_FIT])
    if plain is not None and own is not None:
        raise UsageError(
            f"there are both priors and {PRIORS[SIGNAL_FIT]}", "They mean the same: keep one."
        )
    found = {SIGNAL_FIT: plain if own is None else own, NO_SIGNAL: values.get(PRIORS[NO_SIGNAL])}
    for name in hypotheses:
        if found[name] is None:
            others = [other for other in HYPOTHESES if other != name and found[other]]
            instead = f", or take --hypothesis {others[0]}" if others else ""
            raise UsageError(
                f"the configuration has no {PRIORS[name]}",
                f"Give one [min, max] for each k bin{instead}.",
            )
    return {name: found[name] for name in hypotheses}


def beam_key(values: Values, key: str) -> bool:
    """Check that a beam has what it needs, and tell whether it uses a key.

    Raises
    ------
    UsageError
        If BayesEoR knows no such beam, or a key of it is missing.
    """
    kind = str(values["beam_type"])
    if is_beam_file(kind):
        return False
    groups = _BEAMS.get(kind.lower())
    if groups is None:
        raise UsageError(
            f"beam_type {kind!r} is none that BayesEoR has",
            f"One of {', '.join(_BEAMS)}, or the path of a UVBeam file with a suffix.",
        )
    used = []
    for group in groups:
        there = [name for name in group if values.get(name) is not None]
        if not there:
            raise UsageError(f"a beam of type {kind} needs {' or '.join(group)}", "Add it.")
        used.append(there[0])
    return key in used


def is_beam_file(beam_type: str) -> bool:
    """Tell whether BayesEoR takes a beam's type for a path: it does where there is a dot."""
    return "." in beam_type


def _perturbed(values: Values, perturbations: Mapping[str, float]) -> Values:
    if all(name in perturbations for name in BEAM_WIDTHS):
        raise UsageError(
            f"{' and '.join(BEAM_WIDTHS)} cannot both be perturbed",
            "Either one sets the width of the beam: choose one.",
        )
    for name, fraction in perturbations.items():
        check_key(name, "")
        if values.get(name) is None:
            raise UsageError(
                f"{name} cannot be perturbed: the configuration does not set it",
                "Set it to a number in the configuration first.",
            )
        if name in BEAM_WIDTHS and values.get("beam_type") and not beam_key(values, name):
            raise UsageError(
                f"{name} cannot be perturbed: a beam of type {values['beam_type']} does not use it",
                "The results would all be the same; perturb what the beam uses.",
            )
        values[name] = perturbed(values[name], fraction, name)
        check_value(name, values[name])
    return values
