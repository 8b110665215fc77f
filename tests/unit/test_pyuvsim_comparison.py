"""Two UVH5 files: which part differs, by how much, and what of the history does not count."""

import sys

import h5py
import numpy as np
import pytest
from uvh5 import write_uvh5

from valska.external_tools.core.comparison.verdict import (
    OutputFile,
    RunFiles,
    Tolerances,
    Verdict,
)
from valska.external_tools.core.tool import Compares
from valska.external_tools.core.utils import sha256_file
from valska.external_tools.pyuvsim import TOOL
from valska.external_tools.pyuvsim.comparison import compare_history, compare_uvh5

HISTORY = (
    "Simulated with pyuvsim version: 1.4.2. Sources from source list(s): [rasg.txt]. Based on "
    "config files: obsparam.yaml, ../config/telescope.yaml, ../inputs/layout.csv Npus = 1.  "
    "Read/written with pyradiosky version: 1.1.2.  Read/written with pyuvdata version: 3.2.8."
)


def make(folder, name, *, history=HISTORY, change=lambda file: None):
    path = folder / f"{name}.uvh5"
    write_uvh5(path)
    with h5py.File(path, "a") as file:
        file["Data/nsamples"] = np.ones(file["Data/visdata"].shape, np.float32)
        file["Header/history"] = np.bytes_(history)
        file["Header/uvw_array"] = np.ones((len(file["Header/time_array"]), 3))
        file["Header/extra_keywords/telecfg"] = np.bytes_("../config/telescope.yaml")
        file["Header/phase_center_catalog/0/cat_pm_ra"] = h5py.Empty("f4")
        change(file)
    return OutputFile("vis.uvh5", path.stat().st_size, sha256_file(path), path)


def put(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def add(name, amount, index=()):
    def change(file):
        file[name][index] = file[name][index] + amount

    return change


def compared(folder, change=lambda file: None, *, history=HISTORY, **tolerances):
    one = make(folder, "one")
    other = make(folder, "other", history=history, change=change)
    found = compare_uvh5(one, other, Tolerances(**tolerances))
    return found, {part.name: part for part in found.parts}


def test_pyuvsim_compares():
    assert isinstance(TOOL, Compares)


def test_with_other_ranks_only_the_history_differs(tmp_path):
    found, parts = compared(tmp_path, history=HISTORY.replace("Npus = 1", "Npus = 2"))
    assert found.verdict is Verdict.EQUIVALENT
    assert not parts["history"].counted
    assert parts["history"].detail == "MPI ranks: 1 and 2"
    assert {name for name, part in parts.items() if part.verdict is not Verdict.IDENTICAL} == {
        "history"
    }
    assert {"data", "flags", "nsamples", "times", "frequencies", "antenna positions"} <= set(parts)
    assert "only history differs" in found.notes[0]


def test_another_visibility_is_found_with_its_place(tmp_path):
    found, parts = compared(tmp_path, add("Data/visdata", 0.5, (7, 2, 0)))
    assert found.verdict is Verdict.DIFFERENT
    data = parts["data"]
    assert (data.differing, data.absolute.value, data.absolute.index) == (1, 0.5, (7, 2, 0))
    assert data.relative.value == pytest.approx(0.5 / abs(complex(data.absolute.reference)))


def test_visibilities_within_the_tolerance_are_equivalent(tmp_path):
    found, parts = compared(tmp_path, add("Data/visdata", 1e-10, (0, 0, 0)))
    assert found.verdict is Verdict.EQUIVALENT
    assert parts["data"].verdict is Verdict.EQUIVALENT
    assert "allowed: 1e-09 of each visibility" in found.notes[0]
    assert compared_again(tmp_path, rtol=0.0).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("name", "rounding", "much"),
    [("Header/uvw_array", 1e-13, 1e-9), ("Header/time_array", 1e-9, 1e-7)],
)
def test_axes_may_differ_by_rounding_alone(tmp_path, name, rounding, much):
    assert compared(tmp_path, add(name, rounding, (3,)))[0].verdict is Verdict.EQUIVALENT
    assert compared(tmp_path, add(name, much, (3,)))[0].verdict is Verdict.DIFFERENT


def test_a_relative_tolerance_does_not_hold_for_times(tmp_path):
    found, parts = compared(tmp_path, add("Header/time_array", 0.1, (3,)), rtol=1e-3)
    assert found.verdict is Verdict.DIFFERENT
    assert parts["times"].absolute.index == (3,)
    assert compared_again(tmp_path, rtol=1e-3, atol=0.2).verdict is Verdict.EQUIVALENT


def compared_again(folder, **tolerances):
    files = []
    for name in ("one", "other"):
        path = folder / f"{name}.uvh5"
        files.append(OutputFile("vis.uvh5", path.stat().st_size, sha256_file(path), path))
    return compare_uvh5(*files, Tolerances(**tolerances))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (put("Header/freq_array", 1.01e8 + 1e6 * np.arange(4)), "frequencies"),
        (add("Header/time_array", 1e-4, slice(None)), "times"),
        (add("Header/antenna_positions", 0.1, (1, 1)), "antenna positions"),
        (add("Header/uvw_array", 0.1, (1, 1)), "baselines (uvw)"),
        (put("Header/polarization_array", np.array([-6])), "polarizations"),
        (add("Data/nsamples", 1, (0, 0, 0)), "nsamples"),
        (put("Header/vis_units", np.bytes_("K")), "Header/vis_units"),
        (put("Header/ant_1_array", np.zeros(12, int)), "baselines (first antenna)"),
        (put("Data/visdata", np.zeros((12, 5, 1), complex)), "data"),
        (lambda file: file.__delitem__("Header/latitude"), "Header/latitude"),
        (put("Header/phase_center_catalog/0/cat_pm_ra", 1.0),
         "Header/phase_center_catalog/0/cat_pm_ra"),
        (put("Header/extra_keywords/telecfg", np.bytes_("other.yaml")),
         "Header/extra_keywords/telecfg"),
    ],
)  # fmt: skip
def test_each_part_is_named_when_it_differs(tmp_path, change, name):
    found, parts = compared(tmp_path, change)
    assert found.verdict is Verdict.DIFFERENT
    assert {one for one, part in parts.items() if part.verdict is Verdict.DIFFERENT} == {name}
    assert parts[name].detail


def reordered(file):
    """Write the baselines in another order, as another number of ranks could."""
    for name in ("Data/visdata", "Data/flags", "Data/nsamples", "Header/uvw_array",
                 "Header/time_array", "Header/ant_1_array", "Header/ant_2_array"):  # fmt: skip
        file[name][()] = file[name][()][::-1]


def test_another_order_of_the_baselines_is_another_file(tmp_path):
    found, parts = compared(tmp_path, reordered)
    assert found.verdict is Verdict.DIFFERENT
    different = {name for name, part in parts.items() if part.verdict is Verdict.DIFFERENT}
    assert "data" in different
    assert any(name.startswith("baselines") for name in different)


def not_a_number(file):
    file["Data/visdata"][3, 1, 0] = complex(np.nan, 1)


def test_a_visibility_that_is_no_number_is_found_and_is_the_same_as_itself(tmp_path):
    found, parts = compared(tmp_path, not_a_number)
    assert found.verdict is Verdict.DIFFERENT
    assert parts["data"].absolute.index == (3, 1, 0)
    assert parts["data"].absolute.value is None
    one = make(tmp_path, "one", change=not_a_number)
    other = make(tmp_path, "other", change=not_a_number, history="x")
    again = compare_uvh5(one, other, Tolerances())
    assert again.verdict is Verdict.EQUIVALENT

    def other_part(file):
        file["Data/visdata"][3, 1, 0] = complex(np.nan, 2)

    third = make(tmp_path, "third", change=other_part)
    assert compare_uvh5(one, third, Tolerances()).verdict is Verdict.DIFFERENT


def test_visibilities_of_single_precision_are_told_to_be_so(tmp_path):
    def single(file):
        data = file["Data/visdata"][()].astype(np.complex64) * np.complex64(1 + 1e-7)
        del file["Data/visdata"]
        file["Data/visdata"] = data

    found, parts = compared(tmp_path, single)
    assert found.verdict is Verdict.DIFFERENT
    assert "types complex128 and complex64" in parts["data"].detail
    assert compared_again(tmp_path, rtol=1e-5).verdict is Verdict.EQUIVALENT


def test_an_entry_more_differs_and_is_named(tmp_path):
    found, parts = compared(tmp_path, lambda file: file.update({"Data/more": np.ones(3)}))
    assert found.verdict is Verdict.DIFFERENT
    assert parts["Data/more"].detail == "only the new run has it"


def test_a_file_that_was_cut_short_or_written_over_is_no_fault(tmp_path):
    one = make(tmp_path, "one")
    data = one.file.read_bytes()
    path = tmp_path / "bad.uvh5"
    for place in range(0, len(data), len(data) // 8):
        cut = data[:place]
        over = data[:place] + b"\xff" * 16 + data[place + 16 :]
        for content in (cut, over):
            path.write_bytes(content)
            bad = OutputFile("vis.uvh5", len(content), sha256_file(path), path)
            for pair in ((one, bad), (bad, one)):
                assert compare_uvh5(*pair, Tolerances()).verdict in Verdict


def test_flags_have_to_be_the_same_whatever_the_tolerance(tmp_path):
    def flag(file):
        file["Data/flags"][3, 1, 0] = True

    found, parts = compared(tmp_path, flag, rtol=10.0)
    assert found.verdict is Verdict.DIFFERENT
    assert "[3, 1, 0]" in parts["flags"].detail


def test_a_configuration_in_another_directory_is_told_and_not_counted(tmp_path):
    change = put("Header/extra_keywords/telecfg", np.bytes_("/elsewhere/telescope.yaml"))
    found, parts = compared(tmp_path, change)
    assert found.verdict is Verdict.EQUIVALENT
    assert "another directory" in parts["Header/extra_keywords/telecfg"].detail


def test_a_keyword_that_names_no_configuration_counts_as_a_whole(tmp_path):
    name = "Header/extra_keywords/telecfg"
    files = [
        make(tmp_path, unit[0], change=put(name, np.bytes_(unit))) for unit in ("K/beam", "Jy/beam")
    ]
    assert compare_uvh5(*files, Tolerances()).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Npus = 1", "Npus = 16", ["MPI ranks: 1 and 16"]),
        ("version: 1.4.2", "version: 1.5.0.dev3", ["version of pyuvsim: 1.4.2 and 1.5.0.dev3"]),
        ("version: 3.2.8", "version: 3.2.9", ["version of pyuvdata: 3.2.8 and 3.2.9"]),
        ("../config/tel", "/a/config/tel", ["paths: ", "/a/config/telescope.yaml"]),
        ("Based on", "Made of", ["words: Based on and Made of"]),
    ],
)
def test_what_a_history_says_otherwise_is_explained(old, new, told):
    part = compare_history(HISTORY, HISTORY.replace(old, new))
    assert not part.counted
    assert part.verdict is Verdict.EQUIVALENT
    assert all(words in part.detail for words in told)
    assert part.detail.count(";") == 0


def test_a_history_with_all_of_that_is_explained_by_kinds():
    other = HISTORY.replace("Npus = 1", "Npus = 2").replace("3.2.8", "3.3").replace("rasg.txt", "x")
    detail = compare_history(HISTORY, other).detail
    assert detail.split("; ")[:2] == [
        "MPI ranks: 1 and 2",
        "version of pyuvdata: 3.2.8 and 3.3",
    ]
    assert "rasg.txt" in detail


def test_values_written_in_another_way_are_equivalent(tmp_path):
    def deflate(file):
        data = file["Data/visdata"][()]
        del file["Data/visdata"]
        file.create_dataset("Data/visdata", data=data, compression="gzip")

    found, _ = compared(tmp_path, deflate)
    assert found.verdict is Verdict.EQUIVALENT
    assert "the bytes differ in how they are written" in found.notes[0]


def test_what_is_no_uvh5_is_compared_by_its_bytes(tmp_path):
    one = make(tmp_path, "one")
    path = tmp_path / "bad.uvh5"
    path.write_bytes(one.file.read_bytes()[:1000])
    bad = OutputFile("vis.uvh5", 1000, sha256_file(path), path)
    for pair in ((one, bad), (bad, one)):
        found = compare_uvh5(*pair, Tolerances())
        assert (found.verdict, found.method) == (Verdict.DIFFERENT, "bytes")
        assert "not readable as UVH5" in found.notes[0]


def test_hdf5_without_visibilities_is_no_uvh5(tmp_path):
    found = compared(tmp_path)[0]
    assert found.method == "UVH5"
    for name in ("one", "other"):
        with h5py.File(tmp_path / f"{name}.uvh5", "w") as file:
            file["x"] = 1.0 if name == "one" else 2.0
    again = compared_again(tmp_path)
    assert (again.verdict, again.method) == (Verdict.DIFFERENT, "bytes")


def test_only_uvh5_is_pyuvsims(tmp_path):
    one, other = make(tmp_path, "one"), make(tmp_path, "other", history="x")
    runs = [
        RunFiles(tmp_path, {}, {"vis.uvh5": file, "mock_catalog_zenith.npz": file})
        for file in (one, other)
    ]
    assert [found.path for found in TOOL.compare(*runs, Tolerances())] == ["vis.uvh5"]


def test_without_h5py_it_is_not_said_that_files_differ(tmp_path, monkeypatch):
    one, other = make(tmp_path, "one"), make(tmp_path, "other", history="x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    found = compare_uvh5(one, other, Tolerances())
    assert found.verdict is Verdict.INCOMPLETE
    assert "pip install" in found.notes[0]
