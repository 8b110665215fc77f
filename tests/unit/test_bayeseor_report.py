"""What is read from chains: evidences, the null test, and the power spectrum of each k bin."""

import json
import math
import shutil
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported import CHAINS, REAL, UNFINISHED, put_chains

from valska.external_tools.bayeseor import TOOL
from valska.external_tools.bayeseor.chains import ChainsError, find_chains
from valska.external_tools.bayeseor.evidence import (
    Estimate,
    Estimator,
    Verdict,
    null_test,
    read_evidence,
)
from valska.external_tools.bayeseor.report import REPORTER, start
from valska.external_tools.bayeseor.spectrum import percentile, read_spectrum
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.report.summary import Reports, RunOutputs

FINISHED = REAL / "finished"
SECTION = {"hypotheses": {"signal_fit": "", "no_signal": ""}, "log_priors": True}
DONE = {"cpu_precompute": "completed", "signal_fit": "completed", "no_signal": "completed"}
FINITE = st.floats(-1e6, 1e6)


def summed(outputs, section=None, states=None, **options):
    run = RunOutputs(outputs, SECTION | (section or {}), DONE | (states or {}))
    return start(options)(run)


def stats_of(outputs, hypothesis="signal_fit"):
    return outputs / hypothesis / CHAINS / "data-stats.dat"


@pytest.fixture
def outputs(tmp_path):
    put_chains(tmp_path / "outputs")
    return tmp_path / "outputs"


def test_the_tool_says_that_it_sums_up():
    assert isinstance(TOOL, Reports)
    assert TOOL.reporter() is REPORTER


@pytest.mark.parametrize(
    ("estimator", "signal", "none"),
    [
        ("ins", (-233.866200168804909, 0.0229616031899191331), (-235.931206834128687, 1.3164e-6)),
        ("ns", (-233.453848745804237, 0.0612511432986673071), (-235.931206834128687, 8.7536e-7)),
    ],
)
def test_evidences_of_the_real_case(estimator, signal, none):
    found = summed(FINISHED, evidence=estimator)
    assert found.complete
    assert found.notes == ()
    values = found.values
    assert values["ln_z_signal_fit"] == signal[0]
    assert values["ln_z_signal_fit_error"] == pytest.approx(signal[1])
    assert values["ln_z_no_signal"] == none[0]
    assert values["ln_z_no_signal_error"] == pytest.approx(none[1], rel=1e-4)
    assert values["delta_ln_z"] == signal[0] - none[0]
    assert values["delta_ln_z_error"] == pytest.approx(math.hypot(signal[1], none[1]))
    assert values["log10_bayes_factor"] == pytest.approx((signal[0] - none[0]) / math.log(10))
    assert values["null_test"] == "fail"
    assert values["chains_signal_fit"] == CHAINS


def test_importance_sampling_and_three_errors_are_the_default():
    assert summed(FINISHED) == summed(FINISHED, evidence="ins", sigma="3")


def test_the_spectrum_of_the_real_case():
    lines = summed(FINISHED).tables["spectrum"]
    assert [(line["hypothesis"], line["bin"]) for line in lines] == [
        (name, number) for name in ("signal_fit", "no_signal") for number in (1, 2, 3)
    ]
    first = lines[0]
    samples = (FINISHED / "signal_fit" / CHAINS / "data-post_equal_weights.dat").read_text()
    column = [float(row.split()[0]) for row in samples.splitlines()]
    assert (first["k"], first["modes"]) == (0.2643294951778824564, 48)
    assert first["samples"] == len(column) == 244
    assert first["mean"] == pytest.approx(statistics.fmean(column))
    assert first["std"] == pytest.approx(statistics.pstdev(column))
    cuts = statistics.quantiles(column, n=100, method="inclusive")
    for key, percent in (("p16", 16), ("p50", 50), ("p84", 84), ("p95", 95)):
        assert first[key] == pytest.approx(cuts[percent - 1]), key


def test_means_agree_with_those_that_multinest_wrote():
    """Its own are weighted over all samples; these over those of equal weight."""
    text = stats_of(FINISHED).read_text()
    own = [line.split() for line in text.split("Sigma")[1].splitlines()[1:4]]
    lines = summed(FINISHED).tables["spectrum"][:3]
    for line, (_, mean, sigma) in zip(lines, own, strict=True):
        assert abs(line["mean"] - float(mean)) < 3 * float(sigma) / math.sqrt(line["samples"])
        assert line["std"] == pytest.approx(float(sigma), rel=0.1)


def test_columns_are_what_runs_have():
    found = summed(FINISHED)
    assert set(found.values) == {column.key for column in REPORTER.columns}
    for table in REPORTER.tables:
        keys = {column.key for column in table.columns}
        assert all(set(line) == keys for line in found.tables[table.key])
        assert set(table.index) <= keys
    errors = {column.error for column in REPORTER.columns} - {""}
    assert errors <= {column.key for column in REPORTER.columns}


@given(FINITE, st.floats(0, 1e5), FINITE, st.floats(0, 1e5))
def test_errors_add_in_quadrature(a, a_error, b, b_error):
    delta = Estimate(a, a_error) - Estimate(b, b_error)
    assert delta.value == a - b
    assert delta.error == pytest.approx(math.sqrt(a_error**2 + b_error**2))
    assert delta.error >= max(a_error, b_error) * (1 - 1e-12)
    back = Estimate(b, b_error) - Estimate(a, a_error)
    assert (back.value, back.error) == (-delta.value, delta.error)


@pytest.mark.parametrize("size", [1e6, -1e6, 1e300])
def test_a_bayes_factor_beyond_all_floats_is_a_number(tmp_path, size):
    put_chains(tmp_path, signal_fit=(size, 0.1), no_signal=(0.0, 0.2))
    found = summed(tmp_path)
    assert found.complete
    assert found.values["log10_bayes_factor"] == pytest.approx(size / math.log(10))
    assert found.values["null_test"] == ("fail" if size > 0 else "pass")
    assert json.loads(json.dumps(found.values, allow_nan=False)) == found.values


@pytest.mark.parametrize(
    ("value", "error", "sigma", "verdict"),
    [
        (-1.0, 0.1, 3, Verdict.PASS),
        (1.0, 0.1, 3, Verdict.FAIL),
        (-0.2, 0.1, 3, Verdict.INCONCLUSIVE),
        (0.2, 0.1, 3, Verdict.INCONCLUSIVE),
        (-0.75, 0.25, 3, Verdict.PASS),
        (0.75, 0.25, 3, Verdict.INCONCLUSIVE),
        (0.2, 0.1, 1, Verdict.FAIL),
        (0.0, 0.1, 0, Verdict.PASS),
        (1e-9, 0.1, 0, Verdict.FAIL),
        (0.0, 0.0, 3, Verdict.PASS),
    ],
)
def test_the_null_test(value, error, sigma, verdict):
    assert null_test(Estimate(value, error), sigma) is verdict


@given(FINITE, st.floats(0, 1e5), st.floats(0, 10), st.floats(0, 10))
def test_more_errors_decide_less(value, error, few, many):
    few, many = sorted((few, many))
    strict, lax = null_test(Estimate(value, error), many), null_test(Estimate(value, error), few)
    assert strict in (lax, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "three", ""])
def test_sigma_is_a_number_of_errors(text):
    with pytest.raises(UsageError, match="--sigma"):
        start({"sigma": text})


def test_an_unknown_estimator_is_refused():
    with pytest.raises(UsageError, match="--evidence 'mean'"):
        start({"evidence": "mean"})


@pytest.mark.parametrize("state", ["running", "failed", "not-submitted", "timeout"])
def test_only_a_completed_stage_has_results(state):
    found = summed(FINISHED, states={"signal_fit": state})
    assert not found.complete
    assert found.notes == (f"signal_fit: {state}",)
    assert found.values["ln_z_no_signal"] is not None
    assert {"ln_z_signal_fit", "delta_ln_z", "null_test"} & set(found.values) == set()
    assert {line["hypothesis"] for line in found.tables["spectrum"]} == {"no_signal"}


def test_a_run_of_one_hypothesis_is_whole_without_a_difference():
    found = summed(FINISHED, {"hypotheses": {"no_signal": "outputs/no_signal"}})
    assert found.complete
    assert found.notes == ("signal_fit is not part of this run: no Δ ln Z",)
    assert "delta_ln_z" not in found.values


def test_what_the_killed_run_left_is_not_taken_for_a_result(tmp_path):
    shutil.copytree(REAL / "unfinished", tmp_path, dirs_exist_ok=True)
    found = summed(tmp_path, {"hypotheses": {"signal_fit": ""}})
    assert not found.complete
    assert found.notes[0] == f"signal_fit: {UNFINISHED}: MultiNest has not finished"
    assert found.values["chains_signal_fit"] is None
    (tmp_path / "signal_fit" / UNFINISHED / "data-resume.dat").unlink()
    with pytest.raises(ChainsError, match=r"'0\.289255965501078540-314' is no number"):
        read_evidence(tmp_path / "signal_fit" / UNFINISHED, Estimator.INS)


def test_the_newest_finished_chains_are_used_and_told(outputs):
    folder = outputs / "signal_fit"
    second, tenth = (folder / CHAINS.replace("-v1", f"-v{n}") for n in (2, 10))
    shutil.copytree(folder / CHAINS, second)
    shutil.copytree(REAL / "unfinished/signal_fit" / UNFINISHED, tenth)
    stats = stats_of(outputs).read_text().replace("-0.233866", "-0.200000")
    (second / "data-stats.dat").write_text(stats)
    found = summed(outputs)
    assert found.values["chains_signal_fit"] == second.name
    assert found.values["ln_z_signal_fit"] == pytest.approx(-200.0, abs=1e-3)
    told = f"{second.name} is used of 3 directories of chains ({tenth.name}: "
    assert found.notes == (f"signal_fit: {told}MultiNest has not finished)",)
    shutil.rmtree(tenth)
    assert find_chains(folder) == (second, (f"{second.name} is used of 2 directories of chains",))


def test_the_chains_that_the_job_named_are_used_and_no_later_ones(outputs):
    folder = outputs / "signal_fit"
    later = folder / CHAINS.replace("-v1", "-v2")
    shutil.copytree(folder / CHAINS, later)
    (folder / "finished.json").write_text(json.dumps({"chains": CHAINS}))
    note = f"{CHAINS} is used of 2 directories of chains"
    assert find_chains(folder) == (folder / CHAINS, (f"{note} ({later.name}: not of this job)",))
    shutil.rmtree(folder / CHAINS)
    with pytest.raises(ChainsError, match=f"there is no {CHAINS}, which finished.json names"):
        find_chains(folder)
    (folder / "finished.json").write_text("[")
    found = summed(outputs)
    assert found.notes == ("signal_fit: finished.json is damaged",)
    assert "ln_z_signal_fit" not in found.values
    assert found.values["ln_z_no_signal"] == -235.931206834128687


def test_evidences_with_uniform_priors_are_not_compared(outputs):
    found = summed(outputs, {"uprior_bins": "0"})
    assert found.values["ln_z_signal_fit"] == -233.866200168804909
    assert not {"delta_ln_z", "log10_bayes_factor", "null_test"} & found.values.keys()
    assert found.complete
    assert found.notes[0].startswith("uprior_bins: BayesEoR does not normalise uniform priors")
    assert summed(outputs, {"uprior_bins": ""}).notes == ()


def test_of_resumed_chains_the_plain_evidence_is_taken_and_told(outputs):
    note = {"chains": CHAINS, "resumed": True}
    (outputs / "signal_fit" / "finished.json").write_text(json.dumps(note))
    found = summed(outputs)
    assert found.values["ln_z_signal_fit"] == -233.453848745804237
    assert (found.values["evidence_signal_fit"], found.values["evidence_no_signal"]) == (
        "ns",
        "ins",
    )
    assert found.complete
    (told,) = found.notes
    assert told.startswith("signal_fit: went on from chains of an earlier attempt")
    assert summed(outputs, evidence="ns").notes == ()
    (outputs / "signal_fit" / "finished.json").write_text(json.dumps({**note, "resumed": False}))
    assert summed(outputs).values["ln_z_signal_fit"] == -233.866200168804909


def damage_number(path):
    path.write_text(path.read_text().replace("E+0", "E+x"))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-40])


def binary(path):
    path.write_bytes(b"\x00\xff" * 50)


def not_a_number(path):
    path.write_text(path.read_text().replace("0.233866200168804909E+03", "NaN"))


@pytest.mark.parametrize(
    ("file", "change", "note"),
    [
        ("data-stats.dat", damage_number, "is no number"),
        ("data-stats.dat", not_a_number, "no finite number"),
        ("data-stats.dat", binary, "it is no text"),
        ("data-stats.dat", lambda path: path.write_text("\n"), "no evidence of the kind 'ins'"),
        ("data-stats.dat", lambda path: path.write_text(""), "there is no data-stats.dat"),
        ("data-stats.dat", lambda path: path.unlink(), "there is no data-stats.dat"),
        ("data-post_equal_weights.dat", damage_number, "is no number"),
        ("data-post_equal_weights.dat", cut_off, "data-post_equal_weights.dat is damaged"),
        ("data-post_equal_weights.dat", lambda path: path.write_text(" \n"), "is empty"),
        ("k-vals.txt", lambda path: path.write_text("1.0\n"), "has 3 parameters, k-vals.txt 1 k"),
        ("data-resume.dat", lambda path: path.write_text(" T"), "MultiNest has not finished"),
    ],
)
def test_a_damaged_file_is_a_note(outputs, file, change, note):
    change(outputs / "signal_fit" / CHAINS / file)
    found = summed(outputs)
    assert not found.complete
    assert len(found.notes) == 1
    assert found.notes[0].startswith("signal_fit: ")
    assert note in found.notes[0]
    assert found.values["ln_z_no_signal"] == -235.931206834128687


def test_a_damaged_spectrum_leaves_the_evidence(outputs):
    cut_off(outputs / "signal_fit" / CHAINS / "data-post_equal_weights.dat")
    found = summed(outputs)
    assert found.values["null_test"] == "fail"
    assert {line["hypothesis"] for line in found.tables["spectrum"]} == {"no_signal"}


def test_plain_evidence_is_there_where_importance_sampling_is_not(outputs):
    for name in ("signal_fit", "no_signal"):
        path = stats_of(outputs, name)
        lines = [line for line in path.read_text().splitlines() if "Importance" not in line]
        path.write_text("\n".join(lines))
    assert summed(outputs, evidence="ns").complete
    assert "no evidence of the kind 'ins'" in summed(outputs).notes[0]


def test_no_chains_at_all(tmp_path):
    assert summed(tmp_path).notes == (
        "signal_fit: there are no chains",
        "no_signal: there are no chains",
    )


def test_linear_samples_are_reported_as_logarithms(outputs):
    chains = outputs / "signal_fit" / CHAINS
    path = chains / "data-post_equal_weights.dat"
    rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
    logs = read_spectrum(chains, log_priors=True)
    path.write_text("\n".join(" ".join(map(str, [*(10**x for x in r[:3]), r[3]])) for r in rows))
    linear = read_spectrum(chains, log_priors=False)
    for one, other in zip(logs, linear, strict=True):
        assert other.mean == pytest.approx(one.mean)
        assert other.percentiles == pytest.approx(one.percentiles)
    path.write_text("1.0 0.0 2.0 -3.0\n")
    found = summed(outputs, {"log_priors": False})
    assert "not positive" in found.notes[0]


@given(st.lists(FINITE, min_size=1, max_size=40), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_rise_and_stay_within(values, low, high):
    low, high = sorted((low, high))
    ordered = sorted(values)
    found = [percentile(ordered, p) for p in (0, low, high, 100)]
    slack = 1e-9 * max(1, abs(ordered[0]), abs(ordered[-1]))
    assert (found[0], found[-1]) == (ordered[0], ordered[-1])
    assert all(a <= b + slack for a, b in pairwise(found))
