from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import UsageError
from valska.external_tools.pyuvsim.document import (
    TaggedMapping,
    TaggedScalar,
    TaggedSequence,
    parse_yaml,
    render_yaml,
)

TAGGED = b"""
beam: !UVBeam {filename: a.fits, nested: !Inner [1, 2]}
any: !any text
number: !any 010
"""


def test_unknown_tags_are_kept() -> None:
    document = parse_yaml(TAGGED, "f")
    assert isinstance(document["beam"], TaggedMapping)
    assert isinstance(document["beam"]["nested"], TaggedSequence)
    assert isinstance(document["any"], TaggedScalar)
    assert [document["beam"].tag, document["beam"]["nested"].tag] == ["!UVBeam", "!Inner"]
    assert document["number"] == "010"


def test_tags_are_written_back() -> None:
    once = render_yaml(parse_yaml(TAGGED, "f"))
    again = parse_yaml(once, "f")
    assert render_yaml(again) == once
    assert again == parse_yaml(TAGGED, "f")
    assert b"!UVBeam" in once
    assert again["any"].tag == "!any"


@pytest.mark.parametrize(
    "text",
    [
        b"!!python/object/apply:os.system ['true']",
        b"a: !!python/name:os.system",
        b"a: !!python/tuple [1]",
    ],
)
def test_python_objects_are_refused(text: bytes) -> None:
    with pytest.raises(UsageError, match="line 1") as caught:
        parse_yaml(text, "f")
    assert "Python objects" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"freq:\n  a: [1, 2\ntime: 3\n", "line 3, column 5"),
        (b"freq:\n\ta: 1\n", "line 2, column 1"),
        (b"a: b: c\n", "line 1, column 5"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1"),
        (b"a: *nothing\n", "line 1, column 4"),
    ],
)
def test_malformed_yaml_names_line_and_column(text: bytes, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_yaml(text, "my.yaml")
    assert caught.value.message == f"my.yaml is not valid YAML: {place}"
    assert caught.value.hint


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"a: \x00", b"\x89HDF\r\n\x1a\n\x00"])
def test_what_is_no_text_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError, match="is not valid YAML"):
        parse_yaml(text, "beam.h5")


def test_an_alias_to_itself_is_refused() -> None:
    with pytest.raises(UsageError, match="refers to itself"):
        parse_yaml(b"a: &a\n  b: *a\n", "f")


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(UsageError, match="more than"):
        parse_yaml("\n".join(lines).encode(), "f")


def test_aliases_and_merged_keys_are_written_out() -> None:
    document = parse_yaml(b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n", "f")
    rendered = render_yaml(document)
    assert yaml.safe_load(rendered) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
    }
    assert b"*" not in rendered


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.floats(allow_nan=False), st.binary()
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda below: st.one_of(
        st.lists(below), st.dictionaries(st.one_of(st.text(), st.integers()), below)
    ),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_what_is_read_is_what_was_written(document: Any) -> None:
    assert parse_yaml(render_yaml(document), "f") == document
    assert yaml.safe_load(render_yaml(document)) == document
