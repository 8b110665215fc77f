"""Who may import whom, and what importing valska costs."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
HEAVY = {
    "click", "jsonschema", "yaml", "rich", "spython", "rfc8785", "numpy", "h5py", "matplotlib",
    "asyncio", "subprocess", "concurrent", "urllib", "ssl",
}  # fmt: skip


def test_layers_hold(require):
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    require(program, "import-linter is not installed")
    done = subprocess.run(
        [program, "--no-cache", "--no-logo"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_contract_names_every_tool():
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layers = settings["importlinter"]["contracts"][0]["layers"]
    named = {part.strip() for layer in layers for part in layer.split("|")}
    folders = (PROJECT / "src/valska/external_tools").iterdir()
    packages = {path.name for path in folders if (path / "__init__.py").is_file()}
    assert {f"valska.external_tools.{name}" for name in packages} <= named
    assert layers[0] == "valska.cli"
    assert layers[-1] == "valska.external_tools.core"


@pytest.mark.parametrize("module", ["valska", "valska.external_tools.core.errors"])
def test_importing_imports_no_heavy_module(module):
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd="/")
    bare = subprocess.check_output(
        [sys.executable, "-c", "import sys; print(*{name.split('.')[0] for name in sys.modules})"],
        text=True,
        cwd="/",
    )
    assert set(out.split()) & HEAVY - set(bare.split()) == set()
