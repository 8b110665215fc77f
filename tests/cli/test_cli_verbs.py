"""Each verb, on real bundles of a small tool, run on this machine."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from valska.external_tools.core.directives import OWNED

# --- bundle --------------------------------------------------------------------------------------


def test_bundle_prints_its_path_last_and_what_next_on_stderr(user):
    command = ("bundle", "linetool", "--template", "three", "--runner", "host", "-o", "here")
    result = user.ok(*command)
    assert result.stdout.splitlines()[-1] == str(user.cwd / "here")
    assert "valska submit" in result.stderr
    assert (user.cwd / "here/manifest.json").is_file()


def test_bundle_below_the_results_root(user):
    user.write("my lines.yaml", "data: x.txt\n")
    user.write("x.txt", "1\n")
    args = ("bundle", "linetool", "my lines.yaml", "--runner", "host", "--results-root", "runs")
    path = Path(user.ok(*args, "--taxonomy", "kind=odd").stdout.strip())
    assert path == user.cwd / "runs/linetool/odd/my_lines"
    assert user.run(*args, "--taxonomy", "kind=odd").exit_code == 2
    unique = Path(
        user.ok(*args, "--taxonomy", "kind=odd", "--run-id", "r", "--unique").stdout.strip()
    )
    assert unique.parent == user.cwd / "runs/linetool/odd/r"
    assert re.fullmatch(r"\d{8}T\d{6}Z", unique.name)


def test_bundle_json(user):
    args = ("bundle", "linetool", "--template", "three", "--runner", "host", "-o", "b", "--json")
    data = json.loads(user.ok(*args).stdout)
    sums = (user.cwd / "b/SHA256SUMS").read_bytes()
    assert data["seal"] == hashlib.sha256(sums).hexdigest()
    assert data["stages"] == ["count", "double"]
    assert data["bundle"] == str(user.cwd / "b")


def test_bundle_dry_run_touches_nothing(user):
    args = ("bundle", "linetool", "--template", "three", "--runner", "host", "--results-root", "r")
    before = sorted(user.cwd.rglob("*"))
    text = user.ok(*args, "--dry-run").stdout
    assert text.splitlines()[-1] == str(user.cwd / "r/linetool/plain/three")
    data = json.loads(user.ok(*args, "--dry-run", "--json").stdout)
    assert data["dry_run"] is True
    assert set(data["stages"]) == {"count", "double"}
    assert sorted(user.cwd.rglob("*")) == before


def test_directives_reach_the_script_and_the_manifest(user):
    user.write(
        "config/runtime_paths.yaml", "slurm: {account: abc}\nlinetool: {slurm: {qos: low}}\n"
    )
    bundle = user.bundle(
        "--slurm",
        "time=01:30:00",
        "--slurm",
        "qos=",
        "--slurm",
        "exclusive",
        "--slurm",
        "comment=a b",
    )
    directives = json.loads((bundle / "manifest.json").read_text())["stages"][0]["directives"]
    assert {name: value for name, value in directives.items() if name not in OWNED} == {
        "time": "01:30:00",
        "ntasks": "1",
        "account": "abc",
        "exclusive": "",
        "comment": "a b",
    }
    lines = (bundle / "submit_count.sh").read_text().splitlines()
    assert "#SBATCH --time=01:30:00" in lines
    assert "#SBATCH --exclusive" in lines
    assert not any("qos" in line for line in lines if line.startswith("#SBATCH"))


def test_overrides_are_typed(user):
    bundle = user.bundle("--override", "then=' && true'")
    assert "then:" in (bundle / "config/lines.yaml").read_text()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "no configuration"),
        (["a.yaml", "--template", "three"], 2, "do not go together"),
        (["--template", "thre"], 2, "no template is called 'thre'"),
        (["missing.yaml"], 2, "no such file"),
        (["."], 2, "directory"),
        (["--template", "three", "--run-id", "a/b"], 2, "run id 'a/b'"),
        (["--template", "three", "--run-id", ".."], 2, "run id '..'"),
        (["--template", "three", "--run-id", "a\nb"], 2, "run id"),
        (["--template", "three", "--slurm", "tmie=1"], 2, "no option 'tmie'"),
        (["--template", "three", "--slurm", "time=1", "--slurm", "time=2"], 2, "given twice"),
        (["--template", "three", "--slurm", "comment=a\nb"], 2, "control character"),
        (["--template", "three", "--slurm", "output=x"], 2, OWNED["output"]),
        (["--template", "three", "--override", "oops"], 2, "'oops' is no override"),
        (["--template", "three", "--override", "dta=1"], 2, "dta"),
        (["--template", "three", "--taxonomy", "kind"], 2, "not of the form KEY=VALUE"),
        (["--template", "three", "--copy-limit", "lots"], 2, "is no size"),
        (["--template", "three", "--runner", "conda"], 2, "no environment"),
        (["--template", "three"], 2, "no place for the bundle"),
        (["--template", "three", "-o", "a\nb"], 2, "holds a control character"),
        (["--template", "three", "-o", "a\udcffb"], 2, "is not UTF-8"),
        (["a\udcffb.yaml", "-o", "b"], 2, "is not UTF-8"),
    ],
)
def test_bundle_refuses(user, args, code, message):
    before = sorted(user.cwd.rglob("*"))
    runner = () if "--runner" in args else ("--runner", "host")
    result = user.run("bundle", "linetool", *args, *runner)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Hint: " in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert result.stdout == ""
    assert sorted(user.cwd.rglob("*")) == before


def test_bundle_without_an_image_says_how_to_get_one(user):
    result = user.run("bundle", "pyuvsim", "--template", "hera_small", "-o", "b")
    assert result.exit_code == 3
    assert "valska build" in result.stderr
    assert not (user.cwd / "b").exists()


def test_what_build_refuses_names_the_option_as_its_help_does(user):
    result = user.run("build", "pyuvsim", "--build-arg", "nothing")
    assert (result.exit_code, "not of the form KEY=VALUE" in result.stderr) == (2, True)
    assert "--build-arg KEY=VALUE" in user.ok("build", "--help").stdout
    for more in ((), ("--dry-run",), ("--check-only",)):
        result = user.run("build", "pyuvsim", "--against", "x", *more)
        assert (result.exit_code, "--against is for --check" in result.stderr) == (2, True)


@pytest.mark.parametrize("size", ["0", "1K", "2.5MiB", "3gb"])
def test_copy_limit(user, size):
    bundle = user.bundle("--copy-limit", size)
    (entry,) = json.loads((bundle / "manifest.json").read_text())["inputs"]
    assert entry["mode"] == ("reference" if size == "0" else "copy")


def test_a_disk_that_is_really_full_leaves_nothing(user, require):
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = 'mount -t tmpfs -o size=40k none "$1" && cd "$1"'
    probe = subprocess.run([*inside, "bash", "-c", mount, "x", user.cwd], check=False)
    require(probe.returncode == 0, "no user namespace to mount a small disk in")
    script = f"""{mount}; shift; "$@"; code=$?; ls -A; exit "$code\""""
    command = ["bundle", "linetool", "--template", "three", "--runner", "host", "-o", "b"]
    done = subprocess.run(
        [*inside, "bash", "-c", script, "x", user.cwd, sys.executable, "-m", "valska", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "no space left on device" in done.stderr.lower()
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# --- verify, show --------------------------------------------------------------------------------


def test_verify_intact(user):
    bundle = user.bundle()
    assert user.ok("verify", bundle).stdout == ""
    data = json.loads(user.ok("verify", bundle, "--json").stdout)
    assert data["intact"] is True
    assert data["findings"] == []


@pytest.mark.parametrize("name", ["submit_count.sh", "config/lines.yaml", "inputs/data.txt"])
def test_verify_names_one_changed_byte(user, name):
    bundle = user.bundle()
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(data)
    result = user.run("verify", bundle)
    assert result.exit_code == 5
    assert result.stdout.startswith(f"altered: {name}")
    findings = json.loads(user.run("verify", bundle, "--json").stdout)["findings"]
    assert [(one["kind"], one["path"]) for one in findings] == [("altered", name)]
    assert user.run("verify", bundle, "--fast").exit_code == 0
    assert user.run("submit", bundle, "--scheduler", "local").exit_code == 5
    assert not (bundle / "jobs.json").exists()


def test_what_is_no_bundle(user):
    for verb in ("verify", "status", "show", "submit", "cancel"):
        for path in ("none", "."):
            result = user.run(verb, path)
            assert result.exit_code == 3, (verb, path)
            assert "bundle" in result.stderr


def test_show(user):
    bundle = user.bundle()
    text = user.ok("show", bundle).stdout
    for part in (
        "linetool",
        "stage count",
        "stage double",
        "wc -l",
        "inputs/data.txt",
        "--time=10",
    ):
        assert part in text
    assert "stage double" not in user.ok("show", bundle, "--stage", "count").stdout
    data = json.loads(user.ok("show", bundle, "--json", "--stage", "double").stdout)
    assert [stage["name"] for stage in data["manifest"]["stages"]] == ["double"]
    assert user.run("show", bundle, "--stage", "cuont").exit_code == 2


def test_show_command_is_what_the_script_runs(user):
    bundle = user.bundle()
    text = user.ok("show", bundle, "--stage", "count", "--command").stdout.strip()
    done = subprocess.run(text, shell=True, cwd=bundle / "outputs", check=True)
    assert done.returncode == 0
    assert (bundle / "outputs/count.txt").read_text().strip() == "3"
    assert user.run("show", bundle, "--command").exit_code == 2
    data = json.loads(user.ok("show", bundle, "--command", "--json").stdout)
    assert set(data) == {"count", "double"}
    assert data["count"][-1].startswith("wc -l")


# --- submit, status, cancel, with the local scheduler --------------------------------------------


def test_submit_wait_status(user):
    bundle = user.bundle()
    result = user.process("submit", bundle, "--scheduler", "local", "--wait")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["count", "double"]
    assert "count completed" in result.stderr
    assert (bundle / "outputs/double.txt").read_text() == "6\n"
    data = json.loads(user.ok("status", bundle, "--json").stdout)
    assert data["state"] == "completed"
    assert [stage["state"] for stage in data["stages"]] == ["completed", "completed"]
    assert [stage["exit_code"] for stage in data["stages"]] == [0, 0]
    text = user.ok("status", bundle).stdout
    assert text.splitlines()[0].split()[:3] == ["stage", "state", "job"]
    assert user.ok("status", bundle, "--watch").stdout == text
    again = user.run("submit", bundle, "--scheduler", "local")
    assert again.exit_code == 4
    assert "--resubmit" in again.stderr
    assert user.ok("verify", bundle)


def test_status_before_submission(user):
    data = json.loads(user.ok("status", user.bundle(), "--json").stdout)
    assert data["state"] == "not-submitted"


def test_submit_dry_run_touches_nothing(user):
    bundle = user.bundle()
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    result = user.ok("submit", bundle, "--scheduler", "local", "--dry-run")
    assert "submit_count.sh" in result.stdout
    data = json.loads(user.ok("submit", bundle, "--dry-run", "--json").stdout)
    assert data["dry_run"] is True
    assert len(data["commands"]) == 2
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_a_refused_submit_leaves_the_site_as_the_job_that_runs_has_it(user):
    bundle = user.bundle("--override", "then=' && sleep 300'")
    user.ok("submit", bundle, "--scheduler", "local")
    before = (bundle / "site.env").read_bytes()
    config = user.write("other.yaml", "setup: ['true # another site']\n")
    refused = user.run("--config", config, "submit", bundle, "--scheduler", "local")
    assert refused.exit_code == 4
    assert (bundle / "site.env").read_bytes() == before
    user.ok("cancel", bundle, "--grace", "5")
    _until(lambda: _states(user, bundle)["count"] == "cancelled")
    again = user.run(
        *("--config", config, "submit", bundle, "--scheduler", "local", "--resubmit"),
        *("--stage", "count"),
    )
    assert again.exit_code == 0
    assert b"another site" in (bundle / "site.env").read_bytes()
    user.ok("cancel", bundle, "--grace", "5")


def test_wait_names_the_stage_that_failed_and_its_log(user):
    bundle = user.bundle("--override", "then=; echo wrong >&2; exit 7")
    result = user.process("submit", bundle, "--scheduler", "local", "--wait")
    assert result.returncode == 1
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("Error: stage count failed")
    log = Path(hint.removeprefix("Hint: Its log: "))
    assert "wrong" in log.read_text()
    assert user.run("status", bundle).exit_code == 0
    assert json.loads(user.ok("status", bundle, "--json").stdout)["stages"][0]["exit_code"] == 7
    resubmitted = user.process("submit", bundle, "--scheduler", "local", "--resubmit", "--wait")
    assert resubmitted.returncode == 1
    assert list(bundle.glob("jobs_*.json"))


def test_submit_single_stages(user):
    bundle = user.bundle()
    refused = user.run("submit", bundle, "--scheduler", "local", "--stage", "double")
    assert refused.exit_code == 3
    assert user.run("submit", bundle, "--stage", "cuont").exit_code == 2
    done = user.process("submit", bundle, "--scheduler", "local", "--stage", "count", "--wait")
    assert done.returncode == 0, done.stderr
    done = user.process("submit", bundle, "--scheduler", "local", "--stage", "double", "--wait")
    assert done.returncode == 0, done.stderr


def test_cancel_ends_a_running_job(user):
    bundle = user.bundle("--override", "then=' && sleep 300'")
    user.ok("submit", bundle, "--scheduler", "local")
    _until(lambda: _states(user, bundle)["count"] == "running")
    assert user.ok("cancel", bundle, "--dry-run").stdout.splitlines()[0].startswith("count would")
    assert _states(user, bundle)["count"] == "running"
    cancelled = user.ok("cancel", bundle, "--grace", "5").stdout
    assert "count cancelled" in cancelled
    _until(lambda: _states(user, bundle)["count"] == "cancelled")
    assert _states(user, bundle)["double"] == "cancelled"
    assert user.ok("cancel", bundle).stdout == ""


def test_interrupting_wait_leaves_the_job_alone(user):
    bundle = user.bundle("--override", "then=' && sleep 300'")
    process = subprocess.Popen(
        [sys.executable, "-m", "valska", "submit", str(bundle), "--scheduler", "local", "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while "Submitted to" not in process.stderr.readline():
            assert process.poll() is None
        _until(
            lambda: (bundle / "jobs.json").exists() and _states(user, bundle)["count"] == "running"
        )
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "valska cancel" in err
        assert _states(user, bundle)["count"] == "running"
    finally:
        user.run("cancel", bundle, "--grace", "1")


def test_submit_takes_a_moved_bundle(user):
    bundle = user.bundle()
    moved = bundle.with_name("moved to 'another place'")
    bundle.rename(moved)
    done = user.process("submit", moved, "--scheduler", "local", "--wait")
    assert done.returncode == 0, done.stderr


def test_slurm_without_sbatch(user, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    result = user.run("submit", user.bundle(), "--scheduler", "slurm")
    assert result.exit_code == 3
    assert "sbatch" in result.stderr


def test_submit_refuses_to_take_a_directive_out(user):
    result = user.run("submit", user.bundle(), "--scheduler", "local", "--slurm", "time=")
    assert result.exit_code == 2
    assert "cannot take a directive out" in result.stderr


# --- config, templates, doctor -------------------------------------------------------------------


def test_config_show(user):
    path = user.write(
        "config/runtime_paths.yaml",
        "results_root: /r\nslurm: {time: 90}\nlinetool: {runner: host, slurm: {qos: null}}\n",
    )
    text = user.ok("config", "show", "linetool").stdout
    assert f"(file: {path})" in text
    assert re.search(rf"results_root +/r +\[{path}\]", text)
    assert re.search(r"runner +host +\[section linetool of ", text)
    assert re.search(r"slurm count time +90 +\[site\]", text)
    assert re.search(r"slurm count qos +\(left out\) +\[section linetool\]", text)
    data = json.loads(user.ok("config", "show", "--json").stdout)
    assert data["linetool"]["settings"]["runner"]["value"] == "host"
    assert data["pyuvsim"]["settings"]["runner"]["origin"] == "default"


def test_templates(user):
    listing = user.ok("templates").stdout
    assert "linetool  three" in listing
    assert "Three lines" in listing
    assert json.loads(user.ok("templates", "linetool", "--json").stdout) == {"linetool": ["three"]}
    assert user.ok("templates", "linetool", "--show", "three").stdout.startswith("# Three lines")
    copy = ("templates", "linetool", "--copy", "three", "mine")
    shown = json.loads(user.ok("templates", "linetool", "--show", "three", "--json").stdout)
    assert shown["text"].startswith("# Three lines")
    assert "would copy" in user.ok(*copy, "--dry-run").stderr
    planned = json.loads(user.ok(*copy, "--dry-run", "--json").stdout)
    assert planned["files"] == ["mine/three.yaml", "mine/three.txt"]
    assert not (user.cwd / "mine").exists()
    copied = Path(user.ok(*copy).stdout.strip())
    assert copied == Path("mine/three.yaml")
    assert (user.cwd / "mine/three.txt").read_text() == "a\nb\nc\n"
    assert user.run(*copy).exit_code == 2
    assert user.run("templates", "--show", "three").exit_code == 2
    user.ok("bundle", "linetool", copied, "--runner", "host", "-o", "b")


def test_templates_of_pyuvsim_can_be_copied_and_bundled(user):
    for name in json.loads(user.ok("templates", "pyuvsim", "--json").stdout)["pyuvsim"]:
        copied = user.ok("templates", "pyuvsim", "--copy", name, f"c/{name}").stdout.strip()
        user.ok("bundle", "pyuvsim", copied, "--runner", "host", "-o", f"b/{name}")
        user.ok("verify", f"b/{name}")


def test_doctor(user):
    result = user.run("doctor", "--json")
    data = json.loads(result.stdout)
    missing = [check["name"] for check in data["checks"] if check["status"] == "missing"]
    assert result.exit_code == (3 if missing else 0)
    assert data["ready"] is (not missing)
    assert {"apptainer", "image store", "sbatch"} <= {check["name"] for check in data["checks"]}
    assert all(check["advice"] for check in data["checks"] if check["status"] != "ok")
    lines = user.run("doctor").stdout.splitlines()
    assert any(line.split()[1:2] == ["apptainer"] for line in lines)


def test_doctor_finds_a_bad_configuration(user):
    path = user.write("bad.yaml", "slurm: {tmie: 1}\n")
    result = user.run("--config", path, "doctor")
    assert result.exit_code == 3
    assert "tmie" in result.stdout


def _states(user, bundle):
    stages = json.loads(user.ok("status", bundle, "--json").stdout)["stages"]
    return {stage["stage"]: stage["state"] for stage in stages}


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
