"""``valska report`` and ``valska compare`` at the command line, on what the real BayesEoR wrote."""

import builtins
import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from reported import CHAINS, finish, make_sweep, points, put_chains
from uvh5 import png_chunks, write_uvh5

from valska.external_tools.core.schema import validate


@pytest.fixture
def sweep(user):
    """A sweep of three points: two have completed, the last one only in part."""
    sweep = make_sweep(user)
    first, second, third = points(sweep)
    put_chains(first / "outputs")
    put_chains(second / "outputs", signal_fit=(-237.0, 0.03), no_signal=(-235.0, 0.04))
    put_chains(third / "outputs")
    finish(first)
    finish(second)
    finish(third, ("cpu_precompute", "signal_fit"))
    finish(third, ("no_signal",), state="failed")
    return sweep


def lines_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def document(result):
    return json.loads(result.stdout)


def without_matplotlib(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **more):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_sweep_is_a_table_with_a_line_for_each_point(user, sweep):
    result = user.ok("report", sweep)
    head, *lines = result.stdout.splitlines()
    assert head.split("  ")[0] == "point"
    assert [word for word in ("fwhm_deg", "Δ ln Z", "null test", "note") if word in head] == [
        "fwhm_deg",
        "Δ ln Z",
        "null test",
        "note",
    ]
    assert [line.split()[1] for line in lines] == ["9.0", "9.5", "10.0"]
    assert "2.065 ± 0.023" in lines[0]
    assert lines[0].rstrip().endswith("fail")
    assert "-2.000 ± 0.050" in lines[1]
    assert lines[1].rstrip().endswith("pass")
    assert lines[2].rstrip().endswith("no_signal: failed")
    assert "Note: 1 of 3 incomplete: " in result.stderr


def test_the_exit_code_tells_scripts_only_if_asked(user, sweep):
    result = user.run("report", sweep, "--check")
    assert result.exit_code == 1
    assert "1 of 3 incomplete" in result.stderr
    assert "2.065 ± 0.023" in result.stdout
    finish(points(sweep)[2], ("no_signal",))
    assert user.ok("report", sweep, "--check").stderr == ""


def test_evidence_and_sigma(user, sweep):
    plain = user.ok("report", sweep, "--evidence", "ns").stdout.splitlines()
    assert "2.477 ± 0.061" in plain[1]
    assert "-2.00 ± 0.10" in plain[2]
    doubtful = user.ok("report", sweep, "--sigma", "100").stdout.splitlines()
    assert doubtful[2].rstrip().endswith("inconclusive")
    refused = user.run("report", sweep, "--sigma", "-1")
    assert refused.exit_code == 2
    assert "--sigma '-1' is no number" in refused.stderr
    assert user.run("report", sweep, "--evidence", "mean").exit_code == 2


def test_json_is_a_valid_report(user, sweep):
    data = document(user.ok("report", sweep, "--json"))
    validate(data, "report-1", "stdout")
    assert (data["kind"], data["tool"], data["complete"]) == ("sweep", "bayeseor", False)
    assert data["options"] == {"evidence": "ins", "sigma": "3"}
    assert data["parameters"] == [{"key": "fwhm_deg", "fraction": False}]
    assert [row["values"]["fwhm_deg"] for row in data["rows"]] == [9.0, 9.5, 10.0]
    assert [row["complete"] for row in data["rows"]] == [True, True, False]
    assert data["rows"][2]["results"]["delta_ln_z"] is None
    assert data["rows"][2]["notes"] == ["no_signal: failed"]
    assert len(data["rows"][0]["tables"]["spectrum"]) == 6


def test_everything_into_a_directory(user, sweep):
    result = user.ok("report", sweep, "-o", "out/deep")
    out = user.cwd / "out/deep"
    assert {path.name for path in out.iterdir()} == {
        "report.csv", "report.json", "spectrum.csv", "delta_ln_z.png", "ln_z.png",
        "spectrum_signal_fit.png", "spectrum_no_signal.png",
    }  # fmt: skip
    assert result.stderr.count("Wrote out/deep/") == 7
    rows = lines_of((out / "report.csv").read_text())
    assert [row["fwhm_deg"] for row in rows] == ["9.0", "9.5", "10.0"]
    assert float(rows[0]["delta_ln_z"]) == -233.866200168804909 + 235.931206834128687
    assert (rows[2]["delta_ln_z"], rows[2]["note"]) == ("", "no_signal: failed")
    spectrum = lines_of((out / "spectrum.csv").read_text())
    assert len(spectrum) == 6 + 6 + 3
    assert json.loads((out / "report.json").read_text()) == document(
        user.ok("report", sweep, "--json")
    )
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    user.ok("report", sweep, "-o", "out/deep")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_single_files(user, sweep):
    user.ok("report", sweep, "--csv", "a.csv", "--plot", "all.png", "--against", "fwhm_deg")
    assert len(lines_of((user.cwd / "a.csv").read_text())) == 3
    assert png_chunks((user.cwd / "all.png").read_bytes())[-1] == "IEND"
    user.ok("report", sweep, "--plot", "pictures")
    assert len(list((user.cwd / "pictures").glob("*.png"))) == 4
    result = user.run("report", sweep, "--plot", "x.png", "--against", "nu")
    assert result.exit_code == 2
    assert "It sweeps: fwhm_deg." in result.stderr


def test_a_dry_run_writes_nothing(user, sweep):
    before = sorted(user.cwd.rglob("*"))
    result = user.ok("report", sweep, "-o", "out", "--csv", "x.csv", "--dry-run")
    assert result.stderr.count("Would write") == 8
    assert sorted(user.cwd.rglob("*")) == before


@pytest.mark.parametrize("place", ["", "points/x", "outputs"])
def test_nothing_is_written_into_a_sweep(user, sweep, place):
    result = user.run("report", sweep, "-o", sweep / place)
    assert result.exit_code == 2
    assert "which is sealed" in result.stderr
    assert json.loads(user.ok("verify", sweep, "--json").stdout)["intact"]


def test_a_point_is_shown_with_its_spectrum(user, sweep):
    text = user.ok("report", points(sweep)[0]).stdout
    shown, spectrum = text.split("\n\n")
    fields = dict(line.split("  ", 1) for line in shown.splitlines())
    assert fields["fwhm_deg"].strip() == "9.0"
    assert fields["Δ ln Z"].strip() == "2.065 ± 0.023"
    assert fields["null test"].strip() == "fail"
    assert spectrum.splitlines()[2].split()[:4] == ["signal_fit", "1", "0.264329", "1.66"]
    assert len(spectrum.splitlines()) == 2 + 6


def test_a_bundle(user):
    data = user.write("eor.uvh5", "x")
    command = ("bundle", "bayeseor", "--template", "tiny_cpu", "--cpu", "--runner", "host")
    user.ok(*command, "--data", data, "-o", "run")
    first = user.run("report", "run", "--check")
    assert first.exit_code == 1
    assert "signal_fit: not-submitted" in first.stdout
    put_chains(user.cwd / "run/outputs")
    finish(user.cwd / "run")
    text = user.ok("report", "run", "--check").stdout
    assert "2.065 ± 0.023" in text
    assert "signal_fit  3" in text
    result = user.run("report", "run", "--plot", "x.png", "--against", "fwhm_deg")
    assert "It sweeps: nothing." in result.stderr
    user.ok("report", "run", "--plot", "x.png")


def test_damage_in_one_point_leaves_the_others(user, sweep):
    stats = points(sweep)[0] / "outputs/signal_fit" / CHAINS / "data-stats.dat"
    stats.write_bytes(stats.read_bytes()[:70])
    lines = user.ok("report", sweep).stdout.splitlines()
    assert (
        lines[1].rstrip().endswith("signal_fit: data-stats.dat has no evidence of the kind 'ins'")
    )
    assert lines[2].split()[-1] == "pass"


def test_nothing_to_draw_is_told_after_the_report(user):
    sweep = make_sweep(user)
    result = user.run("report", sweep, "--plot", "x.png")
    assert result.exit_code == 3
    assert "signal_fit: not-submitted" in result.stdout
    assert "nothing to draw" in result.stderr
    told = user.ok("report", sweep, "-o", "out")
    assert "no pictures: there is nothing to draw" in told.stderr
    assert not list(user.cwd.rglob("*.png"))


def test_a_picture_is_a_png_or_goes_into_a_directory(user, sweep):
    user.write("file", "")
    for name in ("x.txt", "x.pdf", "file"):
        result = user.run("report", sweep, "--plot", name)
        assert result.exit_code == 2
        assert f"--plot {name} is no picture and no directory" in result.stderr
        assert not result.stdout
    (user.cwd / "run.d").mkdir()
    user.ok("report", sweep, "--plot", "run.d")


def test_without_matplotlib(user, sweep, monkeypatch):
    without_matplotlib(monkeypatch)
    result = user.run("report", sweep, "--plot", "x.png")
    assert result.exit_code == 3
    assert "valska[plot]" in result.stderr
    assert "no pictures: drawing needs" in user.ok("report", sweep, "-o", "out").stderr
    assert (user.cwd / "out/report.csv").is_file()


def test_the_verbs_load_no_heavy_package_to_start(user):
    code = (
        "import sys, valska.cli.report, valska.cli.compare\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert {"numpy", "matplotlib", "h5py", "jsonschema"} & set(out.split()) == set()


def test_a_whole_root(user, sweep):
    root = user.cwd / "root"
    shutil.move(sweep, root / "deep/_sweeps/s1")
    user.bundle(output=root / "lines")
    user.ok("bundle", "pyuvsim", "--template", "hera_small", "--runner", "host", "-o", root / "sim")
    write_uvh5(root / "sim/outputs/hera_small.uvh5")
    finish(root / "sim", ("simulate",))
    (root / "broken").mkdir()
    for name in ("manifest.json", "SHA256SUMS"):
        (root / "broken" / name).write_text("{")
    result = user.run("report", root, "--check", "-o", "out")
    assert result.exit_code == 1
    blocks = result.stdout.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "?: single runs", "linetool: single runs", "pyuvsim: single runs",
        "bayeseor: deep/_sweeps/s1",
    ]  # fmt: skip
    assert blocks[0].splitlines()[2].startswith("broken  unreadable")
    assert blocks[1].splitlines()[2].split() == ["lines", "not-submitted"]
    assert blocks[2].splitlines()[2].split()[:3] == ["sim", "completed", "48"]
    assert "3 of 6 incomplete: broken, lines, " in result.stderr
    rows = lines_of((user.cwd / "out/report.csv").read_text())
    assert [row["run"] for row in rows] == ["broken", "lines", "sim"] + ["deep/_sweeps/s1"] * 3
    assert (rows[2]["visibilities"], rows[3]["null_test"]) == ("48", "fail")
    assert (user.cwd / "out/deep/_sweeps/s1/delta_ln_z.png").is_file()
    data = document(user.ok("report", root, "--json"))
    for one in data["reports"]:
        validate(one, "report-1", "stdout")
    many = user.run("report", root, "--plot", "x.png")
    assert many.exit_code == 2
    assert "do not fit into one picture" in many.stderr


def test_what_cannot_be_reported(user):
    assert user.run("report", user.cwd).exit_code == 3
    user.bundle()
    result = user.run("report", "bundle")
    assert result.exit_code == 2
    assert "linetool cannot sum up" in result.stderr


def test_pyuvsim_over_a_real_parameter(user):
    user.ok("sweep", "pyuvsim", "--template", "hera_small", "--runner", "host",
            "--values", "freq.start_freq=1.0e8,1.2e8", "-o", "p")  # fmt: skip
    for point in points(user.cwd / "p"):
        (point / "outputs").mkdir()
        write_uvh5(point / "outputs/hera_small.uvh5")
        finish(point, ("simulate",))
    lines = user.ok("report", "p", "--check", "--plot", "p.png").stdout.splitlines()
    assert lines[0].split()[:2] == ["point", "freq.start_freq"]
    assert [line.split()[1:4] for line in lines[1:]] == [
        ["100000000.0", "completed", "48"],
        ["120000000.0", "completed", "48"],
    ]
    assert png_chunks((user.cwd / "p.png").read_bytes())[-1] == "IEND"


def test_two_sweeps_are_compared_on_their_points(user, sweep):
    other = make_sweep(user, values=(9.5, 9.0, 11.0), output="other")
    a, b, c = points(other)
    put_chains(a / "outputs", signal_fit=(-236.0, 0.03), no_signal=(-235.0, 0.04))
    put_chains(b / "outputs")
    for point in (a, b, c):
        finish(point)
    result = user.ok("compare", sweep, other)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["fwhm_deg", "quantity", "A", "B", "B", "-", "A", "sigma"]
    (delta,) = [line for line in lines if line.startswith("9.5") and "Δ ln Z" in line]
    assert delta.split("  ")[2:] != []
    assert "1.000 ± 0.071" in delta
    assert delta.split()[-1] == "14.1"
    (same,) = [line for line in lines if line.startswith("9.0") and "Δ ln Z" in line]
    assert same.split()[-1] == "0.0"
    assert lines[-2] == f"Only in A: {points(sweep)[2].name}"
    assert lines[-1] == f"Only in B: {c.name}"


def test_a_comparison_as_files(user, sweep):
    (user.cwd / "a.json").write_text(user.ok("report", sweep, "--json").stdout)
    (user.cwd / "b.json").write_text(user.ok("report", sweep, "--evidence", "ns", "--json").stdout)
    result = user.ok("compare", "a.json", "b.json", "-o", "out", "--csv", "c.csv")
    assert "evidence is ins in A and ns in B" in result.stderr
    out = user.cwd / "out"
    assert {path.name for path in out.iterdir()} == {
        "compare.csv", "compare.json", "difference_ln_z_signal_fit.png",
        "difference_ln_z_no_signal.png", "difference_delta_ln_z.png",
        "difference_log10_bayes_factor.png",
    }  # fmt: skip
    assert (out / "compare.csv").read_bytes() == (user.cwd / "c.csv").read_bytes()
    rows = lines_of((out / "compare.csv").read_text())
    (delta,) = [r for r in rows if r["fwhm_deg"] == "9.0" and r["quantity"] == "delta_ln_z"]
    assert float(delta["difference"]) == pytest.approx(2.4773580883 - 2.0650066653)
    assert {row["table"] for row in rows} == {"", "spectrum"}
    assert json.loads((out / "compare.json").read_text()) == document(
        user.ok("compare", "a.json", "b.json", "--json")
    )


def test_two_points_are_compared(user, sweep):
    first, second, _ = points(sweep)
    lines = user.ok("compare", first, second, "--tables", "--plot", "x.png").stdout.splitlines()
    assert lines[0].split()[:3] == ["A", "B", "quantity"]
    assert [line for line in lines if "spectrum signal_fit 1 mean" in line]
    assert (user.cwd / "x.png").is_file()


def test_what_cannot_be_compared(user, sweep):
    user.write("many.json", '{"reports": []}')
    user.write("no.json", "{}")
    user.write("not.json", "no")
    for name, message in (
        ("many.json", "many.json holds many reports"),
        ("no.json", "is a required property"),
        ("not.json", "is not JSON"),
        ("nothing.json", "cannot read nothing.json: No such file"),
    ):
        result = user.run("compare", sweep, name)
        assert result.exit_code == 2, name
        assert message in result.stderr
    assert user.run("compare", sweep, Path.cwd()).exit_code == 3
