"""Hostile surroundings: nothing of the caller's reaches the payload, by Slurm or without it."""

import json
import pwd
import shutil
import uuid
from pathlib import Path

import pytest
from slurmjobs import record_of

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

LOOK = """
import glob, json, os, sys
local = os.path.expanduser("~/.local/lib/python*/site-packages/")
json.dump({
    "trapped": getattr(sys, "trapped", []),
    "environment": dict(os.environ),
    "path": sys.path,
    "mounts": open("/proc/self/mounts").read(),
    "hostetc": os.path.exists("/hostetc"),
    "home": glob.glob(local + sys.argv[1] + ".py") != [],
}, sys.stdout)
"""
TRAP = "import sys; sys.trapped = getattr(sys, 'trapped', []) + [__file__]\n"


@pytest.fixture
def trap(account):
    """A module in the ``~/.local`` of the account's true home."""
    home = Path(pwd.getpwnam(account.name).pw_dir) if account.name else Path.home()
    path = home / f".local/lib/python3.11/site-packages/trap_{uuid.uuid4().hex}.py"
    account.run("mkdir", "-p", path.parent)
    account.run("touch", path)
    yield path.stem
    path.unlink()


@pytest.fixture
def hostile(user, trap):
    """Variables and files that would change a run if they reached it."""
    evil = user.work / "evil"
    for folder in (evil, *_site_packages(user.work)):
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(TRAP)
        (folder / "usercustomize.py").write_text(TRAP)
    return {
        "HOME": user.work,
        "PYTHONPATH": f"{evil}:{user.env['PYTHONPATH']}",
        "APPTAINER_BIND": "/etc:/hostetc",
        "APPTAINER_BINDPATH": "/etc:/hostetc",
        "SINGULARITY_BIND": "/etc:/hostetc",
        "APPTAINER_MOUNT": "type=bind,source=/etc,destination=/hostetc",
        "APPTAINERENV_PYTHONPATH": evil,
        "SINGULARITYENV_PYTHONPATH": evil,
        "APPTAINERENV_EVIL": "reached",
        "SINGULARITYENV_EVIL": "reached",
        "APPTAINERENV_APPEND_PATH": evil,
        "APPTAINER_HOME": f"{user.work}:/evilhome",
        "EVIL": "reached",
    }


def _site_packages(home):
    return [home / f".local/lib/python3.{minor}/site-packages" for minor in range(11, 15)]


def test_the_traps_work(slurm, user, hostile, trap, pyuvsim_image):
    """Plain Apptainer lets them all through; if it did not, the next test would prove nothing."""
    seen = json.loads(
        user.run(
            "apptainer", "--quiet", "exec", pyuvsim_image, "python3", "-c", LOOK, trap,
            env={**hostile, "APPTAINER_HOME": ""},
        ).stdout
    )  # fmt: skip
    assert seen["trapped"]
    assert seen["hostetc"]
    assert seen["home"]
    assert seen["environment"]["EVIL"] == "reached"


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
def test_nothing_reaches_the_payload(slurm, user, hostile, trap, pyuvsim_image, scheduler):
    look = f"; python3 -c '{LOOK}' {trap} > seen.json"
    bundle = user.lines(then=look, image=f"sha256:{pyuvsim_image.stem}")
    twin = shutil.copytree(bundle, user.work / "twin")
    stale = {"VALSKA_BUNDLE": twin, "PYTHONUSERBASE": user.work / ".local"}
    user.valska("submit", bundle, "--wait", "--scheduler", scheduler, env={**hostile, **stale})
    seen = json.loads((bundle / "outputs" / "seen.json").read_text())
    assert seen["trapped"] == []
    assert not seen["hostetc"]
    assert not seen["home"]
    assert not [name for name, value in seen["environment"].items() if "evil" in value.lower()]
    assert not {"EVIL", "PYTHONPATH", "PYTHONUSERBASE"} & seen["environment"].keys()
    assert not [path for path in seen["path"] if str(user.work) in path or ".local" in path]
    assert record_of(bundle, "count")["job"]["scheduler"] == scheduler
    assert not list(twin.glob("outputs/*"))
    assert not list(twin.glob("records/*"))


def test_only_the_bundle_is_mounted_and_only_its_outputs_are_writable(
    slurm, user, hostile, tiny_image
):
    then = (
        '; cat /proc/self/mounts > mounts.txt; ls -A "$HOME" /root /home > homes.txt 2>/dev/null;'
        " for f in /bundle /bundle/config /bundle/inputs /etc;"
        " do if echo x > $f/x; then echo $f; fi; done > writable.txt 2>/dev/null; true"
    )
    bundle = user.lines(then=then, image=tiny_image)
    user.valska("submit", bundle, "--wait", env=hostile)
    outputs = bundle / "outputs"
    places = [line.split()[1] for line in (outputs / "mounts.txt").read_text().splitlines()]
    assert {"/bundle", "/bundle/outputs"} <= set(places)
    assert "/hostetc" not in places
    assert not [place for place in places if place.startswith((str(user.work), "/mnt", "/opt"))]
    assert (outputs / "writable.txt").read_text() == ""
    assert "valska" not in (outputs / "homes.txt").read_text().replace("/home/valska-test:", "")
