"""What starts BayesEoR in a job, and the contract program that stands for it in tests."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from valska.external_tools.bayeseor import driver
from valska.external_tools.bayeseor.kbins import count_bins
from valska.external_tools.bayeseor.keys import PARAMETERS

PROGRAM = Path(__file__).parents[1] / "data" / "contract" / "run-analysis.py"
CONFIG = """\
nf: 6
freq_idx_min: 0
nu: 5
nside: 32
fov_ra_eor: 12.9080728652
sigma: 0.006
telescope_latlonalt: [-30.7, 21.4, 1073.0]
beam_type: "gaussian"
fwhm_deg: 9.306821090681533
data_path: "../inputs/eor.uvh5"
array_dir_prefix: "matrices/"
output_dir: "signal_fit"
priors: [[0.7, 2.7], [1.5, 3.5], [2.0, 4.0]]
"""
SAVED = " F\n  25  60  1  75\n"


class Case:
    """A place to run the program in, as a bundle has it."""

    def __init__(self, path):
        self.outputs, self.config = path / "outputs", path / "config" / "c.yaml"
        self.data = path / "inputs" / "eor.uvh5"
        for folder in (self.outputs, self.config.parent, self.data.parent):
            folder.mkdir()
        self.data.write_text("{}")
        self.config.write_text(CONFIG)

    def run(self, *arguments, watched=False, **changes):
        text = CONFIG
        for key, value in changes.items():
            text = re.sub(rf"^{key}:.*\n|\Z", f"{key}: {value}\n", text, count=1, flags=re.M)
        self.config.write_text(text)
        start = [driver.__file__] if watched else []
        command = [sys.executable, "-u", *start, PROGRAM, "--config", "../config/c.yaml"]
        return subprocess.run(
            [*map(str, command), *arguments], cwd=self.outputs, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def knobs(self, **values):
        (self.outputs / "contract.json").write_text(json.dumps(values))

    def files(self, pattern):
        found = (path for path in self.outputs.glob(pattern) if path.is_file())
        return sorted(str(path.relative_to(self.outputs)) for path in found)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_the_driver_runs_a_program_as_if_it_had_been_started_itself(case):
    done = case.run("--cpu", watched=True)
    assert done.returncode == 0, done.stderr
    assert "k bins: 3" in done.stdout
    assert case.files("matrices/**/T_Ninv_T.h5")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_other_priors_than_k_bins_end_it_before_matrices_are_made(case, count):
    done = case.run("--cpu", watched=True, priors=str([[0, 1]] * count))
    assert done.returncode == 2
    assert f"there are 3 k bins and {count} priors" in done.stderr
    assert not case.files("matrices/**/*")


def test_without_a_gpu_it_says_so_at_once(case):
    done = case.run("--gpu", "--run", watched=True)
    assert done.returncode == 2
    assert "no GPU can be used" in done.stderr
    assert case.files("**/*") == []


def test_a_program_that_is_not_there_is_named():
    done = subprocess.run(
        [sys.executable, driver.__file__, "/nowhere/run-analysis.py", "--cpu"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no /nowhere/run-analysis.py; name BayesEoR's" in done.stderr


def test_an_exit_code_and_an_exception_pass_through(case):
    assert case.run("--foo", watched=True).returncode == 2
    failed = case.run("--cpu", watched=True, sigma="null")
    assert failed.returncode == 1
    assert "ValueError: sigma cannot be None" in failed.stderr


def test_it_notes_that_the_chains_are_complete(case):
    assert case.run("--cpu", "--run", watched=True).returncode == 0
    (chains,) = case.outputs.glob("signal_fit/MN-*")
    note = case.outputs / "signal_fit" / "finished.json"
    assert json.loads(note.read_text()) == {"chains": chains.name, "resumed": False}


@pytest.mark.parametrize("state", [" T\n", SAVED, None])
def test_it_notes_whether_saved_chains_were_gone_on_from(case, state):
    chains = case.outputs / "signal_fit" / "MN-mine"
    chains.mkdir(parents=True)
    if state:
        (chains / "data-resume.dat").write_text(state)
    arguments = ("--cpu", "--run", "--file-root-dir", "MN-mine")
    if state == " T\n":
        assert case.run(*arguments).returncode == 2
    done = case.run(*arguments, watched=True)
    assert done.returncode == 0, done.stderr
    note = json.loads((chains.parent / "finished.json").read_text())
    assert note == {"chains": "MN-mine", "resumed": state == SAVED}
    assert ("begins anew" in done.stdout) is (state == " T\n")
    assert ("MultiNest resuming" in done.stdout) is (state == SAVED)


@pytest.mark.parametrize("arguments", [("--cpu",), ("--cpu", "--run")])
def test_an_abort_with_exit_code_0_is_not_noted_as_complete(case, arguments):
    case.knobs(exit={"signal_fit": 0})
    assert case.run(*arguments, watched=True).returncode == 0
    assert not case.files("**/finished.json")


def test_the_contract_program_says_what_it_is():
    assert PROGRAM.read_text().startswith("# A contract program, not BayesEoR")


def test_it_has_bayeseors_parameters():
    known = runpy.run_path(str(PROGRAM))["DEFAULTS"]
    assert known.keys() == PARAMETERS.keys() - {"signal_fit_priors", "no_signal_priors"}


def test_it_counts_the_same_k_bins(case):
    for nu, nf in ((5, 6), (15, 38), (9, 20)):
        values = {"nu": nu, "nf": nf, "df": 237618.0, "freq_min": 158.3e6, "fov_ra_eor": 12.9}
        done = case.run("--cpu", **values)
        assert f"k bins: {count_bins(values, Path('x.npy'))}\n" in done.stdout


@pytest.mark.parametrize(
    ("changes", "arguments", "code", "told"),
    [
        ({"nonsense": "1"}, (), 2, "Key 'nonsense' is not expected"),
        ({"nside": "many"}, (), 2, "Expected a int"),
        ({"data_path": "eor.uvh5"}, (), 2, "File does not exist"),
        ({}, ("--output_dir", "x"), 2, "Unrecognized arguments"),
        ({"telescope_latlonalt": "null"}, (), 1, "telescope_latlonalt cannot be None"),
        ({"beam_type": "inputs/B.fits"}, (), 1, "inputs/b.fits"),
        ({"beam_type": "gausian"}, (), 1, "beams are supported"),
        ({"save_vis": "true"}, (), 1, "as_posix"),
        ({"priors": "[[1, 2]]"}, ("--run",), 1, "error in prior"),
    ],
)
def test_it_refuses_what_bayeseor_refuses(case, changes, arguments, code, told):
    done = case.run("--cpu", *arguments, **changes)
    assert done.returncode == code
    assert told.lower() in done.stderr.lower()


def test_without_cpu_it_fails_as_misleadingly_as_bayeseor(case):
    done = case.run("--run")
    assert done.returncode == 1
    assert "invalid keyword argument for print()" in done.stderr
    assert case.files("matrices/**/T_Ninv_T.h5")


def test_matrices_are_made_once_and_depend_on_their_keys(case):
    case.run("--cpu", "--output-dir", "pre")
    first = {name: (case.outputs / name).read_bytes() for name in case.files("matrices/**/*")}
    assert "Writing" not in case.run("--cpu").stdout
    case.run("--cpu", "--array-dir-prefix", "again", priors="[[0, 1], [0, 1], [0, 1]]")
    again = {name: (case.outputs / name).read_bytes() for name in case.files("again/**/*")}
    assert list(again.values()) == list(first.values())
    case.run("--cpu", "--array-dir-prefix", "other", fwhm_deg="9.3068211")
    other = case.files("other/**/T.h5")[0]
    assert other.removeprefix("other") == case.files("matrices/**/T.h5")[0].removeprefix("matrices")
    assert (case.outputs / other).read_bytes() not in first.values()


def test_matrices_that_are_there_are_used_whatever_they_are(case):
    assert case.run("--cpu").returncode == 0
    (whole,) = case.outputs.glob("matrices/**/T.h5")
    whole.write_bytes(b"other" + whole.read_bytes()[5:])
    whole.with_name("version.txt").unlink()
    assert case.run("--cpu").returncode == 0
    assert whole.read_bytes().startswith(b"other")
    whole.write_bytes(whole.read_bytes()[:-10])
    cut_off = case.run("--cpu", "--run")
    assert cut_off.returncode == 1
    assert "truncated file" in cut_off.stderr


def test_a_rerun_does_not_resume_unless_told(case):
    assert case.run("--cpu", "--run").returncode == 0
    assert case.run("--cpu", "--run").returncode == 0
    versions = [name.split("/")[1][-3:] for name in case.files("signal_fit/*/data-stats.dat")]
    assert versions == ["-v1", "-v2"]


def test_it_goes_on_from_its_chains(case):
    case.knobs(seconds={"signal_fit": 30})
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, PROGRAM, "--config", "../config/c.yaml", "--cpu", "--run"],
            cwd=case.outputs, timeout=6, capture_output=True, check=False,
        )  # fmt: skip
    (chains,) = case.outputs.glob("signal_fit/MN-*")
    before = (chains / "data-ev.dat").read_text().splitlines()[:25]
    assert not (chains / "data-stats.dat").exists()
    case.knobs()
    done = case.run("--cpu", "--run", "--file-root-dir", chains.name)
    assert "MultiNest resuming" in done.stdout
    assert "count 25\n" not in done.stdout
    assert (chains / "data-ev.dat").read_text().splitlines()[:25] == before
    assert (chains / "data-stats.dat").exists()


def test_the_evidence_depends_on_the_beam(case):
    found = {}
    for width in (9.306821090681533, 10.2):
        for name, prior in (("signal", [[1, 2]] * 3), ("none", [[-4, -3]] * 3)):
            case.run(
                "--cpu",
                "--run",
                "--output-dir",
                f"{name}{width}",
                priors=str(prior),
                fwhm_deg=width,
            )
            (stats,) = case.outputs.glob(f"{name}{width}/*/data-stats.dat")
            found[name, width] = float(stats.read_text().split(":")[1].split()[0])
    right, wrong = (found["signal", w] - found["none", w] for w in (9.306821090681533, 10.2))
    assert right < 0 < wrong
