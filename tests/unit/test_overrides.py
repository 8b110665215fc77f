import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.overrides import OverrideError, apply_overrides, parse_override

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
