import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.overrides import (
    OverrideError,
    apply_overrides,
    apply_perturbations,
    check_distinct,
    parse_override,
    parse_perturbation,
    perturbed,
)

DOCUMENT: dict[str, Any] = {
    "freq": {"Nfreqs": 10, "start_freq": 1e8},
    "beam_paths": {0: {"diameter": 14.0}, 1: {"diameter": 6.0}},
    "list": [{"a": 1}, {"a": 2}],
    "empty": None,
}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("freq.Nfreqs=4", "freq.Nfreqs", 4),
        ("freq.start_freq=1e8", "freq.start_freq", 1e8),
        ("telescope.tilt=-.1", "telescope.tilt", -0.1),
        ("freq.freq_array=[1e8, 2.5E+8, x]", "freq.freq_array", [1e8, 2.5e8, "x"]),
        ("filing.clobber=true", "filing.clobber", True),
        ("filing.outfile_name='1e8'", "filing.outfile_name", "1e8"),
        ("select.bls=[(0, 1)]", "select.bls", ["(0", "1)"]),
        ("select.bls='[(0, 1)]'", "select.bls", "[(0, 1)]"),
        ("sources.catalog=a=b.txt", "sources.catalog", "a=b.txt"),
        (" a.b = c ", "a.b", "c"),
        ("a=", "a", None),
        ("a=null", "a", None),
    ],
)
def test_a_value_has_the_type_that_yaml_gives_it(text: str, key: str, value: Any) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["", "freq.Nfreqs", "=4", "a..b=1", ".a=1", "a.=1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(OverrideError, match="is no override"):
        parse_override(text)


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(OverrideError, match="the value of a is no YAML"):
        parse_override("a=[1, 2")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("freq.Nfreqs", 4, {"freq": {"Nfreqs": 4, "start_freq": 1e8}}),
        ("freq.Nfreqs", None, {"freq": {"start_freq": 1e8}}),
        (
            "beam_paths.1.diameter",
            7.0,
            {"beam_paths": {0: {"diameter": 14.0}, 1: {"diameter": 7.0}}},
        ),
        ("list.1.a", 3, {"list": [{"a": 1}, {"a": 3}]}),
        ("list.0", None, {"list": [{"a": 2}]}),
        ("time.Ntimes", 5, {"time": {"Ntimes": 5}}),
        ("empty.key", 5, {"empty": {"key": 5}}),
        ("time.Ntimes", None, {"time": {}}),
    ],
)
def test_one_value_changes_and_the_rest_stays(key: str, value: Any, expected: Any) -> None:
    before = copy.deepcopy(DOCUMENT)
    after = apply_overrides(DOCUMENT, {key: value}, known=["time.Ntimes", "empty.key"])
    assert after == {**before, **expected}
    assert before == DOCUMENT


def test_an_unknown_key_gets_the_near_one() -> None:
    with pytest.raises(OverrideError, match=r"no key 'freq\.Nfreq'") as caught:
        apply_overrides(DOCUMENT, {"freq.Nfreq": 4})
    assert caught.value.hint is not None
    assert "'freq.Nfreqs'" in caught.value.hint


def test_a_known_key_below_a_plain_value_is_refused() -> None:
    with pytest.raises(OverrideError, match="no section"):
        apply_overrides({"freq": 3}, {"freq.Nfreqs": 4}, known=["freq.Nfreqs"])


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_what_is_written_for_a_number_is_what_is_read(value: Any) -> None:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    assert parse_override(f"a={text}") == ("a", value)


@pytest.mark.parametrize(
    ("value", "fraction", "expected"),
    [
        (9.3, -0.05, 8.835),
        (0.1, 0.1, 0.11),
        (3.0, 0.1, 3.3),
        (100, 0.1, 110),
        (3, 0.1, 3.3),
        (5, 0.0, 5),
        (-2.5, -0.02, -2.45),
        (1e-300, 0.5, 1.5e-300),
        (2, -1.0, 0),
    ],
)
def test_a_number_is_perturbed_to_the_last_digit(value, fraction, expected):
    found = perturbed(value, fraction, "a")
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize("value", ["1e8", True, None, [1.0], float("inf"), {}])
def test_only_numbers_are_perturbed(value):
    with pytest.raises(OverrideError, match=r"beam\.a cannot be perturbed"):
        perturbed(value, 0.1, "beam.a")


def test_a_number_that_becomes_too_large():
    with pytest.raises(OverrideError, match="too large"):
        perturbed(1.7e308, 0.1, "a")


def test_perturbations_of_a_document():
    document = {"beam": {"width": 2.0, "list": [1, 2.0]}, 3: {"x": 4}}
    found = apply_perturbations(document, {"beam.width": 0.5, "beam.list.1": -0.5, "3.x": 0.25})
    assert found == {"beam": {"width": 3.0, "list": [1, 1.0]}, 3: {"x": 5}}
    assert document["beam"]["width"] == 2.0


@pytest.mark.parametrize("key", ["beam.widt", "beam.list.7", "beam.width.x", "none"])
def test_a_key_to_perturb_that_is_not_there(key):
    document = {"beam": {"width": 2.0, "list": [1]}}
    with pytest.raises(OverrideError, match="no key") as caught:
        apply_perturbations(document, {key: 0.1})
    if key == "beam.widt":
        assert "beam.width" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b=0.05", ("a.b", 0.05)), ("a = -1e-3", ("a", -0.001)), ("a=0", ("a", 0.0))],
)
def test_a_perturbation_is_read(text, expected):
    assert parse_perturbation(text) == expected


@pytest.mark.parametrize("text", ["a", "=1", "a=", "a=x", "a=.inf", "a=[1]", "a=true"])
def test_what_is_no_perturbation(text):
    with pytest.raises(OverrideError):
        parse_perturbation(text)


def test_a_key_is_set_or_perturbed():
    check_distinct({"a": 1}, {"b": 0.1})
    with pytest.raises(OverrideError, match="a cannot be both"):
        check_distinct({"a": 1}, {"a": 0.1})
