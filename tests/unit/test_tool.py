"""Tools as plug-ins: found by entry point, loaded by name, broken ones reported by name."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from toy import Toy

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.tool import (
    BUILT_IN,
    ENTRY_POINT_GROUP,
    Tool,
    load_tool,
    read_file,
    tool_names,
)


def test_built_in_tool():
    assert "pyuvsim" in tool_names()
    tool = load_tool("pyuvsim")
    assert isinstance(tool, Tool)
    assert tool.name == "pyuvsim"
    assert tool.templates_dir.is_dir()
    assert tool.stages == ("simulate",)


def test_built_in_tools_are_registered_as_they_are_found():
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["entry-points"][ENTRY_POINT_GROUP] == BUILT_IN


def test_toy_is_a_tool():
    assert isinstance(Toy((), {}), Tool)


def test_unknown_tool_lists_what_there_is():
    with pytest.raises(UsageError, match="no tool is called 'nothing'") as caught:
        load_tool("nothing")
    assert "pyuvsim" in caught.value.hint


PLUGINS = {
    "good": "from toy import Toy\nTOOL = Toy((), {}, name='good')\n",
    "broken": "import no_such_module_of_valska\n",
    "exits": "raise RuntimeError('while importing')\n",
    "nothing": "TOOL = object()\n",
}


@pytest.fixture
def plugins(tmp_path):
    """Install four plug-ins for a new interpreter, the way pip does."""
    entries = "".join(f"{name} = valska_{name}:TOOL\n" for name in PLUGINS)
    for name, text in PLUGINS.items():
        (tmp_path / f"valska_{name}.py").write_text(text)
    info = tmp_path / "plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[valska.tools]\n{entries}")
    link = Path(tmp_path.parent / "plain")
    link.symlink_to(tmp_path)
    return link


def _python(plugins, code):
    path = os.pathsep.join([str(plugins), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", f"from valska.external_tools.core.tool import *\n{code}"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_plugins_are_listed_without_loading_any(plugins):
    out = _python(plugins, "import sys; print(*tool_names(), 'valska_broken' in sys.modules)")
    assert out == "bayeseor broken exits good nothing pyuvsim False"


def test_good_plugin_loads_beside_broken_ones(plugins):
    assert _python(plugins, "print(load_tool('good').name)") == "good"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "does not load: No module named 'no_such_module_of_valska'"),
        ("exits", "does not load: while importing"),
        ("nothing", "is no valska tool"),
    ],
)
def test_broken_plugin_is_reported_by_name(plugins, name, words):
    out = _python(
        plugins,
        f"try: load_tool({name!r})\nexcept ValskaError as error: print(error.message)",
    )
    assert repr(name) in out
    assert words in out


def test_reading_what_a_spec_names(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    assert read_file(tmp_path / "f") == b"x"
    with pytest.raises(UsageError, match="is a directory"):
        read_file(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        read_file(tmp_path / "gone")
    with pytest.raises(UsageError, match="cannot read"):
        read_file(tmp_path / "f" / "g")
