"""Points of a sweep: every way to name them, and names that never collide."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.run_directory import check_name
from valska.external_tools.core.sweep.planning.labels import MAX_LENGTH, label_of
from valska.external_tools.core.sweep.planning.points import (
    DEFAULT_FRACTIONS,
    Point,
    points_from_options,
)
from valska.external_tools.core.sweep.planning.values import PointError, split_values


def labels(**options):
    return [point.label for point in points_from_options(**options)]


def values(key="a", **options):
    return [point.values[key] for point in points_from_options(**options)]


def typed(found):
    return [(type(value), value) for value in found]


# --- Values ---------------------------------------------------------------------------------------


def test_values_are_yaml_as_for_an_override():
    option = "a=1,1.0,'1',1e8,true,null,[1, 2.5],{b: 2},plain,\"x,y\",.5"
    expected = [1, 1.0, "1", 1e8, True, None, [1, 2.5], {"b": 2}, "plain", "x,y", 0.5]
    assert typed(values(values=[option])) == typed(expected)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1,2", ["1", "2"]),
        ("[1,2],3", ["[1,2]", "3"]),
        ("{a: [1,2], b: 3}", ["{a: [1,2], b: 3}"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("it's,so", ["it's", "so"]),
        ("['a]',b],c", ["['a]',b]", "c"]),
    ],
)
def test_commas_in_brackets_and_quotes_do_not_separate(text, parts):
    assert split_values("a", text) == parts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"values": ["a=1,,2"]}, "value 2 of a is empty"),
        ({"values": ["a="]}, "value 1 of a is empty"),
        ({"values": ["a=[1,2"]}, "does not close"),
        ({"values": ["a=1]"]}, "does not close"),
        ({"values": ["a=1,{b: c: d}"]}, r"a \(value 2\) is no YAML"),
        ({"values": ["a=1,.nan"]}, "value 2 of a cannot be written"),
        ({"values": ["a=2020-01-01"]}, "value 1 of a cannot be written"),
        ({"values": ["a={1: 2}"]}, "value 1 of a cannot be written"),
        ({"values": ["=1"]}, "not of the form"),
        ({"values": ["a"]}, "not of the form"),
        ({"values": ["a..b=1"]}, "not of the form"),
        ({"values": ["a=1"], "ranges": ["a=1:2:2"]}, "a is swept twice"),
        ({"values": ["a=1"], "perturb": ["a"]}, "a is swept twice"),
        ({}, "a sweep of what"),
        ({"values": ["a=1,2"], "perturb": ["b=0.1,x"]}, "b is no number"),
        ({"perturb": ["b=.inf"]}, "b is no number"),
        ({"perturb": [".b"]}, "names no key"),
    ],
)
def test_what_is_not_usable_is_named(options, said):
    with pytest.raises(UsageError, match=said):
        points_from_options(**options)


def test_a_key_can_be_taken_away():
    (point,) = points_from_options(values=["a=null"])
    assert point == Point("a_null", {"a": None})


def test_values_from_a_file_one_on_each_line(tmp_path):
    file = tmp_path / "widths=all.txt"
    file.write_text("# beam\n9.3\n\n 1e1 \n[1, 2]\n")
    assert values("b.a", values_files=[f"b.a={file}"]) == [9.3, 10.0, [1, 2]]


def test_values_from_a_mapping(tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text("a: [1, 2]\nb.c: [1e8]\n")
    assert labels(values_files=[str(file)]) == ["a_1_c_100000000.0", "a_2_c_100000000.0"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "does not map"), ("- 1", "does not map"), ("a: 1", "a is no key"), ("a: []", "a is no")],
)
def test_a_file_of_another_form(tmp_path, text, said):
    file = tmp_path / "values.yaml"
    file.write_text(text)
    with pytest.raises(PointError, match=said):
        points_from_options(values_files=[str(file)])


def test_a_file_without_values(tmp_path):
    (tmp_path / "none").write_text("# nothing\n")
    with pytest.raises(PointError, match="holds no value"):
        points_from_options(values_files=[f"a={tmp_path / 'none'}"])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        points_from_options(values_files=[f"a={tmp_path / 'none'}"])


# --- Ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:0.3:4", [0.0, 0.1, 0.2, 0.3]),
        ("0:1:5", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("1:5:5", [1, 2, 3, 4, 5]),
        ("5:1:3", [5, 3, 1]),
        ("1.0:3.0:3", [1.0, 2.0, 3.0]),
        ("1e8:2e8:3", [1e8, 1.5e8, 2e8]),
        ("-.5:.5:3", [-0.5, 0.0, 0.5]),
        ("2:2:1", [2]),
        ("1_000:2_000:2", [1000, 2000]),
        ("0:1:4", [0.0, 1 / 3, 2 / 3, 1.0]),
    ],
)
def test_ranges_include_both_ends_and_are_exact(text, expected):
    assert typed(values(ranges=[f"a={text}"])) == typed(expected)


@pytest.mark.parametrize(
    "text", ["1:2", "1:2:3:4", "1:2:1", "1:2:0", "1:2:x", "a:2:3", "1:inf:3", "1:1e999999999:3"]
)
def test_ranges_that_are_none(text):
    with pytest.raises(PointError, match="a"):
        points_from_options(ranges=[f"a={text}"])


@given(
    start=st.decimals(-1000, 1000, places=3),
    step=st.decimals("0.001", 10, places=3),
    count=st.integers(2, 60),
)
def test_a_range_has_the_digits_of_its_steps(start, step, count):
    stop = start + step * (count - 1)
    found = values(ranges=[f"a={start}:{stop}:{count}"])
    assert found == [float(start + step * i) for i in range(count)]


def test_too_many_points_are_refused_before_they_are_made():
    with pytest.raises(PointError, match="points are more than"):
        points_from_options(ranges=["a=1:1000:1000", "b=1:1000:1000", "c=1:1000:1000"])
    with pytest.raises(PointError, match="points are more than"):
        points_from_options(ranges=["a=1:2:999999999999"])


# --- Perturbations --------------------------------------------------------------------------------


def test_perturbations_by_default():
    points = points_from_options(perturb=["beam.fwhm_deg"])
    assert [point.perturbations for point in points] == [
        {"beam.fwhm_deg": fraction} for fraction in DEFAULT_FRACTIONS
    ]
    assert points[1].label == "fwhm_deg_x-0.05"
    assert points[4].label == "fwhm_deg_x0"
    assert {point.label for point in points} == {
        f"fwhm_deg_x{text}"
        for text in ("-0.1", "-0.05", "-0.02", "-0.01", "0", "0.01", "0.02", "0.05", "0.1")
    }


def test_zero_in_every_writing_is_one_point():
    with pytest.raises(PointError, match="points 1 and 2 are equal"):
        points_from_options(perturb=["a=0,-0.0"])


def test_perturbations_with_values():
    assert labels(values=["b=1,2"], perturb=["a=0.5,1e-3"]) == [
        "b_1_a_x0.5", "b_1_a_x0.001", "b_2_a_x0.5", "b_2_a_x0.001",
    ]  # fmt: skip


# --- Several keys ---------------------------------------------------------------------------------


def test_every_combination():
    assert labels(values=["a=1,2", "b=x,y"]) == ["a_1_b_x", "a_1_b_y", "a_2_b_x", "a_2_b_y"]


def test_pairs():
    assert labels(values=["a=1,2", "b=y,z"], zipped=True) == ["a_1_b_y", "a_2_b_z"]


def test_pairs_of_unequal_lengths():
    with pytest.raises(PointError, match="a 2, b 3"):
        points_from_options(values=["a=1,2"], ranges=["b=1:3:3"], zipped=True)


def test_keys_stand_for_their_last_component_where_that_is_unique():
    assert labels(values=["s.a=1", "t.b=2"]) == ["a_1_b_2"]
    assert labels(values=["s.a=1", "t.a=2"]) == ["s.a_1_t.a_2"]
    assert labels(values=["freq.array.0=1"]) == ["array.0_1"]


# --- Tables ---------------------------------------------------------------------------------------


def table(folder, text, name="points.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_table(tmp_path):
    path = table(tmp_path, '\ufefflabel, a.x ,b\nref,1,"[1, 2]"\n\n,1.0,true\n')
    assert points_from_options(table=path) == (
        Point("ref", {"a.x": 1, "b": [1, 2]}),
        Point("x_1.0_b_true", {"a.x": 1.0, "b": True}),
    )


def test_a_list_in_yaml(tmp_path):
    path = table(tmp_path, "- {a: 1, label: one}\n- {a: 1e8}\n- {a: 3, label: 3}\n", "p.yaml")
    assert labels(table=path) == ["one", "a_100000000.0", "3"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a\n", "no points"),
        ("a,b\n1\n", "point 1 has 1 columns"),
        ("a,b\n1,2\n1,\n", "point 2 has no value of b"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("a,\n1,2\n", "'' in its first line is no key"),
        ("a\n[1\n", r"a \(point 1 of points.csv\) is no YAML"),
        ("a\n.inf\n", "value 1 of a cannot be written"),
        ("label\nx\n", "point 1 has no key"),
        ("label,a\n../x,1\n", "label of point 1 '../x' is not usable"),
        ("a\n1\n1\n", "points 1 and 2 are equal: a=1"),
        ("label,a\nx,1\nx,2\n", r"points 1 and 2 have the same name: x \(a=1\) and x \(a=2\)"),
        ("label,a\nRef,1\nref,2\n", "have the same name"),
        ("label,a\nx,1\ny,1\n", "points 1 and 2 are equal"),
        ('a\n"1\n', "is no CSV"),
    ],
)
def test_tables_that_are_not_usable(tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        points_from_options(table=table(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "no list of points"),
        ("- 1", "point 1 does not map"),
        ("- {1: 2}", "point 1 does not map"),
        ("- {a: 1, label: [x]}", "label"),
        ("- {a: 1, label: true}", "label"),
        ("[", r"/p\.yaml is no usable YAML: line 1: "),
        ("- {a: 1}\n- b: 1\n  c: : 2", r"/p\.yaml is no usable YAML: line 3: "),
        ("- {a: 1}\n- a: 1\n  b: 2\n  a: 3", r"/p\.yaml .* line 4: the key 'a' stands twice"),
        ("- a: {b: 1,\n  b: 2}", r"line 2: the key 'b' stands twice"),
        ("- a: 2026-99-99", "p.yaml is no usable YAML: month"),
    ],
)
def test_lists_that_are_not_usable(tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        points_from_options(table=table(tmp_path, text, "p.yaml"))


def test_a_table_stands_alone(tmp_path):
    with pytest.raises(PointError, match="goes with no other"):
        points_from_options(table=table(tmp_path, "a\n1\n"), values=["b=1"])


def test_a_table_that_is_not_utf8(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"a\n\xff\n")
    with pytest.raises(PointError, match="not UTF-8"):
        points_from_options(table=tmp_path / "p.csv")


# --- Names ----------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.sampled_from(["1", "1.0", "true", "null", "nan", "x5", "x-0.1", "a-0123abcd", "1e5"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def name(*found):
    keys = [f"k{n}" for n in range(len(found))]
    return label_of(keys)(dict(zip(keys, found, strict=True)), {})


def same(one, other):
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(VALUES, VALUES)
def test_different_values_have_different_names(one, other):
    assume(not same(one, other))
    assert name(one) != name(other)


@given(SCALARS, SCALARS, SCALARS, SCALARS)
def test_different_pairs_of_values_have_different_names(a, b, c, d):
    assume(not same([a, b], [c, d]))
    assert name(a, b) != name(c, d)


@given(SCALARS, st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_has_no_name_of_a_perturbation(value, fraction):
    assert name(value) != label_of(["k0"])({}, {"k0": fraction})


@given(VALUES, VALUES)
def test_names_are_usable_and_not_too_long(one, other):
    label = name(one, other)
    assert check_name(label, "label") == label
    assert len(label) <= MAX_LENGTH


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3))
def test_names_keep_every_digit(numbers):
    parts = name(*numbers).split("_")
    assert [float(part) for part in parts[1::2]] == numbers


@given(st.lists(SCALARS, min_size=2, max_size=6))
def test_a_name_does_not_depend_on_other_points(found):
    assume(len({name(value).casefold() for value in found}) == len(found))
    rows = [{"k0": value} for value in found]
    text = json.dumps(rows)
    points = points_from_options(table=Path("p.yaml"), read=lambda path: text.encode())
    assert [point.label for point in points] == [name(value) for value in found]


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=200).filter(lambda k: "." not in k)
)
def test_any_key_makes_a_usable_name(key):
    assert check_name(label_of([key])({key: 1}, {}), "label")


def test_long_names_are_told_apart():
    long = int("1" * 120)
    assert name(long) != name(long + 1)
    assert name(long).startswith("k0_1111")


def test_names_that_differ_in_case_only_are_refused():
    with pytest.raises(PointError, match=r"a_Gauss .* a_gauss"):
        points_from_options(values=["a=Gauss,gauss"])


def test_fractions_are_read_as_people_write_them():
    points = points_from_options(perturb=["b=-.1,+.05,1e-2"])
    assert [point.perturbations["b"] for point in points] == [-0.1, 0.05, 0.01]
