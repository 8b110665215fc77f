"""archive, verify and unpack at a terminal."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from valska.external_tools.core.schema import validate
from valska.external_tools.core.utils import sha256_file


@pytest.fixture
def bundle(user):
    path = user.bundle("--run-id", "r1")
    user.ok("submit", path, "--scheduler", "local", "--wait")
    return path


@pytest.fixture
def archive(user, bundle):
    user.ok("archive", bundle, "-o", "r1.tar.zst")
    return user.cwd / "r1.tar.zst"


def test_archive_prints_its_path(user, bundle):
    done = user.ok("archive", bundle, "-o", "r1.tar.zst")
    assert done.stdout.splitlines() == [str(user.cwd / "r1.tar.zst")]
    assert "files" in done.stderr
    assert user.run("archive", bundle, "-o", "r1.tar.zst").exit_code == 2
    data = json.loads(user.ok("archive", bundle, "-o", "b.tar.zst", "--json").stdout)
    assert data["size"] == (user.cwd / "b.tar.zst").stat().st_size
    assert data["document"]["run_id"] == "r1"
    assert (user.cwd / "b.tar.zst").read_bytes() == (user.cwd / "r1.tar.zst").read_bytes()


def test_a_directory_that_is_not_there_is_told_at_once(user, bundle):
    result = user.run("archive", bundle, "-o", "nodir/x.tar.zst")
    assert (result.exit_code, "no such directory: nodir" in result.stderr) == (2, True)
    assert not (user.cwd / "nodir").exists()


def test_a_dry_run_writes_nothing(user, bundle):
    before = sorted(path.name for path in user.cwd.iterdir())
    assert "Would pack" in user.ok("archive", bundle, "--dry-run").stdout
    assert json.loads(user.ok("archive", bundle, "--dry-run", "--json").stdout)["dry_run"]
    assert sorted(path.name for path in user.cwd.iterdir()) == before
    user.write("bundle.tar.zst", "mine")
    done = user.ok("archive", bundle, "--dry-run")
    assert "bundle.tar.zst exists already" in done.stderr
    assert user.run("archive", bundle, "-o", bundle / "x", "--dry-run").exit_code == 2


def test_an_archive_is_named_after_the_directory_and_its_bytes_are_not(user, bundle):
    user.ok("archive", bundle)
    bundle.rename(user.cwd / "moved")
    for path in ("moved/", "moved/config/..", "r1/data/bundle"):
        done = user.ok("archive", path)
        name = "r1.tar.zst" if path.startswith("r1") else "moved.tar.zst"
        made = user.cwd / name
        assert done.stdout.splitlines() == [str(made)]
        assert made.read_bytes() == (user.cwd / "bundle.tar.zst").read_bytes()
        made.unlink()
        if not (user.cwd / "r1").exists():
            user.ok("unpack", "bundle.tar.zst")


def test_the_commands_of_the_page_work_as_written(user, require):
    """With a run id that is not the directory's name, and what bash, tar and sha256sum do."""
    require(shutil.which("zstd"), "there is no zstd, with which tar reads an archive")
    text = (Path(__file__).parents[2] / "docs/how-to/archive.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    user.bundle("--run-id", "other", output="run1")
    user.ok("submit", "run1", "--scheduler", "local", "--wait")
    values = ("--values", "run=echo 1,echo 2", "--sweep-id", "s1", "-o", "sweep1")
    user.ok(*SWEEP, *values)
    label = sorted(path.name for path in (user.cwd / "sweep1/points").iterdir())[0]
    valska = f'valska() {{ {shlex.quote(sys.executable)} -m valska "$@"; }}\n'
    for block in blocks:
        script = valska + block.replace("fwhm_deg_9.3", label)
        argv = ("bash", "-euo", "pipefail", "-c", script)
        done = subprocess.run(argv, cwd=user.cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, block + done.stdout + done.stderr
    assert (user.cwd / "run1.tar.zst").is_file()
    assert (user.cwd / f"sweep1-{label}.tar.zst").is_file()


def test_verify_reads_an_archive(user, archive):
    done = user.ok("verify", archive)
    assert "as it was packed" in done.stderr
    data = json.loads(user.ok("verify", archive, "--json").stdout)
    assert data["intact"] is True
    assert data["sha256"] == sha256_file(archive)
    assert user.ok("verify", archive, "--fast").exit_code == 0


@pytest.mark.parametrize("kind", ["archive", "bundle"])
def test_a_receipt_is_written(user, bundle, archive, kind):
    what = archive if kind == "archive" else bundle
    user.ok("verify", what, "--receipt", "receipt.json")
    data = json.loads((user.cwd / "receipt.json").read_text())
    validate(data, "receipt-1", "the receipt")
    assert (data["kind"], data["intact"], data["level"]) == (kind, True, "full")
    assert user.run("verify", user.cwd, "--receipt", "x.json").exit_code == 2


def test_a_receipt_replaces_only_a_receipt(user, bundle, archive):
    statement = user.write("r1.tar.zst.intoto.json", "{}\n")
    (user.cwd / "link").symlink_to(bundle / "logs")
    (user.cwd / "loose").symlink_to("nothing")
    before = {path: path.read_bytes() for path in user.cwd.rglob("*") if path.is_file()}
    taken = (archive, statement, "loose", bundle / "SHA256SUMS", bundle / "new.json", "link/new")
    for what in (archive, bundle):
        for place in taken:
            assert user.run("verify", what, "--receipt", place).exit_code == 2, place
    assert {path: path.read_bytes() for path in user.cwd.rglob("*") if path.is_file()} == before
    user.ok("verify", bundle)
    user.ok("verify", archive, "--receipt", "receipt.json")
    user.ok("verify", bundle, "--receipt", bundle / ".." / "receipt.json")
    assert json.loads((user.cwd / "receipt.json").read_text())["kind"] == "bundle"
    user.write("receipt.json.sig", "a signature")
    assert user.run("verify", bundle, "--receipt", "receipt.json").exit_code == 2


def test_a_place_for_a_receipt_is_refused_before_the_verification(user, archive):
    archive.write_bytes(archive.read_bytes()[:-100])
    done = user.run("verify", archive, "--receipt", archive)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is no receipt" in done.stderr


def test_an_altered_archive_ends_with_5_and_a_receipt(user, archive):
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    done = user.run("verify", archive, "--receipt", "receipt.json")
    assert done.exit_code == 5
    assert "altered: r1.tar.zst" in done.stdout
    receipt = json.loads((user.cwd / "receipt.json").read_text())
    validate(receipt, "receipt-1", "the receipt")
    assert receipt["intact"] is False
    assert receipt["findings"]
    unpacked = user.run("unpack", archive, "-o", "x")
    assert unpacked.exit_code == 5
    assert not (user.cwd / "x").exists()
    assert not [path for path in user.cwd.iterdir() if path.name.startswith(".")]


def test_unpack_makes_a_bag_with_the_bundle(user, bundle, archive):
    done = user.ok("unpack", archive)
    assert done.stdout.splitlines() == [str(user.cwd / "r1")]
    user.ok("verify", user.cwd / "r1/data/bundle")
    for path in bundle.rglob("*"):
        if path.is_file() and path.name != "site.env" and path.parent != bundle:
            copy = user.cwd / "r1/data/bundle" / path.relative_to(bundle)
            assert copy.read_bytes() == path.read_bytes()
    assert user.run("unpack", archive).exit_code == 2
    data = json.loads(user.ok("unpack", archive, "-o", "other", "--json").stdout)
    assert data["bundle"] == str(user.cwd / "other/data/bundle")


def test_an_unpacked_run_is_submitted_with_what_was_packed(user):
    """A referenced input is packed; the unpacked run is run again, and packed again."""
    data = user.write("far/data.txt", "a\nb\n")
    source = user.write("far/lines.yaml", "data: data.txt\n")
    command = ("bundle", "linetool", source, "--runner", "host", "--run-id", "r2", "-o", "r2")
    user.ok(*command, "--inputs", "reference")
    user.ok("submit", "r2", "--scheduler", "local", "--wait")
    user.ok("archive", "r2", "-o", "first.tar.zst")
    data.unlink()
    shutil.rmtree(user.cwd / "r2")
    user.ok("unpack", "first.tar.zst")
    bundle = user.cwd / "r2/data/bundle"
    user.ok("verify", bundle)
    user.ok("archive", bundle, "-o", "second.tar.zst")
    assert (user.cwd / "first.tar.zst").read_bytes() == (user.cwd / "second.tar.zst").read_bytes()
    user.ok("submit", bundle, "--scheduler", "local", "--wait", "--resubmit")
    user.ok("verify", bundle)
    assert (bundle / "outputs/double.txt").read_text() == "4\n"


@pytest.mark.parametrize("options", [("--max-size", "1k"), ("--max-files", "2")])
def test_limits_are_kept(user, archive, options):
    done = user.run("unpack", archive, *options)
    assert done.exit_code == 5
    assert "more than" in done.stderr
    assert user.run("unpack", archive, "--max-size", "many").exit_code == 2


def test_a_secret_stops_the_archive(user, bundle):
    log = bundle / "logs" / "mine.log"
    log.write_text("so\nexport API_" + "TOKEN=abcdef123\n")
    done = user.run("archive", bundle, "-o", "r1.tar.zst")
    assert done.exit_code == 2
    assert "logs/mine.log:2" in done.stderr
    assert "abcdef123" not in done.output
    assert not (user.cwd / "r1.tar.zst").exists()
    user.ok("archive", bundle, "-o", "r1.tar.zst", "--allow-secret", "logs/mine.log:2")


def test_an_allowance_of_no_secret_is_told(user, bundle):
    for place in ("nosuch", "config/lines.yaml:", ":1", "config/lines.yaml:0", "nosuch:1"):
        for options in ((), ("--dry-run",)):
            done = user.run("archive", bundle, "--allow-secret", place, *options)
            assert (done.exit_code, place in done.stderr, "Hint: " in done.stderr) == (
                2,
                True,
                True,
            )
    assert not (user.cwd / "bundle.tar.zst").exists()


def test_a_dry_run_looks_for_secrets_too(user, bundle):
    (bundle / "logs" / "mine.log").write_text("export API_" + "TOKEN=abcdef123\n")
    assert "logs/mine.log:1" in user.run("archive", bundle, "--dry-run").stderr
    user.ok("archive", bundle, "--dry-run", "--allow-secret", "logs/mine.log:1")


@pytest.mark.parametrize("name", ["-", "./-", "x.tar", "x.ZIP", "x.tar.gz", "x.tgz"])
def test_a_name_of_something_else_is_refused(user, bundle, name):
    for options in ((), ("--dry-run",)):
        done = user.run("archive", bundle, "-o", name, *options)
        assert (done.exit_code, "Hint: Name " in done.stderr) == (2, True)
    assert user.run("verify", bundle, "--receipt", "-").exit_code == 2
    assert [path.name for path in user.cwd.iterdir()] == ["bundle"]


@pytest.mark.parametrize("option", [("--with-image",), ("--images", ".")])
def test_an_image_that_a_run_has_not_is_not_asked_for(user, bundle, option):
    done = user.run("archive", bundle, *option)
    assert (done.exit_code, "the run has n" in done.stderr) == (2, True)
    user.ok("archive", bundle, "--without-image")


def test_numbers_of_an_archive_are_the_same_everywhere(user, bundle, sweep):
    """What is told before, after, of what was packed, and when it is unpacked."""
    user.ok("submit", bundle, "--scheduler", "local", "--wait", "--resubmit")
    author = ("--author", "Josiah Carberry")
    for what in (bundle, sweep):
        planned = user.ok("archive", what, *author, "--dry-run").stdout
        plan = json.loads(user.ok("archive", what, *author, "--dry-run", "--json").stdout)
        told = user.ok("archive", what, *author).stderr
        number = f"{plan['files']} files, "
        assert planned.startswith(f"Would pack {number}")
        file = f"{what.name}.tar.zst"
        assert f"{number}{planned.split(', ')[1]}, in " in told
        assert (
            f"as it was packed (sha256 {sha256_file(user.cwd / file)[:12]}): {number[:-2]}."
            in user.ok("verify", file).stderr
        )
        unpacked = user.ok("unpack", file, "-o", f"{what.name}-u").stderr
        assert f"{number}{planned.split(', ')[1]}, all" in unpacked
        files = [one for one in (user.cwd / f"{what.name}-u").rglob("*") if one.is_file()]
        (user.cwd / file).unlink()
        done = json.loads(user.ok("archive", what, *author, "--json").stdout)
        size = sum(one.stat().st_size for one in files)
        for said in (plan, done):
            assert (said["files"], said["unpacked_size"]) == (len(files), size)


def test_people_and_licence_are_in_the_crate(user, bundle):
    author = "Josiah Carberry <0000-0002-1825-0097>, Brown"
    options = ("--author", author, "--license", "CC-BY-4.0", "--title", "A title")
    user.ok("archive", bundle, "-o", "r1.tar.zst", *options)
    user.ok("unpack", "r1.tar.zst")
    crate = json.loads((user.cwd / "r1/data/ro-crate-metadata.json").read_text())
    graph = {entity["@id"]: entity for entity in crate["@graph"]}
    root = graph["./"]
    assert root["name"] == "A title"
    assert root["author"] == {"@id": "https://orcid.org/0000-0002-1825-0097"}
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert "A title" in (user.cwd / "r1/README.md").read_text()
    citation = user.cwd / "r1/data/CITATION.cff"
    user.ok("archive", bundle, "--citation", citation, "-o", "again.tar.zst")
    assert user.run("archive", bundle, "--author", "<x>", "-o", "x").exit_code == 2
    assert user.run("archive", bundle, "--license", "a b", "-o", "x").exit_code == 2


def test_parts_can_be_left_out(user, bundle):
    user.ok("archive", bundle, "-o", "r1.tar.zst", "--without-outputs", "--inputs", "none")
    assert "Not all inputs or outputs" in user.ok("verify", "r1.tar.zst").stderr
    user.ok("unpack", "r1.tar.zst")
    assert not list((user.cwd / "r1/data/bundle/outputs").iterdir())
    assert "Not packed" in (user.cwd / "r1/README.md").read_text()


def test_a_run_that_never_started_can_be_packed(user):
    user.ok("archive", user.bundle("--run-id", "r1", output="new"))
    user.ok("verify", "new.tar.zst")


def test_what_has_not_completed_is_told(user):
    bundle = user.bundle("--run-id", "r1", "--override", "then=exit 3")
    told = "Not completed: count not run, double not run."
    assert told in user.ok("archive", bundle, "--dry-run").stderr
    assert user.run("submit", bundle, "--scheduler", "local", "--wait").exit_code != 0
    assert "Not completed: count failed, double not run." in user.ok("archive", bundle).stderr
    data = json.loads(user.ok("archive", bundle, "-o", "b.tar.zst", "--json").stdout)
    assert data["unfinished"] == {"count": {"failed": 1}, "double": {"not run": 1}}


def test_a_finished_run_is_packed_without_a_warning(user, bundle):
    assert "Not completed" not in user.ok("archive", bundle).stderr
    data = json.loads(user.ok("archive", bundle, "--dry-run", "--json").stdout)
    assert data["unfinished"] == {}


def test_a_dry_run_of_unpack_checks_everything_and_writes_nothing(user):
    user.bundle("--run-id", "r1")
    user.ok("archive", "bundle", "-o", "r1.tar.zst")
    before = sorted(user.cwd.rglob("*"))
    said = user.ok("unpack", "r1.tar.zst", "--dry-run")
    assert "Nothing was unpacked" in said.stderr
    told = json.loads(user.ok("unpack", "r1.tar.zst", "--dry-run", "--json").stdout)
    assert sorted(user.cwd.rglob("*")) == before
    made = json.loads(user.ok("unpack", "r1.tar.zst", "--json").stdout)
    assert said.stdout == f"{made['path']}\n"
    assert (told.pop("dry_run"), made.pop("dry_run")) == (True, False)
    assert told == made
    assert user.run("unpack", "r1.tar.zst", "--dry-run").exit_code == 2
    whole = (user.cwd / "r1.tar.zst").read_bytes()
    (user.cwd / "cut.tar.zst").write_bytes(whole[:-100])
    assert user.run("unpack", "cut.tar.zst", "-o", "other", "--dry-run").exit_code == 5


def test_what_is_no_bundle_is_told(user):
    assert user.run("archive", user.cwd).exit_code == 3
    assert user.run("archive", user.cwd / "nothing").exit_code == 3
    assert user.run("unpack", user.cwd / "nothing").exit_code == 3


SWEEP = ("sweep", "linetool", "--template", "three", "--runner", "host")


@pytest.fixture
def sweep(user):
    command = (*SWEEP, "--values", "run=echo 1,echo 2,echo 3", "--sweep-id", "s1", "-o", "sweep")
    path = user.cwd / "sweep"
    user.ok(*command)
    return path


def test_a_sweep_is_packed_checked_and_unpacked(user, sweep):
    told = user.ok("archive", sweep, "--dry-run").stderr
    assert "count not run (3 times), double not run (3 times)" in told
    point = sorted((sweep / "points").iterdir())[0]
    told = user.ok("archive", point, "--dry-run").stderr
    assert "count not run, double not run" in told
    user.ok("submit", sweep, "--scheduler", "local", "--wait")
    assert "Not completed" not in user.ok("archive", sweep).stderr
    data = json.loads(user.ok("verify", "sweep.tar.zst", "--json").stdout)
    assert data["units"] == len(list((sweep / "points").iterdir()))
    assert sum(data["outputs"].values()) > 0
    user.ok("unpack", "sweep.tar.zst")
    user.ok("verify", user.cwd / "s1/data/bundle")


def test_a_point_is_packed_with_what_it_shares(user, sweep):
    point = sorted((sweep / "points").iterdir())[0]
    user.ok("archive", point)
    name = f"sweep-{point.name}.tar.zst"
    data = json.loads(user.ok("verify", name, "--json").stdout)
    assert data["intact"] is True
    user.ok("unpack", name)
    assert [one.name for one in (user.cwd / "s1/data/bundle/points").iterdir()] == [point.name]
    user.ok("verify", user.cwd / "s1/data/bundle/points" / point.name)


def test_an_altered_point_is_not_packed(user, sweep):
    point = sorted((sweep / "points").iterdir())[0]
    next((point / "config").iterdir()).write_text("other")
    done = user.run("archive", sweep)
    assert done.exit_code == 5
    assert point.name in done.stderr


def test_starting_valska_loads_nothing_of_archives(user):
    script = "import sys, valska.cli; print(sorted(m for m in sys.modules if 'zstandard' in m))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_verify_of_what_was_unpacked_looks_at_all_of_it(user, bundle):
    author = ("--author", "Josiah Carberry")
    user.ok("archive", bundle, "-o", "r1.tar.zst", *author)
    user.ok("unpack", "r1.tar.zst", "-o", "u")
    assert "u is as it was packed: " in user.ok("verify", "u").stderr
    inside = user.ok("verify", "u/data/bundle").stderr
    whole = f"valska verify {shlex.quote(str(user.cwd / 'u'))}"
    assert f"Not looked at: what else was unpacked with it (image, inputs): `{whole}`" in inside
    assert "Not looked at" not in user.ok("verify", bundle).stderr
    citation = user.cwd / "u/data/CITATION.cff"
    citation.write_text(citation.read_text().replace("Carberry", "Carbery"))
    done = user.run("verify", "u", "--receipt", "receipt.json")
    assert (done.exit_code, done.stdout.splitlines()[0][:28]) == (5, "altered: data/CITATION.cff (")
    assert len(done.stdout.splitlines()) == 1
    receipt = json.loads((user.cwd / "receipt.json").read_text())
    validate(receipt, "receipt-1", "the receipt")
    assert (receipt["kind"], receipt["intact"], receipt["written"]) == ("unpacked", False, [])
    assert user.run("verify", "u", "--fast").exit_code == 5
    assert "u/data/CITATION.cff" in user.run("verify", user.cwd).stdout
    user.ok("verify", "u/data/bundle")
    inside = json.loads(user.ok("verify", "u/data", "--json").stdout)
    assert [one["place"] for one in inside] == ["bundle"]


def test_what_is_run_after_unpacking_is_named(user, archive):
    user.ok("unpack", archive, "-o", "u")
    user.ok("submit", "u/data/bundle", "--scheduler", "local", "--wait", "--resubmit")
    for options in ((), ("--fast",)):
        told = user.ok("verify", "u", *options, "--receipt", "receipt.json").stderr
        assert "as it was packed, but for what was written since" in told
        assert re.search(r"10 files in data/bundle: jobs\.json, .*site\.env\.", told)
    receipt = json.loads((user.cwd / "receipt.json").read_text())
    validate(receipt, "receipt-1", "the receipt")
    data = json.loads(user.ok("verify", "u", "--json").stdout)
    assert data["written"] == receipt["written"]
    assert "data/bundle/site.env" in data["written"]
    (user.cwd / "u/data/bundle/outputs/double.txt").write_text("other")
    assert user.run("verify", "u").exit_code == 5


def test_a_receipt_does_not_go_into_what_was_unpacked(user, archive):
    user.ok("unpack", archive, "-o", "u")
    assert user.run("verify", "u", "--receipt", "u/receipt.json").exit_code == 2
    assert user.run("verify", archive, "--receipt", "u/data/receipt.json").exit_code == 2
    assert user.run("verify", "u", "--signer", "x").exit_code == 2
    user.ok("verify", "u")


def test_points_are_added_to_an_unpacked_sweep(user, sweep):
    user.ok("submit", sweep, "--scheduler", "local", "--wait")
    user.ok("archive", sweep)
    user.ok("unpack", "sweep.tar.zst", "-o", "u")
    values = ("--values", "run=echo 1,echo 2,echo 3,echo 4", "--sweep-id", "s1", "--add")
    user.ok(*SWEEP, *values, "-o", "u/data/bundle")
    data = json.loads(user.ok("verify", "u", "--json").stdout)
    assert data["units"] == 4
    assert "data/bundle/sweep_manifest.json" in data["written"]
    user.ok("submit", "u/data/bundle", "--scheduler", "local", "--wait")
    user.ok("verify", "u")
    label = sorted(path.name for path in (user.cwd / "u/data/bundle/points").iterdir())[0]
    assert "Not looked at" in user.ok("verify", f"u/data/bundle/points/{label}").stderr
    (user.cwd / f"u/data/bundle/points/{label}/outputs/double.txt").write_text("other")
    assert user.run("verify", "u").exit_code == 5
