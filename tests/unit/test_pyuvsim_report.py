"""Numbers that sum up visibilities, from small UVH5 files with known content."""

import builtins
import sys

import numpy as np
import pytest
from uvh5 import CHANNELS, PAIRS, TIMES, write_uvh5

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.report.summary import Reports, RunOutputs
from valska.external_tools.pyuvsim import TOOL
from valska.external_tools.pyuvsim import report as report_module
from valska.external_tools.pyuvsim.report import REPORTER, start

SECTION = {"output": "small.uvh5", "output_format": "uvh5"}
AMPLITUDES = np.array([1.0 + two for _, two in PAIRS])


def summed(outputs, state="completed", **section):
    return start({})(RunOutputs(outputs, SECTION | section, {"simulate": state}))


def test_the_tool_says_that_it_sums_up():
    assert isinstance(TOOL, Reports)
    assert TOOL.reporter() is REPORTER


@pytest.mark.parametrize("compound", [False, True])
@pytest.mark.parametrize("block", [5, 4096])
def test_numbers_are_those_of_the_file(tmp_path, monkeypatch, compound, block):
    monkeypatch.setattr(report_module, "_ROWS", block)
    write_uvh5(tmp_path / "small.uvh5", compound=compound)
    found = summed(tmp_path)
    assert found.complete
    assert found.values == {
        "visibilities": len(PAIRS) * TIMES * CHANNELS,
        "flagged": 0,
        "mean_amplitude": pytest.approx(AMPLITUDES.mean()),
        "rms_amplitude": pytest.approx(np.sqrt((AMPLITUDES**2).mean())),
        "max_amplitude": pytest.approx(AMPLITUDES.max()),
        "unit": "Jy",
        "low_mhz": pytest.approx(100.0),
        "high_mhz": pytest.approx(100.0 + CHANNELS - 1),
    }
    assert set(found.values) == {column.key for column in REPORTER.columns}


def test_flagged_visibilities_are_counted_apart(tmp_path):
    write_uvh5(tmp_path / "small.uvh5", flagged=True)
    values = summed(tmp_path).values
    assert (values["visibilities"], values["flagged"]) == (0, len(PAIRS) * TIMES * CHANNELS)
    assert values["mean_amplitude"] is values["rms_amplitude"] is values["max_amplitude"] is None


def test_what_has_not_completed_has_no_numbers(tmp_path):
    write_uvh5(tmp_path / "small.uvh5")
    found = summed(tmp_path, state="running")
    assert (found.complete, found.values) == (False, {})
    assert found.notes == ("simulate: running",)


def test_other_formats_are_told(tmp_path):
    found = summed(tmp_path, output_format="ms")
    assert (found.complete, found.notes) == (False, ("only uvh5 can be summed up, not ms",))


@pytest.mark.parametrize("content", [None, b"", b"no HDF5 at all"])
def test_a_missing_or_broken_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "small.uvh5").write_bytes(content)
    with pytest.raises(ValskaError, match=r"small\.uvh5 is not readable as UVH5"):
        summed(tmp_path)


def test_without_h5py_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **more):
        if name == "h5py":
            raise ModuleNotFoundError("No module named 'h5py'", name=name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "h5py", raising=False)
    with pytest.raises(PrerequisiteError, match="not installed: h5py") as caught:
        start({})
    assert "valska[plot]" in caught.value.hint
