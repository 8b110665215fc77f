"""A bundle describes itself: it can be moved, made elsewhere, and run without valska."""

import json

import pytest
from slurmjobs import ended, record_of

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

BARE = {"with_valska": False, "env": {"PYTHONPATH": ""}}


@pytest.fixture
def moved(slurm, user, tiny_image):
    place = user.work / "an other place"
    place.mkdir()
    return user.lines(image=tiny_image).rename(place / "it's a $(bundle)")


def test_sbatch_in_a_moved_bundle(user, moved):
    done = user.run("sbatch", "--parsable", "submit_count.sh", cwd=moved, **BARE)
    ended(done.stdout.strip())
    assert record_of(moved, "count")["state"] == "completed"
    assert (moved / "outputs" / "count.txt").read_text() == "3\n"
    assert [path.name for path in moved.glob("logs/*")] == [
        f"linetool-count-{done.stdout.strip()}.log"
    ]
    assert user.states(moved) == {"count": "completed", "double": "not-submitted"}
    user.valska("verify", moved)


@pytest.mark.parametrize("started", ["inside", "outside"])
def test_bash_in_a_moved_bundle(user, moved, started):
    cwd, folder = (moved, "") if started == "inside" else (user.work, f"{moved}/")
    for stage in ("count", "double"):
        user.run("bash", f"{folder}submit_{stage}.sh", cwd=cwd, **BARE)
        assert record_of(moved, stage)["job"]["scheduler"] == "none"
    assert (moved / "outputs" / "double.txt").read_text() == "6\n"
    assert user.states(moved) == {"count": "completed", "double": "completed"}
    user.valska("verify", moved)


def test_nothing_sealed_names_the_place(user, moved):
    sealed = (moved / "SHA256SUMS").read_text().splitlines()
    texts = {line.split(None, 1)[1]: line for line in sealed}
    for name in texts.keys() - {"manifest.json"}:
        assert str(user.work) not in (moved / name).read_text(errors="replace"), name


def test_two_places_give_the_same_configuration_and_the_same_id(user, tiny_image):
    there = user.in_directory("over there")
    bundles = [user.lines(image=tiny_image), there.lines(image=tiny_image, output="an other")]
    configs = [
        {path.name: path.read_bytes() for path in bundle.glob("config/*")} for bundle in bundles
    ]
    assert configs[0] == configs[1] != {}
    ids = {json.loads((one / "manifest.json").read_text())["bundle_id"] for one in bundles}
    assert len(ids) == 1
    changed = user.lines(image=tiny_image, then="; true", output="changed")
    assert json.loads((changed / "manifest.json").read_text())["bundle_id"] not in ids
