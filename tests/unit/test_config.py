"""runtime_paths.yaml: found, read, checked, merged, each value with its origin."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.config import (
    SETTING_NAMES,
    Settings,
    directive_texts,
    get_nested,
    get_tool_config,
    load_runtime_paths,
    merge_slurm_config,
    resolve,
    resolve_directives,
)
from valska.external_tools.core.config.file import find_runtime_paths, read_runtime_paths
from valska.external_tools.core.config.plain_yaml import load_plain
from valska.external_tools.core.errors import ConfigError
from valska.external_tools.core.schema import load_schema


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def place(tmp_path):
    """Working directory and home of a user without any configuration."""
    cwd, home = tmp_path / "work", tmp_path / "home"
    cwd.mkdir()
    home.mkdir()
    return {"cwd": cwd, "home": home, "environ": {}}


def test_without_a_file_the_configuration_is_empty(place):
    assert load_runtime_paths(**place) == {}


def test_order_in_which_files_are_found(place, tmp_path):
    home, cwd = place["home"], place["cwd"]
    user = write(home / ".config/valska/runtime_paths.yaml", "")
    assert find_runtime_paths(**place) == user
    xdg = write(tmp_path / "xdg/valska/runtime_paths.yaml", "")
    place["environ"]["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert find_runtime_paths(**place) == xdg
    project = write(cwd / "config/runtime_paths.yaml", "")
    assert find_runtime_paths(**place) == project
    named = write(tmp_path / "a.yaml", "")
    place["environ"]["VALSKA_CONFIG"] = str(named)
    assert find_runtime_paths(**place) == named
    flag = write(tmp_path / "b.yaml", "")
    assert find_runtime_paths(flag, **place) == flag


def test_project_file_is_found_from_below_in_a_checkout_only(place):
    project = write(place["cwd"] / "config/runtime_paths.yaml", "")
    deep = place["cwd"] / "a/b"
    deep.mkdir(parents=True)
    assert find_runtime_paths(**{**place, "cwd": deep}) is None
    (place["cwd"] / ".git").mkdir()
    assert find_runtime_paths(**{**place, "cwd": deep}) == project


def test_a_file_above_the_checkout_is_not_taken(place):
    write(place["cwd"] / "config/runtime_paths.yaml", "")
    inner = place["cwd"] / "inner"
    (inner / ".git").mkdir(parents=True)
    assert find_runtime_paths(**{**place, "cwd": inner}) is None


def test_a_project_file_that_others_can_write_must_be_named(place):
    project = write(place["cwd"] / "config/runtime_paths.yaml", "")
    project.chmod(0o666)
    with pytest.raises(ConfigError, match="anybody can write it") as caught:
        find_runtime_paths(**place)
    assert "--config" in caught.value.hint
    assert find_runtime_paths(project, **place) == project


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_project_file_of_somebody_else_must_be_named(place):
    project = write(place["cwd"] / "config/runtime_paths.yaml", "")
    os.chown(project, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        find_runtime_paths(**place)


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_named_file_must_be_there(place, tmp_path, how):
    missing = tmp_path / "none.yaml"
    if how == "variable":
        place["environ"]["VALSKA_CONFIG"] = str(missing)
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_runtime_paths(missing if how == "flag" else None, **place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("results_rot: /x", r"\$\.results_rot: unknown key. Did you mean 'results_root'"),
        ("pyuvism: {}", r"\$\.pyuvism: unknown key. Did you mean 'pyuvsim'"),
        ("image: /x.sif", r"\$\.image: unknown key. It belongs in the section of a tool"),
        ("pyuvsim: {imgae: x}", r"\$\.pyuvsim\.imgae: unknown key. Did you mean 'image'"),
        ("pyuvsim: {conda: {sh: x}}", r"\$\.pyuvsim\.conda: 'env' is a required property"),
        ("pyuvsim: {runner: docker}", r"\$\.pyuvsim\.runner: 'docker' is not one of"),
        ("slurm: {tmie: 1}", r"\$\.slurm\.tmie: sbatch has no option 'tmie'. Did you mean 'time'"),
        ("pyuvsim: {slurm: {output: x}}", r"\$\.pyuvsim\.slurm\.output: .*cannot be set"),
        (
            "pyuvsim: {stages: {simulate: {slurm: {mem: [1]}}}}",
            r"\$\.pyuvsim\.stages\.simulate\.slurm\.mem: \['1'\] is not of type",
        ),
        ("slurm: {time: 1}\nslurm: {time: 2}", "the key 'slurm' stands twice"),
        ("1: 2\n2: [", "is not YAML"),
        ("- a", "does not hold keys and values"),
        ("~: x", "a key is not text"),
        ("scheduler: pbs", r"\$\.scheduler: 'pbs' is not one of"),
        ("setup: module load x", r"\$\.setup: .* is not of type 'array'"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_faults_are_named_with_their_place(tmp_path, text, message):
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_runtime_paths(path, ["pyuvsim"])
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 2


def test_all_faults_are_reported_together(tmp_path):
    path = write(tmp_path / "c.yaml", "resluts_root: x\nscheduler: pbs\nslurm: {tmie: 1}\n")
    with pytest.raises(ConfigError) as caught:
        read_runtime_paths(path, ["pyuvsim"])
    for part in ("$.resluts_root", "$.scheduler", "$.slurm.tmie"):
        assert part in caught.value.message


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a: \x00", b"\xc3\x28: 1"])
def test_a_file_that_is_not_text_is_an_error(tmp_path, data):
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        read_runtime_paths(path, [])


def test_a_scalar_is_the_text_that_stands_there():
    text = b"a: 01:30:00\nb: 010\nc: no\nd: 2026-01-01\ne: 1e3\nf: null\ng: true\nh: 'null'\ni:"
    assert load_plain(text) == {
        "a": "01:30:00",
        "b": "010",
        "c": "no",
        "d": "2026-01-01",
        "e": "1e3",
        "f": None,
        "g": True,
        "h": "null",
        "i": None,
    }


def test_a_key_without_value_is_as_if_it_was_not_there(place):
    path = write(place["cwd"] / "c.yaml", "setup:\npyuvsim:\nresults_root: /r\n")
    settings = resolve("pyuvsim", path=path, **place)
    assert settings.setup == ()
    assert settings.results_root == Path("/r")


def test_precedence_and_origin(place):
    path = write(
        place["cwd"] / "c.yaml",
        """
results_root: /site
apptainer: /opt/apptainer
scheduler: local
pyuvsim: {results_root: /tool, runner: host, image: abc}
""",
    )
    settings = resolve("pyuvsim", flags={"runner": "conda", "image": None}, path=path, **place)
    assert settings.runner == "conda"
    assert settings.origins["runner"] == "flag"
    assert settings.results_root == Path("/tool")
    assert settings.origins["results_root"] == f"section pyuvsim of {path}"
    assert (settings.scheduler, settings.origins["scheduler"]) == ("local", str(path))
    assert (settings.sbatch, settings.origins["sbatch"]) == ("sbatch", "default")
    assert (settings.image, settings.apptainer) == ("abc", "/opt/apptainer")
    assert resolve(path=path, **place).results_root == Path("/site")
    assert settings.file == path
    assert set(settings.origins) == set(SETTING_NAMES)


def test_image_store(place):
    default = place["home"] / ".local/share/valska/images"
    assert resolve(**place).images == default
    path = write(place["cwd"] / "c.yaml", "images: /store")
    assert resolve(path=path, **place).images == Path("/store")
    place["environ"]["VALSKA_IMAGES"] = "/other"
    settings = resolve(path=path, **place)
    assert (settings.images, settings.origins["images"]) == (Path("/other"), "$VALSKA_IMAGES")
    flagged = resolve(flags={"images": Path("/flag")}, path=path, **place)
    assert flagged.images == Path("/flag")


def test_paths_are_expanded(place):
    path = write(
        place["cwd"] / "sub/c.yaml",
        """
results_root: $SCRATCH/${USER}/results
ca_bundle: certs/ca.pem
apptainer: ~/bin/apptainer
binds: ["$SCRATCH:/scratch:ro"]
setup: ["module load $X"]
pyuvsim: {image: images/x.sif, conda: {sh: ~/conda.sh, env: base}}
""",
    )
    place["environ"] |= {"SCRATCH": "/s", "USER": "ada"}
    settings = resolve("pyuvsim", path=path, **place)
    assert settings.results_root == Path("/s/ada/results")
    assert settings.ca_bundle == path.parent / "certs/ca.pem"
    assert settings.apptainer == str(place["home"] / "bin/apptainer")
    assert settings.binds == ("/s:/scratch:ro",)
    assert settings.setup == ("module load $X",)
    assert settings.image == str(path.parent / "images/x.sif")
    assert settings.conda_sh == place["home"] / "conda.sh"
    assert settings.conda_env == "base"


def test_an_unset_variable_is_an_error(place):
    path = write(place["cwd"] / "c.yaml", "results_root: $NOWHERE/x")
    with pytest.raises(ConfigError, match=r"\$NOWHERE is not set"):
        resolve(path=path, **place)


def test_every_setting_can_be_set_in_a_file_and_the_schema_has_no_other():
    schema = load_schema("runtime-paths-1")
    tool = schema["$defs"]["tool"]["properties"]
    keys = {*schema["properties"], *tool} - {"slurm", "stages", "conda"}
    conda = {f"conda_{key}" for key in tool["conda"]["properties"]}
    assert keys | conda == set(SETTING_NAMES)
    assert schema["$id"] == "urn:valska:schema:runtime-paths-1"
    assert set(Settings.__dataclass_fields__) == {
        *SETTING_NAMES,
        "file",
        "runtime",
        "origins",
    }


@pytest.mark.parametrize(
    ("defaults", "tool", "flags", "merged"),
    [
        ({"a": "1"}, {}, {}, {"a": "1"}),
        ({"a": "1"}, {"a": "2"}, {}, {"a": "2"}),
        ({"a": "1"}, {"a": "2"}, {"a": "3"}, {"a": "3"}),
        ({"a": "1", "b": "1"}, {"a": None}, {}, {"b": "1"}),
        ({"a": "1"}, {"a": None}, {"a": "3"}, {"a": "3"}),
        ({"a": "1"}, {}, {"a": None}, {}),
        ({"a": None}, {}, {}, {}),
        ({"mem": "1"}, {"mem-per-cpu": "2"}, {}, {"mem-per-cpu": "2"}),
        ({"mem": "1", "mem-per-cpu": "2"}, {}, {}, {"mem": "1", "mem-per-cpu": "2"}),
    ],
)
def test_merge_slurm_config(defaults, tool, flags, merged):
    assert merge_slurm_config(defaults, tool, flags) == merged


_LAYER = st.dictionaries(
    st.sampled_from(["time", "qos", "account"]),
    st.none() | st.sampled_from(["1", "two", "3:00"]),
    max_size=3,
)


@given(_LAYER, _LAYER, _LAYER)
def test_the_highest_layer_that_names_a_key_decides(defaults, tool, flags):
    merged = merge_slurm_config(defaults, tool, flags)
    for key in ("time", "qos", "account"):
        layer = next((layer for layer in (flags, tool, defaults) if key in layer), {})
        assert merged.get(key) == layer.get(key)


def test_directives_per_stage_with_origins(place):
    path = write(
        place["cwd"] / "c.yaml",
        """
slurm: {account: site, mem: 1G, time: 01:30:00}
pyuvsim:
  slurm: {partition: long, exclusive: true, mem: null}
  stages: {simulate: {slurm: {time: 90}}}
""",
    )
    runtime = read_runtime_paths(path, ["pyuvsim"])
    found = resolve_directives(
        runtime, "pyuvsim", {"simulate": {"ntasks": "1", "qos": "x"}, "report": {}}, {"qos": None}
    )
    assert directive_texts(found["simulate"]) == {
        "ntasks": "1",
        "account": "site",
        "time": "90",
        "partition": "long",
        "exclusive": "",
    }
    assert directive_texts(found["report"])["time"] == "01:30:00"
    assert found["simulate"]["mem"].value is None
    origins = {name: entry.origin for name, entry in found["simulate"].items()}
    assert origins == {
        "ntasks": "default",
        "account": "site",
        "time": "section pyuvsim, simulate",
        "partition": "section pyuvsim",
        "exclusive": "section pyuvsim",
        "mem": "section pyuvsim",
        "qos": "flag",
    }


def test_a_stage_that_the_tool_does_not_have_is_an_error():
    with pytest.raises(ConfigError, match=r"does not have: simulat$"):
        resolve_directives({"t": {"stages": {"simulat": {}}}}, "t", {"simulate": {}})


def test_nested_values():
    data = {"a": {"b": {"c": 1, "d": None}}, "e": 2}
    assert get_nested(data, "a", "b", "c") == 1
    assert get_nested(data, "a", "b", "d", default=3) is None
    assert get_nested(data, "a", "x", "c", default=3) == 3
    assert get_nested(data, "e", "f") is None
    assert get_tool_config(data, "a") == {"b": {"c": 1, "d": None}}
    assert get_tool_config(data, "none") == {}
