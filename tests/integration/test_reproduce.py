"""The same answer again: real runs archived, moved, and run elsewhere by somebody else."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from account import Account
from registries import Registry
from services import unavailable
from smallslurm import SmallSlurm
from test_slurm_pyuvsim import datasets

pytestmark = [pytest.mark.apptainer]

OTHER_FREQUENCY = ("--override", "freq.freq_array=[1.5e8]")


def comparison(place):
    return json.loads((place / "comparison.json").read_text())


def parts_of(output):
    return {part["name"]: part for part in output["parts"]}


@pytest.fixture(scope="module")
def maker(account):
    """Who made the run."""
    return account.in_directory("made")


@pytest.fixture(scope="module")
def stranger(account, place, tmp_path_factory):
    """Whoever runs the tests, with a home and an image store that are empty, and with h5py."""
    home = tmp_path_factory.mktemp("stranger")
    env = {
        "PYTHONPATH": account.env["PYTHONPATH"],
        "VALSKA_IMAGES": home / "images",
        "VALSKA_CONFIG": "",
    }
    path = home / "elsewhere"
    path.mkdir()
    return Account(None, home, path, Path(sys.executable).parent, env)


@pytest.fixture(scope="module")
def run(maker, pyuvsim_image):
    """Make and run a simulation here."""

    def made(name, *args):
        image = ("--image", f"sha256:{pyuvsim_image.stem}")
        bundle = maker.bundle("pyuvsim", "--template", "ref_1_1", *image, *args, output=name)
        maker.valska("submit", bundle, "--scheduler", "local", "--wait", timeout=900)
        return bundle

    return made


@pytest.fixture(scope="module")
def archive(run, maker, stranger):
    """The archive of a run, moved to somebody who has nothing else of it."""
    bundle = run("run")
    made = maker.work / "run.tar.zst"
    maker.valska("archive", bundle, "-o", made, "--with-image")
    moved = stranger.work / "given.tar.zst"
    shutil.move(made, moved)
    moved.chmod(0o644)
    shutil.rmtree(bundle)
    return moved


def reproduce(stranger, path, *args, code=0, output="again"):
    done = stranger.valska("reproduce", path, "-o", output, *args, check=False, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done, stranger.work / output


def test_an_archive_alone_is_identical_on_this_machine(archive, stranger):
    done, place = reproduce(stranger, archive, "--scheduler", "local")
    assert done.stdout.splitlines()[-1] == "identical"
    found = comparison(place)
    assert found["reference"]["bundle_id"] == found["new"]["bundle_id"]
    assert "packed in the archive" in found["notes"][-1]
    assert not (stranger.home / "images/sha256").exists()
    stranger.valska("verify", place / "bundle")


@pytest.mark.slurm
def test_an_archive_alone_is_identical_on_slurm(slurm, archive, maker, place):
    """By the one who may send jobs; the original is gone for them too."""
    given = maker.work / "given.tar.zst"
    maker.own(shutil.copy(archive, given))
    user = replace(maker, env={**maker.env, "VALSKA_IMAGES": maker.work / "no images"})
    done, again = reproduce(user, given, "--scheduler", "slurm", output="by slurm")
    assert done.stdout.splitlines()[-1] == "identical"
    record = next((again / "bundle/records").iterdir())
    assert json.loads(record.read_text())["job"]["scheduler"] == "slurm"


def test_with_two_ranks_only_the_history_differs(archive, stranger):
    done, place = reproduce(
        stranger, archive, "--scheduler", "local", "--ranks", "2", output="two ranks"
    )
    assert done.stdout.splitlines()[-1] == "equivalent"
    (output,) = comparison(place)["outputs"]
    assert output["method"] == "UVH5"
    parts = parts_of(output)
    assert parts["history"]["detail"] == "MPI ranks: 1 and 2"
    assert [name for name, part in parts.items() if part["verdict"] != "identical"] == ["history"]
    assert "only history differs" in output["notes"][0]
    intent = {(one["kind"], one["key"]) for one in comparison(place)["intent"]}
    assert ("command", "simulate.ranks") in intent
    page = (place / "comparison.md").read_text()
    assert "- history (not counted): MPI ranks: 1 and 2" in page


def test_with_another_frequency_the_data_differ_by_a_number_that_numpy_finds_too(run, stranger):
    one, other = run("one"), run("other", *OTHER_FREQUENCY)
    done = stranger.valska("diff", one, other, "--outputs", "-o", "cmp", check=False)
    assert done.returncode == 5
    assert done.stdout.splitlines()[-1] == "different"
    parts = parts_of(comparison(stranger.work / "cmp")["outputs"][0])
    assert parts["data"]["verdict"] == parts["frequencies"]["verdict"] == "different"
    assert parts["times"]["verdict"] == parts["flags"]["verdict"] == "identical"
    a, b = (datasets(path / "outputs")["Data/visdata"] for path in (one, other))
    largest = parts["data"]["largest_absolute"]
    difference = np.abs(b - a)
    assert largest["value"] == difference.max()
    assert difference[tuple(largest["index"])] == difference.max()
    relative = parts["data"]["largest_relative"]
    assert relative["value"] == pytest.approx((difference[a != 0] / np.abs(a[a != 0])).max())
    said = stranger.valska("diff", one, other, check=False)
    assert "freq.freq_array" in said.stdout
    assert said.returncode == 5


def test_an_image_that_is_nowhere_is_built_again_from_the_bundle(archive_without_image, stranger):
    """From the definition that the archive holds; the base is a file, so no network is needed."""
    rehearsal = ("--scheduler", "local", "--dry-run")
    done, _ = reproduce(stranger, archive_without_image, *rehearsal, output="rebuilt")
    assert "built from linetool.def, which the bundle holds" in done.stdout
    done, place = reproduce(
        stranger, archive_without_image, "--scheduler", "local", output="rebuilt"
    )
    assert done.stdout.splitlines()[-1] == "identical"
    found = comparison(place)
    assert "built again from the bundle's definition" in found["notes"][-1]
    same = found["reference"]["software"] == found["new"]["software"]
    assert same == ("to the last bit the same" in found["notes"][-1])
    assert same == (found["reference"]["bundle_id"] == found["new"]["bundle_id"])


@pytest.fixture(scope="module")
def registry(apptainer, tmp_path_factory):
    """A registry on loopback."""
    if os.geteuid() != 0 and shutil.which("docker-registry") is None:
        unavailable("docker-registry is not here: tests/cluster/registry.sh installs it, as root")
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop()


def test_an_image_that_a_registry_has_is_fetched_by_its_digest(
    registry, maker, stranger, tiny_image
):
    """The archive leaves it out, since it is known where it is."""
    user = replace(maker, env={**maker.env, "VALSKA_IMAGES": maker.work / "published"})
    imported = user.valska("image", "import", tiny_image)
    digest = imported.stdout.split()[-1]
    user.valska("image", "push", digest, f"oras://{registry.host}/tiny:1")
    bundle = user.lines(image=digest, output="of a published image")
    user.valska("submit", bundle, "--scheduler", "local", "--wait")
    user.valska("archive", bundle, "-o", "published.tar.zst")
    moved = stranger.work / "published.tar.zst"
    shutil.move(maker.work / "published.tar.zst", moved)
    moved.chmod(0o644)
    shutil.rmtree(bundle)
    done, _ = reproduce(stranger, moved, "--scheduler", "local", "--dry-run", output="fetched")
    assert f"not on this machine: to be fetched from oras://{registry.host}/tiny" in done.stdout
    done, place = reproduce(stranger, moved, "--scheduler", "local", output="fetched")
    assert done.stdout.splitlines()[-1] == "identical"
    found = comparison(place)
    assert f"fetched from oras://{registry.host}/tiny" in found["notes"][-1]
    assert found["reference"]["bundle_id"] == found["new"]["bundle_id"]


def test_another_image_is_taken_when_it_is_named_and_told(maker, stranger, tiny_image):
    bundle = maker.lines(image=tiny_image, output="of one image")
    maker.valska("submit", bundle, "--scheduler", "local", "--wait")
    other = stranger.work / "other.sif"
    other.write_bytes(tiny_image.read_bytes() + b"more, of which Apptainer takes no notice")
    done, place = reproduce(
        stranger, bundle, "--scheduler", "local", "--image", other, output="another image"
    )
    assert done.stdout.splitlines()[-1] == "identical"
    assert "is another image than the bundle's" in done.stderr
    found = comparison(place)
    assert found["reference"]["software"] != found["new"]["software"]
    assert found["reference"]["bundle_id"] != found["new"]["bundle_id"]
    assert ("image", "sha256") in {(one["kind"], one["key"]) for one in found["intent"]}
    assert "the image was as named, another than the bundle's" in found["notes"]
    reproduce(stranger, bundle, "--scheduler", "local", output="another image")
    assert comparison(place)["notes"] == found["notes"]
    named = ("--scheduler", "local", "--image", tiny_image)
    done, _ = reproduce(stranger, bundle, *named, code=2, output="another image")
    assert "made with another image than" in done.stderr


def test_an_image_that_is_nowhere_at_all_is_missed_and_nothing_is_left(maker, stranger, tiny_image):
    lost = maker.work / "lost.sif"
    maker.own(shutil.copy(tiny_image, lost))
    bundle = maker.lines(image=lost, output="of a lost image")
    maker.valska("submit", bundle, "--scheduler", "local", "--wait")
    lost.unlink()
    empty = replace(stranger, env={**stranger.env, "VALSKA_IMAGES": stranger.work / "empty"})
    done, place = reproduce(empty, bundle, "--scheduler", "local", code=3, output="none")
    assert "no image" in done.stderr
    assert "no registry is known to have it" in done.stderr
    assert not place.exists()
    done, _ = reproduce(empty, bundle, "--scheduler", "local", "--dry-run", output="none")
    assert "not on this machine: to be built from lost.def" in done.stdout
    for more in (("--dry-run",), ()):
        named = ("--scheduler", "local", "--image", "nosuch.sif")
        done, _ = reproduce(empty, bundle, *named, *more, code=3, output="none")
        assert "nosuch.sif" in done.stderr
        assert not place.exists()


def test_an_image_that_is_packed_is_taken_from_the_archive(maker, stranger, tiny_image):
    bundle = maker.lines(image=tiny_image, output="of a packed image")
    maker.valska("submit", bundle, "--scheduler", "local", "--wait")
    maker.valska("archive", bundle, "-o", "packed.tar.zst", "--with-image")
    moved = stranger.work / "packed.tar.zst"
    shutil.move(maker.work / "packed.tar.zst", moved)
    moved.chmod(0o644)
    shutil.rmtree(bundle)
    empty = replace(stranger, env={**stranger.env, "VALSKA_IMAGES": stranger.work / "empty"})
    named = ("--scheduler", "local")
    done, _ = reproduce(empty, moved, *named, "--dry-run", output="packed")
    assert "packed in the archive" in done.stdout
    done, place = reproduce(empty, moved, *named, output="packed")
    assert done.stdout.splitlines()[-1] == "identical"
    assert "the image was packed in the archive" in comparison(place)["notes"]


@pytest.fixture
def archive_without_image(maker, stranger, tiny_image):
    base = maker.work / "base.sif"
    maker.own(shutil.copy(tiny_image, base))
    base.chmod(0o644)
    definition = maker.write(
        "linetool.def",
        f"Bootstrap: localimage\nFrom: {base}\n%post\n    echo made > /made\n",
    )
    store = maker.work / "store"
    user = replace(maker, env={**maker.env, "VALSKA_IMAGES": store})
    built = user.valska("build", definition, check=False, timeout=600)
    if built.returncode != 0 and "fakeroot" in built.stderr:
        unavailable(f"images cannot be built here: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    bundle = user.lines(image="linetool", output="of an image")
    user.valska("submit", bundle, "--scheduler", "local", "--wait")
    user.valska("archive", bundle, "-o", "light.tar.zst", "--without-image")
    moved = stranger.work / "light.tar.zst"
    shutil.move(maker.work / "light.tar.zst", moved)
    moved.chmod(0o644)
    shutil.rmtree(bundle)
    shutil.rmtree(store)
    return moved


@pytest.mark.slurm
def test_a_sweep_is_identical_point_by_point_for_somebody_else_on_slurm(
    slurm, maker, stranger, tiny_image
):
    """From its archive alone: made and run here by one, reproduced as arrays by another."""
    stranger.valska(
        "sweep", "linetool", "--template", "three", "--image", tiny_image, "-o", "sweep",
        "--values", "run=true,echo 7 > double.txt", "--override", "share=all",
    )  # fmt: skip
    stranger.valska("submit", "sweep", "--scheduler", "local", "--wait")
    stranger.valska("archive", "sweep", "-o", "sweep.tar.zst", "--with-image")
    given = maker.work / "sweep.tar.zst"
    shutil.move(stranger.work / "sweep.tar.zst", given)
    given.chmod(0o644)
    shutil.rmtree(stranger.work / "sweep")
    user = replace(maker, env={**maker.env, "VALSKA_IMAGES": maker.work / "no images"})
    done, place = reproduce(user, given, "--scheduler", "slurm", output="sweep again")
    assert done.stdout.splitlines()[-1] == "identical"
    found = comparison(place)
    assert [one["verdict"] for one in found["points"]] == ["identical", "identical"]
    assert [one["verdict"] for one in found["shared"]] == ["identical"]
    assert "packed in the archive" in found["notes"][-1]
    records = [json.loads(path.read_text()) for path in place.glob("sweep/*/*/records/*")]
    assert sorted(one["stage"] for one in records) == ["count", "double", "double"]
    assert {one["job"]["scheduler"] for one in records} == {"slurm"}
    assert {one["image"]["sha256"] for one in records} == {found["reference"]["software"]}


@pytest.fixture
def narrow(slurm, place, maker):
    """A user of a second Slurm, which takes no more than a few jobs of theirs at once."""
    if os.geteuid() != 0:
        unavailable("a second Slurm is started by root only")
    cluster = SmallSlurm(place / f"narrow-{os.getpid()}", f"narrow{time.monotonic_ns() % 10**9}")
    try:
        cluster.start(maker.name, "root", MinJobAge=3)
        yield cluster, replace(maker, env={**maker.env, **cluster.env})
    finally:
        cluster.stop()
        shutil.rmtree(cluster.path, ignore_errors=True)


@pytest.mark.slurm
def test_points_for_which_there_is_no_room_are_sent_while_it_waits(narrow):
    cluster, user = narrow
    flag = user.write("flag", "")
    path = user.work / "of three"
    command = ("sweep", "linetool", "--template", "three", "--runner", "host", "-o", path)
    user.valska(*command, "--values", f"run=true,echo 1,test -e {flag}")
    user.valska("submit", path, "--scheduler", "local", "--wait")
    cluster.limit(user.name, 2)
    done, place = reproduce(user, path, "--scheduler", "slurm", output="bit by bit")
    assert "No room yet for" in done.stderr
    assert done.stdout.splitlines()[-1] == "identical"
    assert len(list(place.glob("sweep/points/*/records/*"))) == 6
    flag.unlink()
    cluster.limit(user.name, 1)
    last = json.loads((path / "sweep_manifest.json").read_text())["points"][-1]["label"]
    only = ("--only", last, "--scheduler", "slurm")
    done, place = reproduce(user, path, *only, output="one fails", code=5)
    (point,) = comparison(place)["points"]
    assert [stage["new"] for stage in point["stages"]] == ["failed", "not run"]
    assert "exit code 1" in point["stages"][0]["reason"]


@pytest.mark.bayeseor
def test_bayeseor_is_equivalent_as_statistics(user, stranger):
    image, data = (os.environ.get(f"VALSKA_BAYESEOR_{what}") for what in ("IMAGE", "DATA"))
    if not image or not data:
        pytest.skip("VALSKA_BAYESEOR_IMAGE and VALSKA_BAYESEOR_DATA name no image and no data")
    bundle = stranger.bundle(
        "bayeseor", "--template", "tiny_cpu", "--cpu", "--data", data, "--image", image
    )
    stranger.valska("submit", bundle, "--scheduler", "local", "--wait", timeout=900)
    # Of honest repeats, one in some hundred is further away than three standard errors.
    done, place = reproduce(stranger, bundle, "--scheduler", "local", "--sigma", "5")
    assert done.stdout.splitlines()[-1] == "equivalent"
    outputs = {one["path"]: one for one in comparison(place)["outputs"]}
    assert {one["verdict"] for path, one in outputs.items() if path.startswith("matrices/")} == {
        "identical"
    }
    statistics = [one for one in outputs.values() if one["method"] == "statistics"]
    assert len(statistics) == 2
    assert all(part["sigma"] is not None for one in statistics for part in one["parts"])


def test_without_h5py_a_verdict_is_not_made_up(archive, maker):
    """The account has valska from its wheel, without extras."""
    probe = [maker.bin / "python", "-c", "import h5py"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        pytest.skip("this account has h5py")
    given = maker.work / "of two ranks.tar.zst"
    maker.own(shutil.copy(archive, given))
    done, place = reproduce(
        maker, given, "--scheduler", "local", "--ranks", "2", code=5, output="no h5py"
    )
    assert done.stdout.splitlines()[-1] == "incomplete"
    assert "pip install" in comparison(place)["outputs"][0]["notes"][0]
