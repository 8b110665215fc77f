"""Archives judged by tools that are not ours, run without valska, and killed half-way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from archives import finished, pack
from sweeps import make_sweep, shell
from toy import bundle as make_bundle
from toy import stage

from valska.external_tools.core.archive.people import Description, parse_author
from valska.external_tools.core.archive.selection import Choice, select_sweep
from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.run_directory import Bundle

VALIDATE = Path(__file__).parents[1] / "data/crate/validate.py"
WITHOUT_PYTHON = Path(__file__).with_name("programs.txt").read_text().split()
"""All that a run on a host may need: bash, coreutils, tar and zstd."""


@pytest.fixture(autouse=True)
def zstd(require):
    require(shutil.which("zstd"), "there is no zstd, with which tar reads an archive")


@pytest.fixture
def unpacked(tmp_path):
    """The archive of a run, unpacked by tar alone."""
    finished(tmp_path)
    about = Description(title="T", authors=(parse_author("Josiah Carberry, Brown"),))
    bundle = tmp_path / "bundle"
    pack(Bundle(bundle), tmp_path / "a.tar.zst", about)
    return by_tar(tmp_path / "a.tar.zst", tmp_path / "by tar")


def by_tar(archive, place):
    place.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", archive, "-C", place], check=True)
    (top,) = place.iterdir()
    return top


def said(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_zstd_and_tar_read_it(unpacked, tmp_path):
    said("zstd", "-t", tmp_path / "a.tar.zst")
    names = said("tar", "--zstd", "-tf", tmp_path / "a.tar.zst").splitlines()
    assert names[:3] == ["r1/", "r1/bagit.txt", "r1/README.md"]


def test_links_are_taken_by_all_readers(tmp_path):
    import bagit

    bundle = finished(tmp_path)
    (bundle.outputs / "latest").symlink_to("out.txt")
    pack(bundle, tmp_path / "a.tar.zst")
    top = by_tar(tmp_path / "a.tar.zst", tmp_path / "by tar")
    said("sha256sum", "--check", "--strict", "--quiet", "manifest-sha256.txt", cwd=top)
    bagit.Bag(str(top)).validate(processes=1)
    whole = unpack_archive(tmp_path / "a.tar.zst", tmp_path, tmp_path / "ours").path
    assert (whole / "data/bundle/outputs/latest").readlink() == Path("out.txt")


def test_sha256sum_agrees_with_both_manifests(unpacked):
    for name in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
        said("sha256sum", "--check", "--strict", "--quiet", name, cwd=unpacked)
    said("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=unpacked / "data/bundle")


def test_bagit_agrees(unpacked):
    import bagit

    bag = bagit.Bag(str(unpacked))
    bag.validate(processes=1)
    assert bag.info["Payload-Oxum"] == f"{bag.info['Payload-Oxum'].split('.')[0]}." + str(
        len(list(bag.payload_files()))
    )
    (unpacked / "data/bundle/config/run.yaml").write_text("other")
    with pytest.raises(bagit.BagValidationError):
        bag.validate(processes=1)


def test_bagit_agrees_with_the_archive_of_a_sweep(tmp_path):
    import bagit

    sweep = make_sweep(tmp_path, [stage(), shell("true", "two", outputs=())], points=("a", "b"))
    write_archive(select_sweep(sweep, Choice()), tmp_path / "s.tar.zst", Description())
    bagit.Bag(str(by_tar(tmp_path / "s.tar.zst", tmp_path / "by tar"))).validate(processes=1)


def validator():
    """Return a Python that has roc-validator, or None."""
    for python in (sys.executable, os.environ.get("VALSKA_CRATE_PYTHON")):
        if python and not subprocess.call(
            [python, "-c", "import rocrate_validator"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ):
            return python
    return None


@pytest.fixture
def judge(tmp_path_factory, require):
    """Judge the crate in an archive with tools that are not ours; return its entities."""
    python = validator()
    require(python is not None, "no roc-validator; name a Python with it as VALSKA_CRATE_PYTHON")

    def judge(archive):
        # The validator does not take a path with quotes and blanks.
        top = by_tar(archive, tmp_path_factory.mktemp("crate") / "here")
        done = subprocess.run(
            [python, VALIDATE, top / "data"], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "RECOMMENDED passed" in done.stdout
        read = json.loads(said(python, "-c", READ, top / "data").splitlines()[-1])
        graph = json.loads((top / "data/ro-crate-metadata.json").read_text())["@graph"]
        assert read == sorted(one["@id"] for one in graph if one["@type"] == "CreateAction")
        return {one["@id"]: one for one in graph}

    return judge


READ = """
import json, sys
from rocrate.rocrate import ROCrate
crate = ROCrate(sys.argv[1])
assert crate.root_dataset["hasPart"]
mentioned = crate.root_dataset.get("mentions") or []
mentioned = mentioned if isinstance(mentioned, list) else [mentioned]
print(json.dumps(sorted(one.id for one in mentioned)))
"""


@pytest.mark.parametrize("kind", ["described", "as it is", "failed", "sweep", "without outputs"])
def test_roc_validator_agrees(kind, judge, tmp_path):
    archive = tmp_path / "a.tar.zst"
    if kind == "sweep":
        sweep = make_sweep(tmp_path)
        for point in ("a", "b"):
            said("bash", "submit_simulate.sh", f"points/{point}", cwd=sweep.path)
        write_archive(select_sweep(sweep, Choice()), archive, Description())
    elif kind == "failed":
        bundle = finished_badly(tmp_path)
        pack(bundle, archive)
    else:
        author = parse_author("Josiah Carberry <0000-0002-1825-0097>, Brown <https://brown.edu>")
        about = Description(title="T", authors=(author,), license="CC-BY-4.0")
        bundle = finished(tmp_path)
        outputs = kind != "without outputs"
        pack(bundle, archive, about if kind == "described" else None, outputs=outputs)
    assert judge(archive)


def finished_badly(folder):
    bundle = make_bundle(folder, [stage(argv=("false",), outputs=())])
    done = subprocess.run(["bash", "submit_simulate.sh"], cwd=bundle.path, check=False)
    assert done.returncode != 0
    return bundle


def test_the_crate_says_what_ran(unpacked):
    graph = {
        one["@id"]: one
        for one in json.loads((unpacked / "data/ro-crate-metadata.json").read_text())["@graph"]
    }
    action = graph[graph["./"]["mentions"]["@id"]]
    assert action["@type"] == "CreateAction"
    assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert action["result"] == {"@id": "bundle/outputs/out.txt"}
    assert {"@id": "bundle/inputs/data.txt"} in action["object"]
    output = graph["bundle/outputs/out.txt"]
    assert output["contentSize"] == "6"
    for part in graph["./"]["hasPart"]:
        assert (unpacked / "data" / part["@id"]).exists()


def test_it_is_checked_and_run_without_python(tmp_path, tmp_path_factory):
    finished(tmp_path)
    pack(Bundle(tmp_path / "bundle"), tmp_path / "a.tar.zst")
    shutil.rmtree(tmp_path / "bundle")
    programs = tmp_path_factory.mktemp("programs")
    for name in WITHOUT_PYTHON:
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    environment = {"PATH": str(programs), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    place = tmp_path / "another place"
    place.mkdir()
    text = (
        "set -e; tar --zstd -xf ../a.tar.zst; cd r1; "
        "if command -v python3 || command -v python || command -v valska; then exit 9; fi; "
        "sha256sum --check --quiet manifest-sha256.txt; "
        "sha256sum --check --quiet tagmanifest-sha256.txt; "
        "cd data/bundle; bash submit_simulate.sh; cat outputs/out.txt"
    )
    bash = programs / "bash"
    assert said(bash, "-c", text, cwd=place, env=environment).endswith("hello\n")
    bundle = place / "r1/data/bundle"
    assert (bundle / "outputs.1/out.txt").read_text() == "hello\n"
    assert len(list((bundle / "records").iterdir())) == 2


def test_a_packed_reference_is_found_by_the_job(tmp_path):
    big = tmp_path / "sky.txt"
    big.write_text("from afar\n")
    bundle = finished(tmp_path, inputs={"data.txt": big}, copy_limit=0)
    pack(bundle, tmp_path / "a.tar.zst")
    big.unlink()
    shutil.rmtree(bundle.path)
    top = by_tar(tmp_path / "a.tar.zst", tmp_path / "by tar")
    said("bash", "submit_simulate.sh", cwd=top / "data/bundle")
    assert (top / "data/bundle/outputs/out.txt").read_text() == "from afar\n"


@pytest.mark.parametrize("verb", ["archive", "unpack"])
def test_a_killed_command_leaves_nothing_that_looks_whole(verb, tmp_path):
    bundle = finished(tmp_path)
    with (bundle.logs / "noise.log").open("wb") as file:
        for _ in range(128):
            file.write(os.urandom(1 << 20))
    archive = tmp_path / "a.tar.zst"
    if verb == "unpack":
        pack(bundle, archive)
        command = ["unpack", archive, "-o", tmp_path / "result"]
    else:
        command = ["archive", bundle.path, "-o", tmp_path / "result"]
    before = {path.name for path in tmp_path.iterdir()}
    process = subprocess.Popen([sys.executable, "-m", "valska", *command])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        new = [path for path in tmp_path.iterdir() if path.name not in before]
        if any(size_of(path) > 1 << 20 for path in new):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()} - before
    assert left
    assert all(name.startswith(".") for name in left)


def size_of(path):
    try:
        if path.is_dir():
            return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.apptainer
def test_the_packed_image_runs_where_there_is_no_other(user, tiny_image):
    bundle = user.lines("--run-id", "c1", image=tiny_image)
    user.valska("submit", bundle, "--scheduler", "local", "--wait")
    user.valska("archive", bundle, "-o", "c1.tar.zst", "--title", "T")
    user.valska("verify", "c1.tar.zst")
    shutil.rmtree(bundle)
    user.run("mkdir", "else where")
    place = user.work / "else where"
    bare = {"with_valska": False, "env": {"PYTHONPATH": ""}}
    user.run("tar", "--zstd", "-xf", "../c1.tar.zst", cwd=place, **bare)
    unpacked = place / "c1/data/bundle"
    for stage_name in ("count", "double"):
        user.run("bash", f"submit_{stage_name}.sh", cwd=unpacked, **bare)
    assert (unpacked / "outputs/double.txt").read_text() == "6\n"
    newest = max((unpacked / "records").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    image = json.loads(newest.read_text())["image"]
    assert Path(image["path"]).resolve().parent == place / "c1/data/images"
    assert image["checked"] == "hash"


def published(user, sha256):
    """Note that a registry has an image; return the reference and the options that name it."""
    store = user.work / "images" / "sha256"
    user.run("mkdir", "-p", store)
    reference = f"oras://registry.example/tiny@sha256:{sha256}"
    note = {"schema_version": "1.0", "published": [{"uri": reference, "tag": "1"}]}
    user.write("note.json", json.dumps(note))
    user.run("cp", "note.json", store / f"{sha256}.published.json")
    return reference, ("--images", user.work / "images")


@pytest.mark.apptainer
@pytest.mark.parametrize("kind", ["bundle", "sweep"])
def test_roc_validator_agrees_with_runs_in_a_container(kind, judge, user, tiny_image):
    if kind == "bundle":
        made = user.lines("--run-id", "c3", image=tiny_image)
    else:
        values = ("--values", "run=true,echo 7 > double.txt", "--override", "share=all")
        user.valska(
            "sweep", "linetool", "--template", "three", "--image", tiny_image, "-o", "made", *values
        )
        made = user.work / "made"
    user.valska("submit", made, "--scheduler", "local", "--wait")
    user.valska("archive", made, "-o", "packed.tar.zst")
    graph = judge(user.work / "packed.tar.zst")
    (image,) = (one for one in graph.values() if "ContainerImage" in one["@type"])
    assert image["@type"] == ["File", "ContainerImage"]
    assert image["additionalType"]["@id"].endswith("#SIFImage")
    actions = [one for one in graph.values() if one["@type"] == "CreateAction"]
    assert actions
    assert all(one["containerImage"] == {"@id": image["@id"]} for one in actions)
    reference, options = published(user, image["sha256"])
    user.valska("archive", made, *options, "-o", "referenced.tar.zst")
    graph = judge(user.work / "referenced.tar.zst")
    assert graph["#image"]["sha256"] == image["sha256"]
    said_of = "{registry}/{name}@{tag}".format(**graph["#image"])
    assert f"oras://{said_of}" == reference


@pytest.mark.apptainer
def test_a_published_image_is_left_out(user, tiny_image):
    bundle = user.lines("--run-id", "c2", image=tiny_image)
    sha256 = json.loads((bundle / "manifest.json").read_text())["image"]["sha256"]
    reference, options = published(user, sha256)
    options = (*options, "--json")
    made = user.valska("archive", bundle, *options, "-o", "c2.tar.zst")
    left_out = json.loads(made.stdout)
    assert left_out["document"]["image"]["path"] is None
    assert left_out["document"]["image"]["published"] == [reference]
    user.valska("verify", "c2.tar.zst")
    readme = user.run("tar", "--zstd", "-xOf", "c2.tar.zst", "c2/README.md").stdout
    assert f"apptainer pull image.sif {reference}" in readme
    packed = user.valska("archive", bundle, *options, "--with-image", "-o", "with.tar.zst")
    assert json.loads(packed.stdout)["size"] > left_out["size"]
