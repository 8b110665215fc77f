"""``valska sweep`` and the options of tools, as a user types them."""

import json
import shlex
import sys

import pytest

from valska.cli import per_tool
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.document import read_sweep_manifest
from valska.external_tools.core.sweep.layout import Sweep

SMALL = ("pyuvsim", "--template", "hera_small", "--runner", "host")


def entries(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_sweep_from_a_template(user):
    done = user.ok("sweep", *SMALL, "--range", "freq.start_freq=1e8:2e8:3", "-o", "here")
    path = user.cwd / "here"
    assert done.stdout.splitlines()[-1] == str(path)
    assert f"Next: valska submit {shlex.quote(str(path))}" in done.stderr
    assert "3 points made, 3 in all." in done.stderr
    labels = [point.label for point in read_sweep_manifest(Sweep(path)).points]
    assert labels == [f"start_freq_{n}0000000.0" for n in (10, 15, 20)]
    assert "N is the number of lines less one" in (path / "README.md").read_text()
    user.ok("verify", "here")


def test_its_place_below_the_results_root(user):
    done = user.ok("sweep", *SMALL, "--values", "freq.Nfreqs=4", "--results-root", "r",
                   "--sweep-id", "mine")  # fmt: skip
    place = done.stdout.splitlines()[-1]
    assert place.startswith(str(user.cwd / "r/pyuvsim"))
    assert place.endswith("/_sweeps/mine")


def test_a_dry_run_prints_points_and_cost_and_touches_nothing(user):
    done = user.ok("sweep", *SMALL, "--perturb", "freq.start_freq=-0.05,0", "--values",
                   "time.Ntimes=4,5", "-o", "here", "--dry-run",
                   "--slurm", "cpus-per-task=2", "--slurm", "time=30")  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["point", "time.Ntimes", "freq.start_freq", "times", "1", "+"]
    assert lines[1].split() == ["Ntimes_4_start_freq_x-0.05", "4", "-0.05"]
    assert "jobs: simulate 4" in lines
    assert "asked for, at most: 4 CPU hours, 0 GPU hours" in lines
    assert lines[-1] == str(user.cwd / "here")
    assert "Nothing was made" in done.stderr
    assert entries(user.cwd) == []


def test_a_dry_run_as_json(user):
    user.ok("sweep", *SMALL, "--values", "time.Ntimes=4", "-o", "here")
    done = user.ok("sweep", *SMALL, "--values", "time.Ntimes=4,5", "-o", "here", "--add",
                   "--dry-run", "--json", "--slurm", "time=3-0")  # fmt: skip
    data = json.loads(done.stdout)
    assert (data["added"], data["kept"]) == (["Ntimes_5"], ["Ntimes_4"])
    assert data["cost"] == {"jobs": {"simulate": 1}, "cpu_hours": 1.0, "gpu_hours": 0.0}
    assert data["notes"] == [
        "the script of simulate stays as it is, without time=3-0: give --slurm to `valska submit`"
    ]
    assert data["points"][1] == {
        "label": "Ntimes_5", "values": {"time.Ntimes": 5}, "perturbations": {},
    }  # fmt: skip
    done = user.ok("sweep", *SMALL, "--values", "time.Ntimes=4,5", "-o", "here", "--add",
                   "--dry-run", "--slurm", "time=30")  # fmt: skip
    shown = [line.split()[1:] for line in done.stdout.splitlines()[1:3]]
    assert shown == [["4", "there", "already"], ["5"]]
    assert "asked for, at most: 1 CPU hours" in done.stdout
    assert "Note: the script of simulate stays as it is, without time=30" in done.stderr


def test_points_are_added_with_add_only(user):
    command = ("sweep", *SMALL, "-o", "here", "--values")
    user.ok(*command, "time.Ntimes=4,5")
    assert "0 points made, 2 were there already" in user.ok(*command, "time.Ntimes=4,5").stderr
    refused = user.run(*command, "time.Ntimes=5,6")
    assert refused.exit_code == 2
    assert "--add" in refused.stderr
    done = user.ok(*command, "time.Ntimes=5,6", "--add", "--json")
    data = json.loads(done.stdout)
    assert (data["points"], data["added"], data["kept"]) == (3, ["Ntimes_6"], ["Ntimes_5"])
    user.ok("verify", "here")
    again = user.ok(*command, "time.Ntimes=6", "--add", "--slurm", "time=30")
    assert "0 points made, 1 was there already" in again.stderr
    assert "Note: the script of simulate stays as it is, without time=30" in again.stderr


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_sweep_id_that_is_no_name(user, name):
    done = user.run("sweep", *SMALL, "--values", "time.Ntimes=4", "-o", "here", "--sweep-id", name)
    assert done.exit_code == 2
    assert f"--sweep-id {name!r} is not usable as a name" in done.stderr
    assert entries(user.cwd) == []


def test_a_bad_value_names_the_point_and_the_key(user):
    refused = user.run("sweep", *SMALL, "--values", "time.Ntimes=4,many", "-o", "here")
    assert refused.exit_code == 2
    assert 'point Ntimes_many (time.Ntimes="many")' in refused.stderr
    assert "time.Ntimes is not a number" in refused.stderr
    assert entries(user.cwd) == []


def test_a_key_with_a_typing_error(user):
    refused = user.run("sweep", *SMALL, "--values", "time.Ntime=4", "-o", "here")
    assert refused.exit_code == 2
    assert "Did you mean 'time.Ntimes'" in refused.stderr


def test_points_from_files(user):
    user.write("points.csv", "label,time.Ntimes\nshort,4\nlong,40\n")
    user.ok("sweep", *SMALL, "--points", "points.csv", "-o", "one")
    user.write("values.txt", "4\n5\n")
    user.ok("sweep", *SMALL, "--values-file", "time.Ntimes=values.txt", "--values",
            "freq.Nfreqs=2,3", "--zip", "-o", "two")  # fmt: skip
    names = {
        name: sorted(path.name for path in (user.cwd / name / "points").iterdir())
        for name in ("one", "two")
    }
    assert names == {
        "one": ["long", "short"],
        "two": ["Nfreqs_2_Ntimes_4", "Nfreqs_3_Ntimes_5"],
    }


def test_the_help_has_an_example_that_works(user):
    lines = user.ok("sweep", "--help").stdout.splitlines()
    (example,) = [line.split() for line in lines if line.lstrip().startswith("valska sweep ")]
    place = example.index("obsparam.yaml")
    assert example[1:place] == ["sweep", "pyuvsim"]
    user.ok("sweep", *SMALL, *example[place + 1 :])


def test_no_points(user):
    refused = user.run("sweep", *SMALL, "-o", "here")
    assert refused.exit_code == 2
    assert "--values" in refused.stderr


def test_the_console_scripts_of_tools(user, monkeypatch, capsys):
    for function in (per_tool.pyuvsim_sweep, per_tool.bayeseor_sweep):
        monkeypatch.setattr(sys, "argv", ["valska-x-sweep", "--help"])
        with pytest.raises(SystemExit) as ended:
            function()
        assert ended.value.code == 0
        assert "Usage: valska sweep" in capsys.readouterr().out


# --- Perturbing one run ---------------------------------------------------------------------------


def test_a_bundle_with_a_perturbation(user):
    user.ok("bundle", *SMALL, "--perturb", "freq.start_freq=-0.05", "-o", "here")
    manifest = read_manifest(Bundle(user.cwd / "here"))
    assert manifest.spec["perturbations"] == {"freq.start_freq": -0.05}
    assert "start_freq: 114000000.0" in (user.cwd / "here/config/obsparam.yaml").read_text()
    user.ok("sweep", *SMALL, "--perturb", "freq.start_freq=-0.05", "-o", "sweep")
    (point,) = read_sweep_manifest(Sweep(user.cwd / "sweep")).points
    assert point.bundle_id == manifest.bundle_id


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--perturb", "freq.start=0.1"), "no key 'freq.start'"),
        (("--perturb", "freq.start_freq=x"), "no number"),
        (("--perturb", "freq.start_freq"), "no perturbation"),
        (("--perturb", "filing.outfile_name=0.1"), "is no number"),
        (("--perturb", "time.Ntimes=0.1", "--override", "time.Ntimes=3"), "both set and perturbed"),
    ],
)
def test_perturbations_that_are_none(user, options, said):
    refused = user.run("bundle", *SMALL, *options, "-o", "here")
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert entries(user.cwd) == []


def test_a_tool_that_cannot_perturb_says_so(user):
    refused = user.run("bundle", "linetool", "--template", "three", "--runner", "host",
                       "--perturb", "data=0.1", "-o", "here")  # fmt: skip
    assert refused.exit_code == 2
    assert "changes nothing" in refused.stderr


# --- Options of tools -----------------------------------------------------------------------------


@pytest.fixture
def optional(user, monkeypatch):
    import linetool

    from valska.external_tools.core.tool import ToolOption

    options = (
        ToolOption("line-end", "Which line ends.", choices=("unix", "dos"), default="unix"),
        ToolOption("loud", "Say more.", flag=True),
        ToolOption("extra", "A file.", metavar="FILE"),
    )
    monkeypatch.setattr(linetool.LineTool, "options", options, raising=False)
    return user


def spec_options(user, *args):
    user.ok(*args)
    return read_manifest(Bundle(user.cwd / "here")).spec["options"]


LINES = ("--template", "three", "--runner", "host", "-o", "here")


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (("bundle", "linetool", *LINES), {"line_end": "unix"}),
        (
            ("bundle", "--line-end", "dos", "linetool", *LINES, "--loud", "--extra", "linetool"),
            {"line_end": "dos", "loud": True, "extra": "linetool"},
        ),
        (("bundle", "--run-id", "linetool", "linetool", *LINES), {"line_end": "unix"}),
    ],
)
def test_options_of_a_tool(optional, args, found):
    assert spec_options(optional, *args) == found


def test_help_shows_the_options_of_the_tool(optional):
    shown = optional.ok("bundle", "linetool", "--help").stdout
    assert "Options of linetool" in shown
    assert "--line-end [unix|dos]" in shown
    assert "Options of linetool" in optional.ok("sweep", "linetool", "--help").stdout
    assert "--line-end" not in optional.ok("bundle", "--help").stdout
    assert "--line-end" not in optional.ok("bundle", "pyuvsim", "--help").stdout


def test_an_option_of_another_tool_is_none(optional):
    refused = optional.run("bundle", *SMALL, "--loud", "-o", "here")
    assert refused.exit_code == 2
    assert "--loud" in refused.stderr


def test_a_wrong_choice(optional):
    refused = optional.run("bundle", "linetool", *LINES, "--line-end", "mac")
    assert refused.exit_code == 2
    assert "'mac' is not one of" in refused.stderr


def test_a_tool_with_an_option_of_valskas(optional, monkeypatch):
    import linetool

    from valska.external_tools.core.tool import ToolOption

    monkeypatch.setattr(linetool.LineTool, "options", (ToolOption("json", "Mine."),))
    refused = optional.run("bundle", "linetool", *LINES)
    assert refused.exit_code == 1
    assert "--json" in refused.stderr


def test_bayeseor_shows_its_own(user):
    shown = user.ok("bundle", "bayeseor", "--help").stdout
    assert "--hypothesis [both|signal_fit|no_signal]" in shown
