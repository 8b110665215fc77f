"""The parameters of BayesEoR 2.0, and what valska does with each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.suggest import did_you_mean

SIGNAL_FIT = "signal_fit"
NO_SIGNAL = "no_signal"
HYPOTHESES = (SIGNAL_FIT, NO_SIGNAL)
PRIORS = {SIGNAL_FIT: "signal_fit_priors", NO_SIGNAL: "no_signal_priors"}
"""Hypothesis to the key that holds its priors; BayesEoR itself knows ``priors`` only."""

_FLAGS = """
achromatic_beam build_Finv_and_Fprime calc_noise clobber drift_scan
fit_for_monopole fit_for_shg_amps fit_for_spectral_model_parameters form_pI
include_instrumental_effects log_priors quiet redundant_avg run save_model save_vis
simple_za_filter uniform_redundancy use_LWM_Gaussian_prior use_Multinest use_gpu
use_intrinsic_noise_fitting use_sparse_matrices
"""
_COUNTS = """
freq_idx_min jd_idx_min neta nf noise_seed nq nside nt nu nu_fg nu_sh nv nv_fg nv_sh
"""
_NUMBERS = """
antenna_diameter beam_peak_amplitude beam_ref_freq bl_cutoff cosfreq df dt
fov_dec_eor fov_dec_fg fov_ra_eor fov_ra_fg freq_center freq_min fwhm_deg inverse_LW_power
jd_center jd_min pI_norm phase_time pl_grid_spacing pl_max pl_min sigma
"""
_TEXTS = """
ant_str array_dir_prefix beam_type data_path file_root_dir inst_model noise_data_path output_dir
pol taper_func uprior_bins
"""
_LISTS = "beam_center beta telescope_latlonalt"

_NEVER_NULL = frozenset(
    f"{_FLAGS} ant_str beam_peak_amplitude inverse_LW_power noise_seed nq pI_norm pol "
    "uprior_bins".split()
)
"""Parameters that null is no value of."""

OWNED = {
    "output_dir": "each hypothesis has its own directory below outputs/",
    "array_dir_prefix": "matrices are below outputs/; --matrices names those of another run",
    "file_root_dir": "`valska submit --resume` goes on from the chains of an earlier attempt",
    "use_gpu": "--cpu chooses",
    "run": "the stage decides",
    "quiet": "the job reads the number of k bins from what BayesEoR prints",
    "clobber": "it would delete the matrices that both hypotheses read",
}
"""Parameters that valska sets itself, and what to do instead."""

_REPLACED = frozenset({"output_dir", "array_dir_prefix", "use_gpu", "run", "quiet"})
"""Owned parameters whose value in a user's file does no harm: it is replaced."""

_FATAL = {
    "include_instrumental_effects": False,
    "save_model": True,
    "save_vis": True,
    "use_LWM_Gaussian_prior": True,
    "use_Multinest": False,
    "use_intrinsic_noise_fitting": True,
}
"""Values at which BayesEoR 2.0 stops, since they are not implemented or do not work."""

NO_MATRIX_KEYS = frozenset(
    (
        *("priors", *PRIORS.values(), *OWNED),
        *("log_priors", "uprior_bins", "inverse_LW_power", "noise_seed"),
        *("save_vis", "save_model", "use_LWM_Gaussian_prior", "use_Multinest"),
        "use_intrinsic_noise_fitting",
    )
)
"""Parameters that do not change the matrices; whatever is not named here may."""

_ALONE = """
antenna_diameter beam_peak_amplitude beam_ref_freq bl_cutoff cosfreq fwhm_deg inverse_LW_power
noise_seed pI_norm phase_time pl_grid_spacing pl_max pl_min sigma
"""
ALONE = frozenset(_ALONE.split())
"""Numbers of which valska looks at nothing but whether they are set."""

_POSITIVE = frozenset(
    (
        *("antenna_diameter", "beam_ref_freq", "fwhm_deg", "fov_ra_eor", "sigma"),
        *("df", "dt", "nf", "nside", "nt", "nu"),
    )
)
"""Widths, sizes and spacings, without which there is nothing to compute."""

FILES = ("data_path", "noise_data_path", "inst_model", "beam_type")
"""Parameters that name files."""


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and (not value or value.isprintable())


def _list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _ranges(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_range, value))


def _range(value: Any) -> bool:
    return _list(value) and len(value) == 2 and value[0] < value[1]


_KINDS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    (_FLAGS, "true or false", _flag),
    (_COUNTS, "a whole number", _count),
    (_NUMBERS, "a number", _number),
    (_TEXTS, "text on one line", _text),
    (_LISTS, "a list of numbers", _list),
    (
        f"priors {PRIORS[SIGNAL_FIT]} {PRIORS[NO_SIGNAL]}",
        "a list of [min, max] pairs with min < max, one for each k bin",
        _ranges,
    ),
)

PARAMETERS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    name: (description, is_one)
    for names, description, is_one in _KINDS
    for name in sorted(names.split())
}
"""Every key of a configuration to what its value is, and a test for that."""


def check_key(name: Any, where: str) -> None:
    """Check that BayesEoR, or valska, knows a key.

    Raises
    ------
    UsageError
        If not; BayesEoR itself would stop there.
    """
    if name in PARAMETERS:
        return
    near = did_you_mean(str(name), PARAMETERS)
    hint = near or "`valska templates bayeseor` shows configurations; BayesEoR's --help every key."
    if isinstance(name, str) and "." in name and name.split(".")[0] in PARAMETERS:
        hint = f"BayesEoR's configuration has no sections; set {name.split('.')[0]} as a whole."
    raise UsageError(f"{where}BayesEoR has no parameter {name!r}", hint)


def check_value(name: str, value: Any, where: str = "") -> None:
    """Check that a value is of its parameter's type, and above 0 where only that makes sense.

    Raises
    ------
    UsageError
        If not.
    """
    description, is_one = PARAMETERS[name]
    if value is None and name not in _NEVER_NULL:
        return
    if not is_one(value):
        raise UsageError(f"{where}{name} is not {description}: {value!r}", _hint(name, value))
    if name in _POSITIVE and value <= 0:
        raise UsageError(f"{where}{name} is not above 0: {value!r}", "Write a positive number.")
    if name in _FATAL and value == _FATAL[name]:
        raise UsageError(
            f"{where}{name}: BayesEoR stops at {str(value).lower()}",
            "It is not implemented there, or does not work: leave the key out.",
        )


def is_replaced(name: str, value: Any, where: str) -> bool:
    """Tell whether valska puts its own value in the place of one in a user's file.

    Raises
    ------
    UsageError
        If the value asks for something that must not happen.
    """
    if name in _REPLACED:
        return True
    if name in OWNED and value:
        raise UsageError(f"{where}{name} cannot be set", f"Leave it out: {OWNED[name]}.")
    return name in OWNED


def _hint(name: str, value: Any) -> str | None:
    if isinstance(value, str) and PARAMETERS[name][1] in (_number, _count):
        return "Write a number, without quotes and units."
    if value is None:
        return "Leave the key out for BayesEoR's default."
    return None
