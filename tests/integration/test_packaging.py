"""What a wheel, an sdist and an editable install hold and can read."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOOK_INSIDE = """
import json
from importlib.metadata import entry_points
from importlib.resources import files

import valska
from valska.external_tools import bayeseor, pyuvsim
from valska.external_tools.bayeseor.stages import DRIVER
from valska.external_tools.core.runner import part

print(json.dumps({
    "version": valska.__version__,
    "schemas": sorted(f.name for f in files("valska.schemas").iterdir()),
    "containers": sorted(f.name for f in files("valska.containers").iterdir()),
    "templates": sorted(
        path.name
        for tool in (bayeseor.TOOL, pyuvsim.TOOL)
        for path in tool.templates_dir.rglob("*") if path.is_file()
    ),
    "tools": [entry.name for entry in entry_points(group="valska.tools")],
    "scripts": sorted(e.name for e in entry_points(group="console_scripts") if "valska" in e.value),
    "job": part("job.sh").count("main()"),
    "driver": DRIVER.source.is_file(),
    "typed": files("valska").joinpath("py.typed").is_file(),
}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist of this checkout, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", out, ROOT], check=True, capture_output=True
    )
    return {"sdist": next(out.glob("*.tar.gz")), "wheel": next(out.glob("*.whl"))}


@pytest.fixture(scope="module")
def checkout():
    """What git tracks of the directories that a package ships whole."""
    listed = subprocess.run(
        ["git", "ls-files", "schemas", "containers", "src/valska/external_tools/*/templates/*"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [Path(line) for line in listed.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_an_install_reads_its_schemas_containers_and_templates(
    kind, built, checkout, tmp_path_factory
):
    what = ["--editable", ROOT] if kind == "editable" else [built[kind]]
    seen = install(what, tmp_path_factory.mktemp(kind))
    tracked = {
        "schemas": {path.name for path in checkout if path.suffix == ".json"},
        "containers": {path.name for path in checkout if path.parts[0] == "containers"},
        "templates": {path.name for path in checkout if path.parts[0] == "src"},
    }
    for what, names in tracked.items():
        assert names, what
        assert names <= set(seen[what]), what
    assert seen["tools"] == ["bayeseor", "pyuvsim"]
    verbs = ("prepare", "submit", "sweep")
    commands = [f"valska-{tool}-{verb}" for tool in seen["tools"] for verb in verbs]
    assert seen["scripts"] == ["valska", *commands]
    assert seen["job"] == 1
    assert seen["driver"]
    assert seen["typed"]
    assert "+g" in seen["version"] or seen["version"].count(".") == 2


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
    roots = {name.split("/")[0] for name in names}
    assert {root.split("-")[0] for root in roots} == {"valska"}
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyc")]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_a_rebuild_and_its_tests_need(built):
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    assert {"pyproject.toml", "Makefile", "LICENSE", "README.md", "CHANGELOG.md"} <= names
    assert {"schemas/manifest-1.schema.json", "containers/pyuvsim.def"} <= names
    assert "tests/cluster/common.sh" in names


def install(what, folder):
    """Install without dependencies into a new environment and look inside."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", *what], check=True, capture_output=True)
    done = subprocess.run(
        [python, "-c", LOOK_INSIDE], cwd=folder, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)
