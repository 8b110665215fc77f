"""A user's configuration of BayesEoR: what is taken, what is refused, and what is said then."""

from pathlib import Path

import pytest
import yaml

from valska.external_tools.bayeseor.document import parse, text_of
from valska.external_tools.bayeseor.keys import HYPOTHESES, NO_SIGNAL, PARAMETERS, SIGNAL_FIT
from valska.external_tools.bayeseor.settings import changed, check_together, load, priors_of
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.overrides import OverrideError

WHOLE = {
    "nside": 32,
    "nu": 5,
    "fov_ra_eor": 12.9,
    "sigma": 0.006,
    "telescope_latlonalt": [-30.7, 21.4, 1073.0],
    "beam_type": "gaussian",
    "fwhm_deg": 9.3,
    "signal_fit_priors": [[0.7, 2.7]],
    "no_signal_priors": [[-4, -3]],
}


def loaded(text):
    return load(Path("my.yaml"), lambda path: text.encode())


@pytest.mark.parametrize(
    "value",
    [
        *(1e-16, 1e16, 1.5e300, -0.0, 9.306821090681533, 3, True, None),
        *("gaussian", "a: b # c", "ü\\", "yes", "1e5", "~", "012"),
        *([[0.7, 2.7], [1, 2]], []),
    ],
)
def test_text_is_read_back_as_the_same_value_by_yaml(value):
    assert yaml.safe_load(f"key: {text_of(value)}\n") == {"key": value}
    assert repr(yaml.safe_load(text_of(value))) == repr(value)


def test_numbers_are_read_as_bayeseor_reads_them():
    document = parse(b"a: 1e8\nb: 1.0e-16\nc: -2E+3\nd: 7\n", "my.yaml")
    assert document == {"a": 1e8, "b": 1e-16, "c": -2000.0, "d": 7}
    assert type(document["d"]) is int


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nside: 32\nnside: 64\n", "line 2"),
        ("nside: [32\n", "my.yaml is not valid YAML"),
        ("- 1\n", "holds no keys"),
        ("", "holds no keys"),
        ("a: !!python/object:os.system x\n", "not valid YAML"),
        ("? [1]\n: 2\n", "not valid YAML"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_place(text, told):
    with pytest.raises(UsageError, match=told):
        loaded(text)


def test_an_unknown_key_has_a_near_miss():
    with pytest.raises(UsageError, match="BayesEoR has no parameter 'fwhm_dg'") as caught:
        loaded("fwhm_dg: 9\n")
    assert "'fwhm_deg'" in caught.value.hint


@pytest.mark.parametrize("key", ["telescope_name", "n_live_points", "config", 7])
def test_what_only_looks_like_a_parameter_is_refused(key):
    with pytest.raises(UsageError, match="no parameter"):
        loaded(f"{key}: 1\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nside: 32.0", "a whole number"),
        ("nside: true", "a whole number"),
        ("sigma: 'a lot'", "a number"),
        ("sigma: .nan", "a number"),
        ("achromatic_beam: 1", "true or false"),
        ("achromatic_beam: null", "true or false"),
        ("nq: null", "a whole number"),
        ("beam_center: [1, x]", "a list of numbers"),
        ("signal_fit_priors: [[1, 2], [3]]", "pairs"),
        ("signal_fit_priors: [[2, 1]]", "min < max"),
        ("signal_fit_priors: []", "pairs"),
        ("use_Multinest: false", "BayesEoR stops at false"),
        ("use_LWM_Gaussian_prior: true", "BayesEoR stops at true"),
        ("include_instrumental_effects: false", "BayesEoR stops at false"),
        ("save_vis: true", "BayesEoR stops at true"),
        ("clobber: true", "cannot be set"),
        ("file_root_dir: MN-x", "cannot be set"),
        ("fwhm_deg: -9.3", "not above 0"),
        ("nside: 0", "not above 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused(line, told):
    with pytest.raises(UsageError, match=told) as caught:
        loaded(f"{line}\n")
    assert caught.value.message.startswith(f"my.yaml: {line.partition(':')[0]}")


def test_what_valska_sets_itself_is_replaced_with_a_warning(caplog):
    text = "nside: 32\noutput_dir: ./chains\nrun: true\nuse_gpu: false\nclobber: false\n"
    assert loaded(text) == {"nside": 32}
    assert "valska sets output_dir, run, use_gpu, clobber itself" in caplog.text


@pytest.mark.parametrize("key", ["output_dir", "array_dir_prefix", "run", "use_gpu", "clobber"])
def test_an_override_of_what_valska_sets_is_refused(key):
    with pytest.raises(UsageError, match=f"{key} cannot be set") as caught:
        changed(WHOLE, {key: "x"}, {})
    assert caught.value.hint.startswith("Leave it out: ")


def test_overrides_replace_add_and_remove():
    values = changed(WHOLE, {"nside": 64, "nq": 2, "fwhm_deg": None}, {})
    assert (values["nside"], values["nq"]) == (64, 2)
    assert "fwhm_deg" not in values
    assert WHOLE["nside"] == 32


@pytest.mark.parametrize("key", ["priors.0", "beam.fwhm_deg", "nsid", ""])
def test_an_override_of_what_is_no_key_is_refused(key):
    with pytest.raises(UsageError, match="no parameter"):
        changed(WHOLE, {key: 1}, {})


def test_a_number_is_perturbed_after_the_overrides():
    assert changed(WHOLE, {"fwhm_deg": 10.0}, {"fwhm_deg": 0.1})["fwhm_deg"] == 11.0
    assert changed(WHOLE, {}, {"sigma": -0.5})["sigma"] == 0.003
    assert changed(WHOLE, {}, {"fwhm_deg": 0.0})["fwhm_deg"] == 9.3


def test_a_width_cannot_be_perturbed_away():
    with pytest.raises(UsageError, match=r"fwhm_deg is not above 0: 0\.0"):
        changed(WHOLE, {}, {"fwhm_deg": -1.0})


@pytest.mark.parametrize(
    ("overrides", "perturbations", "told"),
    [
        ({}, {"antenna_diameter": 0.1}, "does not set it"),
        ({}, {"fwhm_dg": 0.1}, "no parameter"),
        ({}, {"beam_type": 0.1}, "no number"),
        ({}, {"telescope_latlonalt": 0.1}, "no number"),
        ({}, {"nside": 0.01}, "not a whole number"),
        ({"antenna_diameter": 14.0}, {"antenna_diameter": 0.1, "fwhm_deg": 0.1}, "both"),
        ({"antenna_diameter": 14.0}, {"antenna_diameter": 0.1}, "does not use it"),
        ({"beam_type": "airy", "antenna_diameter": 14.0}, {"fwhm_deg": 0.1}, "does not use it"),
        ({"beam_type": "uniform"}, {"fwhm_deg": 0.1}, "does not use it"),
        ({"beam_type": "a.beamfits"}, {"fwhm_deg": 0.1}, "does not use it"),
    ],
)
def test_a_perturbation_without_an_effect_or_a_number_is_refused(overrides, perturbations, told):
    with pytest.raises((UsageError, OverrideError), match=told):
        changed(WHOLE, overrides, perturbations)


@pytest.mark.parametrize(
    "key", ["nside", "nu", "fov_ra_eor", "beam_type", "sigma", "telescope_latlonalt"]
)
def test_what_bayeseor_needs_has_to_be_there(key):
    with pytest.raises(UsageError, match=f"has no {key}"):
        check_together(changed(WHOLE, {key: None}, {}), HYPOTHESES)


def test_what_is_needed_depends_on_the_rest():
    noise = {"sigma": None, "noise_data_path": "n.npy", "calc_noise": True}
    check_together(changed(WHOLE, noise, {}), HYPOTHESES)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"beam_type": "gausian"}, "none that BayesEoR has"),
        ({"fwhm_deg": None}, "needs fwhm_deg or antenna_diameter"),
        ({"beam_type": "taperairy"}, "needs antenna_diameter"),
        ({"beam_type": "gausscosine"}, "needs cosfreq"),
        ({"no_signal_priors": None}, "has no no_signal_priors"),
        ({"signal_fit_priors": None}, "has no signal_fit_priors"),
        ({"priors": [[1, 2]]}, "both priors and signal_fit_priors"),
        ({"priors": None, "no_signal_priors": [[1, 2], [1, 2]]}, "1 signal_fit_priors and 2 no_"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(overrides, told):
    with pytest.raises(UsageError, match=told):
        check_together(changed(WHOLE, overrides, {}), HYPOTHESES)


def test_one_hypothesis_needs_its_own_priors_only():
    plain = changed(WHOLE, {"signal_fit_priors": None, "priors": [[1, 2]]}, {})
    assert priors_of(plain, HYPOTHESES) == {SIGNAL_FIT: [[1, 2]], NO_SIGNAL: [[-4, -3]]}
    alone = changed(WHOLE, {"no_signal_priors": None}, {})
    check_together(alone, (SIGNAL_FIT,))
    with pytest.raises(UsageError, match="no_signal_priors") as caught:
        check_together(alone, (NO_SIGNAL,))
    assert "--hypothesis signal_fit" in caught.value.hint


def test_every_parameter_is_of_one_kind():
    assert len(PARAMETERS) == 75 + 2  # config is an option only; two keys are valska's
