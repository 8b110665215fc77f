"""Documents, tables, texts and arrays: what is the same, within tolerances, or not."""

import itertools
import json
import math
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.comparison.arrays import compare_arrays
from valska.external_tools.core.comparison.formats import compare_file
from valska.external_tools.core.comparison.tally import Tally
from valska.external_tools.core.comparison.values import (
    UnreadableError,
    compare_csv,
    compare_documents,
    compare_json,
    compare_text,
    compare_yaml,
    flatten,
)
from valska.external_tools.core.comparison.verdict import (
    OutputFile,
    Part,
    Tolerances,
    Verdict,
    judged,
    worst,
)
from valska.external_tools.core.utils import sha256_file

LOOSE = Tolerances(rtol=1e-3)
IDENTICAL, EQUIVALENT, INCOMPLETE, DIFFERENT = Verdict


def output(path):
    return OutputFile(path.name, path.stat().st_size, sha256_file(path), path)


def written(folder, name, one, other):
    """Write a file into two directories; text, or what writes it."""
    found = []
    for side, content in (("a", one), ("b", other)):
        (folder / side).mkdir(exist_ok=True)
        path = folder / side / name
        content(path) if callable(content) else path.write_text(content)
        found.append(path)
    return found


def compared(folder, name, one, other, tolerances=LOOSE):
    return compare_file(*map(output, written(folder, name, one, other)), tolerances)


# --- verdicts and tolerances ---------------------------------------------------------------------


def test_the_worst_verdict_is_that_of_the_whole():
    assert worst([IDENTICAL, EQUIVALENT]) is EQUIVALENT
    assert worst([IDENTICAL, INCOMPLETE, EQUIVALENT]) is INCOMPLETE
    assert worst([DIFFERENT, INCOMPLETE]) is DIFFERENT
    assert worst([]) is INCOMPLETE
    assert [verdict.holds for verdict in Verdict] == [True, True, False, False]


def test_what_does_not_count_cannot_make_a_file_different(tmp_path):
    one, other = map(output, written(tmp_path, "x", "1", "2"))
    bad = Part(name="history", verdict=DIFFERENT, counted=False)
    good = Part(name="data", verdict=IDENTICAL)
    assert judged(one, other, "x", [bad, good]).verdict is EQUIVALENT
    assert judged(one, other, "x", [good, Part(name="y", verdict=DIFFERENT)]).verdict is DIFFERENT
    assert judged(one, other, "x", []).verdict is DIFFERENT


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1), st.floats(0, 1e300))
def test_tolerances_allow_what_numpy_allows(size, rtol, difference):
    size = abs(size)
    allowed = difference <= rtol * size
    assert Tolerances(rtol).allow(size, difference) is (allowed and math.isfinite(difference))


def test_an_infinite_difference_is_never_within_tolerances():
    assert not Tolerances(1.0).allow(math.inf, math.inf)
    tally = Tally(Tolerances(1.0))
    tally.add(math.inf, 1.0, ())
    assert tally.verdict is DIFFERENT
    assert tally.absolute.value is None
    assert tally.absolute.size == math.inf


def test_exact_tolerances_are_the_users_if_there_are_any():
    assert Tolerances().relative == 1e-9
    assert Tolerances().exact().relative == 0
    assert Tolerances(1e-4).exact().relative == 1e-4


# --- documents -----------------------------------------------------------------------------------


def test_a_number_within_the_tolerance_is_equivalent_and_told():
    part = compare_documents({"a": {"b": [1.0, 2.0]}}, {"a": {"b": [1.0, 2.001]}}, LOOSE)
    assert part.verdict is EQUIVALENT
    assert (part.differing, part.total) == (1, 2)
    assert part.absolute.index == ("a", "b", 1)
    assert part.absolute.value == pytest.approx(0.001)
    assert part.relative.value == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1.0}, {"a": 1.1}),
        ({"a": 1000}, {"a": 1001}),
        ({"a": True}, {"a": 1}),
        ({"a": "x"}, {"a": "y"}),
        ({"a": 1}, {}),
        ({}, {"a": None}),
        ([1, 2], [1]),
        ({"a": {}}, {"a": []}),
        ({"a": math.nan}, {"a": 1.0}),
        (0.0, 1e-300),
    ],
)
def test_documents_that_differ(one, other):
    part = compare_documents(one, other, LOOSE)
    assert part.verdict is DIFFERENT
    assert part.detail
    assert part.differing >= 1


def test_the_order_of_keys_and_the_kind_of_a_whole_number_do_not_count():
    part = compare_documents({"a": 1, "b": math.nan}, {"b": math.nan, "a": 1.0}, Tolerances(0.0))
    assert part.verdict is IDENTICAL
    assert part.detail == ""


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_every_document_is_identical_to_itself(document):
    again = json.loads(json.dumps(document))
    assert compare_documents(document, again, Tolerances(0.0)).verdict is IDENTICAL
    assert list(flatten(document)) or document in ({}, [])


def test_yaml_tags_count(tmp_path):
    one, other = written(
        tmp_path, "t.yaml", "0: !Airy\n  diameter: 14\n", "0: !Short {diameter: 14}\n"
    )
    part = compare_yaml(one, other, LOOSE)
    assert part.verdict is DIFFERENT
    assert "!Airy" in part.detail + str(part)
    same = written(tmp_path, "u.yaml", "0: !Airy\n  d: 14\n", "0: !Airy {d: 14}\n")
    assert compare_yaml(*same, LOOSE).verdict is IDENTICAL


@pytest.mark.parametrize("compare", [compare_json, compare_yaml, compare_csv, compare_text])
def test_what_is_no_text_is_unreadable(tmp_path, compare):
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableError):
        compare(tmp_path / "x", tmp_path / "x", LOOSE)


def test_documents_that_are_too_deep_or_too_many_are_compared_by_their_bytes(tmp_path, monkeypatch):
    deep = "[" * 800 + "1" + "]" * 800
    found = compared(tmp_path, "deep.json", deep, deep.replace("1", "2"))
    assert found.verdict is DIFFERENT
    monkeypatch.setattr("valska.external_tools.core.comparison.values._MOST_VALUES", 10**4)
    bomb = "a: &a [x, x]\n" + "".join(
        f"{two}: &{two} [*{one}, *{one}, *{one}, *{one}]\n"
        for one, two in itertools.pairwise("abcdefghijklmnopqrstuvwxyz")
    )
    found = compared(tmp_path, "bomb.yaml", bomb, bomb.replace("[x, x]", "[x, y]"))
    assert (found.verdict, found.method) == (DIFFERENT, "bytes")
    assert "more than 10000 values" in found.notes[0]


# --- tables and texts ----------------------------------------------------------------------------


def test_a_cell_that_differs_is_named_by_line_and_column(tmp_path):
    paths = written(tmp_path, "t.csv", "k,v\n1,2.0\n", "k,v\n1,2.5\n")
    part = compare_csv(*paths, LOOSE)
    assert part.verdict is DIFFERENT
    assert part.absolute.index == (2, 2)
    assert part.relative.value == pytest.approx(0.25)
    assert compare_csv(*paths, Tolerances(0.3)).verdict is EQUIVALENT


def test_words_of_a_text_that_are_numbers_have_tolerances(tmp_path):
    paths = written(tmp_path, "t.txt", "ln Z  -2.0E+02 +/- 1\n", "ln  Z -2.00001E+02 +/- 1\n")
    assert compare_text(*paths, LOOSE).verdict is EQUIVALENT
    assert compare_text(*paths, Tolerances(0.0)).verdict is DIFFERENT


def test_a_line_more_is_a_difference(tmp_path):
    part = compare_text(*written(tmp_path, "t.txt", "a\n", "a\nb\n"), LOOSE)
    assert part.verdict is DIFFERENT
    assert "1 lines" in part.detail
    assert "2 lines" in part.detail


# --- arrays --------------------------------------------------------------------------------------


def test_the_largest_difference_and_its_index():
    one = np.ones((4, 3))
    other = one.copy()
    other[2, 1], other[0, 0] = 1.5, 1.25
    part = compare_arrays("x", one, other, Tolerances(0.3))
    assert part.verdict is DIFFERENT
    assert (part.differing, part.total) == (2, 12)
    assert (part.absolute.value, part.absolute.index) == (0.5, (2, 1))
    assert (part.absolute.reference, part.absolute.new) == ("1.0", "1.5")
    assert "[2, 1]" in part.detail


def test_the_largest_relative_difference_is_elsewhere_and_zero_has_none():
    one, other = np.array([0.0, 1e-6, 100.0]), np.array([1e-9, 2e-6, 100.1])
    part = compare_arrays("x", one, other, Tolerances(2.0, atol=1e-8))
    assert part.verdict is EQUIVALENT
    assert part.absolute.index == (2,)
    assert part.relative.index == (1,)
    assert part.relative.value == pytest.approx(1.0)


def test_blocks_do_not_change_what_is_found(monkeypatch):
    rng = np.random.default_rng(1)
    one = rng.normal(size=(50, 7)) + 1j * rng.normal(size=(50, 7))
    other = one + 1e-5 * rng.normal(size=(50, 7))
    whole = compare_arrays("x", one, other, LOOSE)
    monkeypatch.setattr("valska.external_tools.core.comparison.arrays._BLOCK", 20)
    assert compare_arrays("x", one, other, LOOSE) == whole
    difference = np.abs(one - other)
    at = np.unravel_index(np.argmax(difference), difference.shape)
    assert whole.absolute.index == tuple(map(int, at))
    assert whole.absolute.value == difference.max()
    assert whole.total == 350


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (np.array([1, 2]), np.array([1, 3]), DIFFERENT),
        (np.array([True]), np.array([False]), DIFFERENT),
        (np.array([b"xx"]), np.array([b"yy"]), DIFFERENT),
        (np.zeros(3), np.zeros(4), DIFFERENT),
        (np.zeros(3), np.zeros(3, int), DIFFERENT),
        (np.array([np.nan, 1]), np.array([np.nan, 1]), IDENTICAL),
        (np.array([np.nan, 1]), np.array([2, np.nan]), DIFFERENT),
        (np.array([np.inf]), np.array([np.inf]), IDENTICAL),
        (np.array([np.inf]), np.array([1.0]), DIFFERENT),
        (np.array(1.0), np.array(1.0001), EQUIVALENT),
        (np.ones(3, np.float32), np.ones(3), IDENTICAL),
        (np.zeros((0, 3)), np.zeros((0, 3)), IDENTICAL),
    ],
)
def test_arrays(one, other, verdict):
    part = compare_arrays("x", one, other, LOOSE)
    assert part.verdict is verdict
    assert bool(part.detail) is (verdict is not IDENTICAL)


def test_whole_numbers_have_no_tolerance():
    one = np.array([10**9])
    assert compare_arrays("x", one, one + 1, Tolerances(0.1)).verdict is DIFFERENT


def test_whole_numbers_have_no_relative_difference_as_they_have_to_be_the_same():
    one, other = [10**6, 5], [10**6 + 1, 6]
    for part in (
        compare_documents(one, other, LOOSE),
        compare_arrays("x", np.array(one), np.array(other), LOOSE),
    ):
        assert (part.absolute.value, part.relative) == (1, None)
        assert "relative" not in part.detail


def test_the_same_place_is_told_once_for_both_largest_differences():
    part = compare_arrays("x", np.array([1.0, 4.0]), np.array([1.0, 5.0]), LOOSE)
    assert part.detail == (
        "1 of 2 values differ; largest difference 1 at [1]: 4.0 and 5.0 (relative: 0.25)"
    )
    part = compare_arrays("x", np.array([1.0, 4.0]), np.array([1.5, 5.0]), LOOSE)
    assert "; largest relative difference 0.5 at [0]: 1.0 and 1.5" in part.detail


def test_many_words_that_differ_are_counted_but_not_all_told():
    part = compare_arrays("x", np.zeros(10**5, bool), np.ones(10**5, bool), LOOSE)
    assert part.differing == 10**5


def test_complex_numbers_as_hdf5_has_them():
    def of(value):
        array = np.zeros(2, [("r", "<f8"), ("i", "<f8")])
        array["i"] = value
        return array

    assert compare_arrays("x", of(1.0), of(1.0001), LOOSE).verdict is EQUIVALENT
    assert compare_arrays("x", of(1.0), of(1.1), LOOSE).verdict is DIFFERENT


NAN, INF = math.nan, math.inf


def parts(real, imag):
    array = np.zeros(1, [("r", "<f8"), ("i", "<f8")])
    array["r"], array["i"] = real, imag
    return array


@pytest.mark.parametrize("of", [lambda r, i: np.array([complex(r, i)]), parts])
@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ((NAN, 1), (NAN, 1), IDENTICAL),
        ((NAN, NAN), (NAN, NAN), IDENTICAL),
        ((NAN, 1), (NAN, 2), DIFFERENT),
        ((NAN, 1), (1, NAN), DIFFERENT),
        ((NAN, 1), (NAN, NAN), DIFFERENT),
        ((1, INF), (2, INF), DIFFERENT),
        ((1, INF), (1, INF), IDENTICAL),
        ((INF, 1), (-INF, 1), DIFFERENT),
    ],
)
def test_both_parts_of_a_complex_number_count_where_one_is_not_finite(of, one, other, verdict):
    part = compare_arrays("x", of(*one), of(*other), LOOSE)
    assert part.verdict is verdict
    assert "relative" not in part.detail
    numbers = [{"a": complex(*each)} for each in (one, other)]
    assert compare_documents(*numbers, LOOSE).verdict is verdict


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ((1.0, 2), (1.0, 2), IDENTICAL),
        ((NAN, 2), (NAN, 2), IDENTICAL),
        ((NAN, 2), (NAN, 3), DIFFERENT),
        ((NAN, 2), (1.0, 2), DIFFERENT),
    ],
)
def test_fields_of_a_compound_type_have_to_be_the_same(one, other, verdict):
    kind = [("a", float), ("b", int), ("c", float, 3)]
    arrays = [np.array([(*each, (1.0, NAN, 3.0))] * 2, kind) for each in (one, other)]
    assert compare_arrays("x", *arrays, LOOSE).verdict is verdict


def test_times_that_are_none_are_the_same():
    one = np.array(["NaT", "2026-01-01"], "M8[D]")
    assert compare_arrays("x", one, one.copy(), LOOSE).verdict is IDENTICAL
    assert compare_arrays("x", one, one[::-1], LOOSE).verdict is DIFFERENT


def test_whole_numbers_that_no_float_tells_apart_differ_by_what_they_differ():
    one = np.array([2**63 + 1], np.uint64)
    part = compare_arrays("x", one, one + np.uint64(1), LOOSE)
    assert (part.verdict, part.absolute.value) == (DIFFERENT, 1)


@pytest.mark.parametrize(
    ("one", "other", "rtol", "verdict"),
    [
        (np.complex64, np.complex128, None, DIFFERENT),
        (np.complex64, np.complex128, 1e-6, EQUIVALENT),
        (np.float64, np.complex128, 1e-6, IDENTICAL),
    ],
)
def test_numbers_of_another_precision_are_compared_by_value_and_the_type_is_told(
    one, other, rtol, verdict
):
    part = compare_arrays("x", np.full(3, 1.1, one), np.full(3, 1.1, other), Tolerances(rtol))
    assert part.verdict is verdict
    told = f"types {np.dtype(one)} and {np.dtype(other)}"
    assert (told in part.detail) is (verdict is not IDENTICAL)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_arrays_without_elements_are_the_same_if_their_shapes_are(shape):
    one = np.zeros(shape)
    part = compare_arrays("x", one, np.ones(shape), LOOSE)
    assert (part.verdict, part.total) == (IDENTICAL, 0)
    assert compare_arrays("x", one, np.zeros((1, *shape)), LOOSE).verdict is DIFFERENT


# --- files by their format -----------------------------------------------------------------------


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def npz_compressed(**arrays):
    return lambda path: np.savez_compressed(path, **arrays)


def h5(value, **attributes):
    def write(path):
        with h5py.File(path, "w") as file:
            file["group/x"] = np.asarray(value)
            file["group"].attrs.update(attributes)

    return write


def test_files_with_the_same_bytes_are_identical_whatever_they_are(tmp_path):
    found = compared(tmp_path, "x.unknown", "1\n", "1\n")
    assert found.verdict is IDENTICAL
    assert found.parts == ()


def test_an_archive_of_arrays_written_otherwise_is_equivalent(tmp_path):
    found = compared(tmp_path, "x.npz", npz(a=np.ones(3)), npz_compressed(a=np.ones(3)))
    assert found.verdict is EQUIVALENT
    assert [part.verdict for part in found.parts] == [IDENTICAL]
    assert "the bytes differ in how they are written" in found.notes[0]


def test_an_archive_that_lacks_an_array_differs(tmp_path):
    found = compared(tmp_path, "x.npz", npz(a=np.ones(3), b=np.ones(3)), npz(a=np.ones(3)))
    assert found.verdict is DIFFERENT
    assert found.parts[1].detail == "only the reference has it"


def test_hdf5_by_datasets_and_attributes(tmp_path):
    found = compared(tmp_path, "x.h5", h5([1.0], unit="Jy"), h5([1.0001], unit="Jy"))
    assert found.verdict is EQUIVALENT
    assert [part.name for part in found.parts] == ["group/x", "attributes"]
    found = compared(tmp_path, "y.h5", h5([1.0], unit="Jy"), h5([1.0], unit="K"))
    assert found.verdict is DIFFERENT
    assert "'Jy' and 'K'" in found.parts[1].detail


@pytest.mark.parametrize(
    ("value", "verdict"), [(1.0, IDENTICAL), (1 + 1e-12, EQUIVALENT), (2.0, DIFFERENT)]
)
def test_numbers_in_attributes_are_compared_as_those_of_arrays(tmp_path, value, verdict):
    one, other = h5([1.0], fill=[np.nan, 1.0]), h5([1.0 + 1e-12], fill=[np.nan, value])
    found = compared(tmp_path, "x.h5", one, other)
    assert [part.verdict for part in found.parts] == [EQUIVALENT, verdict]


def more(change):
    """Write a file with two arrays, and what `change` adds to it."""

    def write(path):
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = [1.0, 2.0], [1.0, 2.0]
            change(file)

    return write


def scale(name, note):
    def change(file):
        file[name].make_scale("time")
        file["z"] = np.zeros((2, 2))
        for dimension in file["z"].dims:
            dimension.attach_scale(file[name])
        file.attrs["note"] = note

    return change


def refer(name):
    return lambda file: file.attrs.update(to=file[name].ref)


def put(value):
    return lambda file: file.update({"more": value()})


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (lambda file: None, lambda file: file.create_group("more"), "is there"),
        (lambda file: None, lambda file: file.update(more=file["x"]), "is there"),
        (put(lambda: h5py.SoftLink("/x")), put(lambda: h5py.SoftLink("/y")), "/y"),
        (
            put(lambda: h5py.ExternalLink("a.h5", "/x")),
            put(lambda: h5py.ExternalLink("b.h5", "/x")),
            "b.h5",
        ),
        (refer("x"), refer("y"), "'reference to /x' and 'reference to /y'"),
    ],
)
def test_names_that_lead_elsewhere_in_hdf5_differ(tmp_path, one, other, told):
    found = compared(tmp_path, "x.h5", more(one), more(other))
    assert found.verdict is DIFFERENT
    assert any(told in part.detail for part in found.parts)


def test_references_that_lead_to_the_same_are_the_same(tmp_path):
    found = compared(tmp_path, "x.h5", more(scale("x", 1.0)), more(scale("x", 1 + 1e-12)))
    assert found.verdict is EQUIVALENT


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([[1.0, np.nan], [3.0]], EQUIVALENT),
        ([[1.0, np.nan], [4.0]], DIFFERENT),
        ([[1.0, np.nan], [3.0, 4.0]], DIFFERENT),
    ],
)
def test_arrays_of_any_length_in_hdf5(tmp_path, rows, verdict):
    def ragged(rows, note):
        def change(file):
            made = file.create_dataset("rows", (2,), h5py.vlen_dtype("f8"))
            for number, row in enumerate(rows):
                made[number] = row
            file.attrs["note"] = note

        return more(change)

    one, other = ragged([[1.0, np.nan], [3.0]], 1.0), ragged(rows, 1 + 1e-12)
    found = compared(tmp_path, "x.h5", one, other)
    assert (found.verdict, found.method) == (verdict, "HDF5")


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("x.json", '{"a": 1, "a": 2}', '{"a": 3, "a": 2}'),
        ("x.yaml", "a: 1\na: 2\n", "a: 3\na: 2\n"),
        ("x.yaml", "b: {a: 1, a: 2}\n", "b: !T {a: 3, a: 2}\n"),
    ],
)
def test_a_key_that_stands_twice_hides_nothing(tmp_path, name, one, other):
    found = compared(tmp_path, name, one, other)
    assert (found.verdict, found.method) == (DIFFERENT, "bytes")
    assert "'a'" in found.notes[0]
    assert "stands twice" in found.notes[0]


def test_yaml_that_merges_a_mapping_is_read(tmp_path):
    base = "a: &a {x: 1}\nb:\n  <<: *a\n  x: %s\n"
    found = compared(tmp_path, "x.yaml", base % 2, base % " 2")
    assert (found.verdict, found.method) == (EQUIVALENT, "YAML")


@pytest.mark.parametrize(
    ("name", "one", "other", "verdict"),
    [
        ("x.json", '{"a": NaN}', '{"a":  NaN}', EQUIVALENT),
        ("x.json", '{"a": NaN}', '{"a": 1.0}', DIFFERENT),
        ("x.json", '{"a": Infinity}', '{"a": -Infinity}', DIFFERENT),
        ("x.json", f"[{10**30}]", f"[{10**30 + 1}]", DIFFERENT),
        ("x.txt", "a 1\r\nb\r\n", "a 1\nb\n", EQUIVALENT),
        ("x.csv", "a,b\r\n1,2\r\n", "a,b\n1,2\n", EQUIVALENT),
        ("x.csv", 'a,"x\ny"\n', 'a,"xy"\n', DIFFERENT),
        ("x.txt", "a\n", "a", EQUIVALENT),
        ("x.txt", "a\nb\n", "b\na\n", DIFFERENT),
        ("x.txt", "1\n2\n3\n", "1\n3\n", DIFFERENT),
        ("x.txt", "a\n", "\0\1\2", DIFFERENT),
    ],
)
def test_texts_and_documents(tmp_path, name, one, other, verdict):
    paths = written(
        tmp_path,
        name,
        lambda path: path.write_bytes(one.encode()),
        lambda path: path.write_bytes(other.encode()),
    )
    assert compare_file(*map(output, paths), LOOSE).verdict is verdict


def test_a_binary_file_of_a_texts_name_is_compared_by_its_bytes(tmp_path):
    found = compared(tmp_path, "x.txt", "a\n", lambda path: path.write_bytes(b"\xff\x00"))
    assert (found.verdict, found.method) == (DIFFERENT, "bytes")


def damaged(data, seed):
    """Return a file's bytes with some of them changed, or without its end."""
    rng = np.random.default_rng(seed)
    if seed % 4 == 0:
        return data[: rng.integers(len(data))]
    found = bytearray(data)
    for place in rng.integers(len(data), size=20):
        found[place] = int(rng.integers(256))
    return bytes(found)


@pytest.mark.parametrize("name", ["x.h5", "x.npz", "x.npy"])
def test_no_damage_of_a_file_is_a_fault_of_the_comparison(tmp_path, name):
    write = {"x.h5": h5(np.ones(50), unit="Jy"), "x.npz": npz(a=np.ones(3)),
             "x.npy": lambda path: np.save(path, np.ones(9))}[name]  # fmt: skip
    one, other = written(tmp_path, name, write, write)
    data = one.read_bytes()
    for seed in range(16):
        other.write_bytes(damaged(data, seed))
        for pair in ((one, other), (other, one)):
            found = compare_file(*map(output, pair), LOOSE)
            assert (found.verdict is IDENTICAL) is (other.read_bytes() == data)


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.h5", "x.json", "x.yaml"])
def test_a_damaged_file_is_compared_by_its_bytes(tmp_path, name):
    found = compared(tmp_path, name, "{[1: }", "{[2: }")
    assert found.verdict is DIFFERENT
    assert found.method == "bytes"
    assert "only bytes were compared" in found.notes[0]


def test_pickled_objects_are_not_read(tmp_path):
    def pickled(value):
        return lambda path: np.save(path, np.array([value], object), allow_pickle=True)

    found = compared(tmp_path, "x.npy", pickled("a"), pickled("b"))
    assert (found.verdict, found.method) == (DIFFERENT, "bytes")


def test_an_unknown_format_differs_and_it_is_said_that_only_bytes_were_compared(tmp_path):
    found = compared(tmp_path, "x.miriad", "a", "bc")
    assert found.verdict is DIFFERENT
    assert found.parts[0].detail == "they differ (1 and 2 bytes)"


def test_a_file_of_which_only_the_digest_is_left(tmp_path):
    one, other = written(tmp_path, "x.json", "[1]", "[2]")
    gone = OutputFile("x.json", 3, sha256_file(one), None)
    assert compare_file(gone, output(one), LOOSE).verdict is IDENTICAL
    found = compare_file(gone, output(other), LOOSE)
    assert found.verdict is INCOMPLETE
    assert "the file of the reference is not there" in found.notes[0]


def test_without_the_packages_it_is_not_said_that_files_differ(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    found = compared(tmp_path, "x.npz", npz(a=np.ones(3)), npz_compressed(a=np.ones(3)))
    assert found.verdict is INCOMPLETE
    assert "not installed: h5py (pip install 'valska[plot]')" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("a.json", '{"a": %s}' % ("9" * 400), '{"a": 1.5}'),
        ("a.json", "[1e999]", "[2e999]"),
        ("a.txt", "9" * 400, "1.5"),
        ("a.txt", "9" * 5000, "8" * 5000),
        ("a.txt", "1_0", "10"),
        ("a.csv", "a" * 200_000, "b"),
    ],
)
def test_numbers_and_cells_that_are_too_large_are_different_not_a_fault(tmp_path, name, one, other):
    paths = written(tmp_path, name, one, other)
    found = compare_file(*map(output, paths), LOOSE)
    assert found.verdict is DIFFERENT
