"""Two runs of BayesEoR: matrices exactly, evidences and posteriors as statistics."""

import shutil

import numpy as np
import pytest
from reported import CHAINS, EVIDENCE, REAL

from valska.external_tools.bayeseor import TOOL
from valska.external_tools.core.comparison.runs import _compare, comparer_of
from valska.external_tools.core.comparison.verdict import (
    OutputFile,
    RunFiles,
    Tolerances,
    Verdict,
)
from valska.external_tools.core.comparison.written import COMPLETED, Written
from valska.external_tools.core.tool import Compares
from valska.external_tools.core.utils import sha256_file

SECTION = {"log_priors": True}
STATS = f"signal_fit/{CHAINS}/data-stats.dat"


def run_of(outputs):
    files = {
        str(path.relative_to(outputs)): OutputFile(
            str(path.relative_to(outputs)), path.stat().st_size, sha256_file(path), path
        )
        for path in sorted(outputs.rglob("*"))
        if path.is_file()
    }
    return Written(RunFiles(outputs, SECTION, files), {"signal_fit": COMPLETED}, ())


@pytest.fixture
def runs(tmp_path):
    """Return the outputs of two real runs of one case."""
    for name in ("finished", "repeat"):
        shutil.copytree(REAL / name, tmp_path / name)
        for hypothesis in ("signal_fit", "no_signal"):
            place = tmp_path / name / hypothesis / "finished.json"
            place.write_text(f'{{"chains": "{CHAINS}", "resumed": false}}\n')
    return tmp_path / "finished", tmp_path / "repeat"


def compared(runs, **tolerances):
    found = _compare(comparer_of("bayeseor"), *map(run_of, runs), Tolerances(**tolerances))
    return {one.path: one for one in found}


def parts_of(found):
    return {part.name: part for part in found[STATS].parts}


def evidence(runs, ns, ins):
    for outputs, one, two in zip(runs, ns, ins, strict=True):
        (outputs / STATS).write_text(EVIDENCE.format(ns=one, ins=two))


def test_bayeseor_compares():
    assert isinstance(TOOL, Compares)


def test_two_real_runs_are_equivalent_and_said_as_statistics(runs):
    found = compared(runs)
    assert {one.verdict for one in found.values()} <= {Verdict.IDENTICAL, Verdict.EQUIVALENT}
    stats = found[STATS]
    assert (stats.verdict, stats.method) == (Verdict.EQUIVALENT, "statistics")
    assert [part.name[:14] for part in stats.parts] == [
        "ln Z (importan", "ln Z (nested s", *(["posterior mean"] * 3)
    ]  # fmt: skip
    assert [part.counted for part in stats.parts] == [True, False, True, True, True]
    assert all(0 < part.sigma < 3 for part in stats.parts if part.counted)
    assert "standard errors" in stats.parts[1].detail
    assert "seed is the clock" in stats.notes[0]
    assert f"signal_fit/{CHAINS}/data-post_equal_weights.dat" in stats.covers
    assert found[f"signal_fit/{CHAINS}/k-vals.txt"].verdict is Verdict.IDENTICAL


def test_a_run_is_identical_to_its_copy(runs):
    found = compared((runs[0], runs[0]))
    assert {one.verdict for one in found.values()} == {Verdict.IDENTICAL}


def test_ln_z_is_judged_by_the_combined_errors(runs):
    evidence(runs, [(-10.0, 0.3), (-9.0, 0.4)], [(-10.0, 0.3), (-8.75, 0.4)])
    part = parts_of(compared(runs))["ln Z (importance-sampled)"]
    assert part.sigma == pytest.approx(2.5)
    assert part.verdict is Verdict.EQUIVALENT
    found = compared(runs, sigma=2.4)
    assert found[STATS].verdict is Verdict.DIFFERENT
    assert parts_of(found)["ln Z (importance-sampled)"].verdict is Verdict.DIFFERENT


def test_the_importance_sampled_error_is_no_less_than_nested_samplings(runs):
    """Its own are too small: nine honest repeats scattered by three times as much."""
    evidence(runs, [(-10.0, 0.06), (-10.0, 0.06)], [(-10.0, 0.02), (-9.85, 0.02)])
    part = parts_of(compared(runs))["ln Z (importance-sampled)"]
    assert part.sigma == pytest.approx(0.15 / np.hypot(0.06, 0.06))
    assert part.verdict is Verdict.EQUIVALENT


def test_a_difference_that_is_no_evidence_is_none_however_small_the_errors(runs):
    tiny = [(-235.931210, 1e-6), (-235.931204, 1e-6)]
    evidence(runs, tiny, tiny)
    part = parts_of(compared(runs))["ln Z (nested sampling)"]
    assert part.sigma > 3
    assert part.verdict is Verdict.EQUIVALENT
    assert "less than 0.01" in part.detail


@pytest.mark.parametrize(
    ("one", "other", "verdict", "told"),
    [
        ((-10.0, 0.0), (-11.0, 0.0), Verdict.DIFFERENT, "differ by 1: inf standard errors"),
        ((-10.0, 0.0), (-10.001, 0.0), Verdict.EQUIVALENT, "no difference"),
        ((-10.0, 0.0), (-10.2, 0.1), Verdict.EQUIVALENT, "2.0 standard errors"),
        ((-10.0, float("nan")), (-10.0, 0.1), Verdict.DIFFERENT, "no finite number"),
        ((float("nan"), 0.1), (-10.0, 0.1), Verdict.DIFFERENT, "no finite number"),
        ((-10.0, float("inf")), (-50.0, 0.1), Verdict.DIFFERENT, "no finite number"),
        ((-10.0, 0.1), (float("inf"), 0.1), Verdict.DIFFERENT, "no finite number"),
    ],
)
def test_errors_that_are_none_or_no_number(runs, one, other, verdict, told):
    evidence(runs, [one, other], [one, other])
    stats = compared(runs)[STATS]
    assert stats.verdict is verdict
    assert told in " ".join([*stats.notes, *(part.detail for part in stats.parts)])


def test_an_estimate_that_only_one_run_has_is_no_agreement(runs):
    text = (runs[1] / STATS).read_text()
    (runs[1] / STATS).write_text("".join(x for x in text.splitlines(True) if "Importance" not in x))
    stats = compared(runs)[STATS]
    assert stats.verdict is Verdict.DIFFERENT
    assert "has no evidence of the kind 'ins'" in stats.notes[0]


def test_a_resumed_run_does_not_count_what_resuming_spoils(runs):
    evidence(runs, [(-10.0, 0.1), (-10.0, 0.1)], [(-10.0, 0.1), (-5.0, 0.1)])
    assert compared(runs)[STATS].verdict is Verdict.DIFFERENT
    note = runs[1] / "signal_fit/finished.json"
    note.write_text(note.read_text().replace("false", "true"))
    found = compared(runs)
    assert found[STATS].verdict is Verdict.EQUIVALENT
    assert not parts_of(found)["ln Z (importance-sampled)"].counted
    assert found["signal_fit/finished.json"].verdict is Verdict.EQUIVALENT


def test_a_posterior_that_moved_is_different(runs):
    path = runs[1] / f"signal_fit/{CHAINS}/data-post_equal_weights.dat"
    rows = np.loadtxt(path)
    rows[:, 1] += rows[:, 1].std()
    np.savetxt(path, rows)
    found = compared(runs)
    counted = [part for part in found[STATS].parts if part.counted]
    moved = [part for part in counted if part.verdict is Verdict.DIFFERENT]
    assert [part.name[:28] for part in moved] == ["posterior mean of k bin 2 (k"]
    assert "of their spread" in moved[0].detail


def test_another_number_of_k_bins_is_different(runs):
    folder = runs[1] / "signal_fit" / CHAINS
    samples = folder / "data-post_equal_weights.dat"
    np.savetxt(samples, np.loadtxt(samples)[:, 1:])
    (folder / "k-vals.txt").write_text("0.5\n0.8\n")
    found = compared(runs)
    assert found[STATS].verdict is Verdict.DIFFERENT
    assert "3 and 2 k bins" in found[STATS].parts[-1].detail
    assert found[f"signal_fit/{CHAINS}/k-vals.txt"].verdict is Verdict.DIFFERENT


def test_chains_of_a_second_attempt_are_taken_for_those_of_the_first(runs):
    second = CHAINS.replace("-v1", "-v2")
    folder = runs[1] / "signal_fit"
    shutil.copytree(folder / CHAINS, folder / second)
    (folder / CHAINS / "data-resume.dat").unlink()
    note = folder / "finished.json"
    note.write_text(note.read_text().replace("-v1", "-v2"))
    found = compared(runs)
    assert {one.verdict for one in found.values()} <= {Verdict.IDENTICAL, Verdict.EQUIVALENT}
    assert f"signal_fit/{CHAINS}/k-vals.txt" in found
    assert f"signal_fit/{second}/data-stats.dat" in found[STATS].covers
    assert not any(second in path for path in found)


def test_statistics_that_cannot_be_read_are_different(runs):
    (runs[1] / STATS).write_text("nothing\n")
    found = compared(runs)
    assert found[STATS].verdict is Verdict.DIFFERENT
    assert "no evidence" in found[STATS].notes[0]


def test_chains_that_are_gone_are_incomplete(runs):
    shutil.rmtree(runs[1] / "signal_fit")
    found = compared(runs)
    assert found[STATS].verdict is Verdict.INCOMPLETE


# --- matrices ------------------------------------------------------------------------------------


def matrices(runs, *values, write=np.savez):
    for outputs, value in zip(runs, values, strict=True):
        (outputs / "matrices/nu5").mkdir(parents=True, exist_ok=True)
        write(outputs / "matrices/nu5/N.npz", data=np.array([1.0, value]))


def test_matrices_have_to_be_the_same(runs):
    matrices(runs, 2.0, 2.0 + 1e-15)
    one = compared(runs)["matrices/nu5/N.npz"]
    assert one.verdict is Verdict.DIFFERENT
    assert one.parts[0].absolute.index == (1,)
    assert compared(runs, rtol=1e-12)["matrices/nu5/N.npz"].verdict is Verdict.EQUIVALENT


def test_matrices_packed_at_another_time_are_equivalent(runs):
    matrices(runs, 2.0, 2.0)
    matrices(runs[1:], 2.0, write=np.savez_compressed)
    one = compared(runs)["matrices/nu5/N.npz"]
    assert one.verdict is Verdict.EQUIVALENT
    assert one.parts[0].verdict is Verdict.IDENTICAL
