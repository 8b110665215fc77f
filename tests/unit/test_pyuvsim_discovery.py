import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.tool import RunSpec, read_file
from valska.external_tools.pyuvsim import TOOL
from valska.external_tools.pyuvsim.document import parse_yaml, render_yaml
from valska.external_tools.pyuvsim.files import NamedFile, locate

DATA = Path(__file__).parents[1] / "data" / "pyuvsim"
BINARIES = ("beams/NF.beamfits", "beams/old_style.fits", "other/mwa.h5", "other/z.h5")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's directory with an obsparam file, and another current directory."""
    home = tmp_path / "user"
    shutil.copytree(DATA, home)
    for name in (*BINARIES, "other/NF.beamfits", "Sky Models/Nine Sources.txt"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(name.encode())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


def spec_of(home: Path, **overrides: Any) -> RunSpec:
    source = home / "obsparam_tiny.yaml"
    return RunSpec("pyuvsim", "r", source, overrides=overrides, directives=TOOL.directives)


def edit(path: Path, **sections: Any) -> None:
    document = parse_yaml(path.read_bytes(), path.name)
    for name, value in sections.items():
        if value is None:
            del document[name]
        elif isinstance(value, dict) and isinstance(document.get(name), dict):
            document[name] = {**document[name], **value}
        else:
            document[name] = value
    path.write_bytes(render_yaml(document))


def found(spec: RunSpec) -> dict[str, str]:
    return {file.name: file.target for file in TOOL.discover(spec, read_file)}


def refused(spec: RunSpec) -> UsageError:
    with pytest.raises(UsageError) as caught:
        TOOL.discover(spec, read_file)
    assert caught.value.exit_code == 2
    return caught.value


def test_every_file_is_found_and_named_plainly(user: Path) -> None:
    inputs = TOOL.discover(spec_of(user), read_file)
    assert {
        file.name: (file.source.relative_to(user).as_posix(), file.target) for file in inputs
    } == {
        "sources.catalog": ("Sky Models/Nine Sources.txt", "nine_sources.txt"),
        "telescope.array_layout": ("layout.csv", "layout.csv"),
        "telescope_config.beam_paths.0.filename": ("beams/NF.beamfits", "nf.beamfits"),
        "telescope_config.beam_paths.2.filename.0": ("other/mwa.h5", "mwa.h5"),
        "telescope_config.beam_paths.2.mwa_zfile": ("other/z.h5", "z.h5"),
        "telescope_config.beam_paths.3.filename": ("beams/old_style.fits", "old_style.fits"),
        "telescope_config.beam_paths.4.filename": ("other/NF.beamfits", "nf-2.beamfits"),
        "telescope_config.beam_paths.5.filename": ("beams/NF.beamfits", "nf.beamfits"),
    }
    assert all(file.source.is_absolute() for file in inputs)


def test_the_rendered_telescope_names_the_staged_files(user: Path) -> None:
    spec = spec_of(user)
    plan = TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)
    telescope = parse_yaml(plan.configs["telescope.yaml"], "telescope.yaml")
    original = parse_yaml((user / "telescope.yaml").read_bytes(), "telescope.yaml")
    beams = telescope["beam_paths"]
    assert beams[0] == {"filename": "../inputs/nf.beamfits", "mount_type": "fixed"}
    assert beams[0].tag == beams[2].tag == "!UVBeam"
    assert beams[1] == original["beam_paths"][1]
    assert beams[1].tag == "!AnalyticBeam"
    assert beams[2] == {
        "filename": ["../inputs/mwa.h5"],
        "mwa_zfile": "../inputs/z.h5",
        "freq_range": [1e8, 2e8],
    }
    assert beams[3] == {"filename": "../inputs/old_style.fits", "mount_type": "fixed"}
    assert beams[4]["filename"] == "../inputs/nf-2.beamfits"
    rest = ("telescope_location", "telescope_name", "select")
    assert [telescope[key] for key in rest] == [original[key] for key in rest]


def test_an_alias_of_a_beam_is_staged_like_the_beam(user: Path) -> None:
    (user / "telescope.yaml").write_text(
        "beam_paths:\n  0: &b !UVBeam {filename: beams/NF.beamfits}\n  1: *b\n"
        "telescope_location: (0, 0, 0)\ntelescope_name: T\n"
    )
    spec = spec_of(user)
    plan = TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)
    beams = parse_yaml(plan.configs["telescope.yaml"], "t")["beam_paths"]
    assert beams[0] == beams[1] == {"filename": "../inputs/nf.beamfits"}


def test_the_current_directory_comes_before_the_obsparam_files(user: Path) -> None:
    here = Path("layout.csv")
    here.write_text("another layout")
    inputs = {file.name: file for file in TOOL.discover(spec_of(user), read_file)}
    assert inputs["telescope.array_layout"].source == here.absolute()
    assert inputs["sources.catalog"].source.is_relative_to(user)


def test_a_relative_obsparam_path_works(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(user)
    spec = replace(spec_of(user), source=Path("obsparam_tiny.yaml"))
    assert all(file.source.is_file() for file in TOOL.discover(spec, read_file))


def test_two_places_give_the_same_bytes(user: Path, tmp_path: Path) -> None:
    copy = tmp_path / "another place" / "deeper"
    shutil.copytree(user, copy)
    plans = []
    for home in (user, copy):
        spec = spec_of(home)
        plans.append(TOOL.plan(spec, TOOL.discover(spec, read_file), read_file))
    assert plans[0] == plans[1]
    assert not any(str(tmp_path).encode() in text for text in plans[0].configs.values())


def test_a_table_in_a_gleam_directory_is_still_read_as_gleam(user: Path) -> None:
    (user / "GLEAM").mkdir()
    (user / "GLEAM" / "part.vot").write_text("")
    assert found(spec_of(user, **{"sources.catalog": "GLEAM/part.vot"}))["sources.catalog"] == (
        "gleam_part.vot"
    )


def test_a_mock_sky_is_no_file(user: Path) -> None:
    (user / "mock").write_text("")
    edit(user / "obsparam_tiny.yaml", sources={"catalog": "mock", "mock_arrangement": "cross"})
    assert "sources.catalog" not in found(spec_of(user))


def cst(user: Path, beam: str) -> RunSpec:
    (user / "telescope.yaml").write_text(
        f"beam_paths:\n  0: !UVBeam {beam}\ntelescope_location: (0, 0, 0)\ntelescope_name: T\n"
    )
    return spec_of(user)


def test_cst_settings_are_rendered_and_their_files_staged(user: Path) -> None:
    folder = user / "CST"
    folder.mkdir()
    names = ["X_150MHz.txt", "X_160MHz.txt"]
    for name in names:
        (folder / name).write_text(name)
    (folder / "Telescope.yaml").write_text(
        yaml.safe_dump({"filenames": names, "frequencies": [150e6, 160e6]})
    )
    spec = cst(user, "{filename: CST/Telescope.yaml}")
    plan = TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)
    key = "telescope_config.beam_paths.0.filename.filenames"
    assert found(spec)[f"{key}.1"] == "x_160mhz.txt"
    assert set(plan.configs) == {"obsparam.yaml", "telescope.yaml", "telescope-2.yaml"}
    beam = parse_yaml(plan.configs["telescope.yaml"], "t")["beam_paths"][0]
    assert beam == {"filename": "../config/telescope-2.yaml"}
    assert yaml.safe_load(plan.configs["telescope-2.yaml"]) == {
        "filenames": ["../inputs/x_150mhz.txt", "../inputs/x_160mhz.txt"],
        "frequencies": [150e6, 160e6],
    }


@pytest.mark.parametrize(
    ("beam", "expected"),
    [
        ("{filename: A_120.87MHz.txt}", 120.87e6),
        ("{filename: [A_120.87MHz.txt]}", [120.87e6]),
        ("{filename: A_120.87MHz.txt, frequency: 5.0}", 5.0),
    ],
)
def test_a_frequency_in_a_cst_files_name_survives(user: Path, beam: str, expected: Any) -> None:
    (user / "A_120.87MHz.txt").write_text("")
    spec = cst(user, beam)
    plan = TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)
    rendered = parse_yaml(plan.configs["telescope.yaml"], "t")["beam_paths"][0]
    assert rendered["frequency"] == expected


def test_a_cst_file_of_unknown_frequency_is_refused(user: Path) -> None:
    (user / "beam.txt").write_text("")
    spec = cst(user, "{filename: beam.txt}")
    with pytest.raises(UsageError, match=r"frequency of the beam file beam\.txt"):
        TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)


def test_what_only_the_image_can_resolve_is_refused(user: Path) -> None:
    error = refused(cst(user, "{filename: H.beamfits, path_variable: pyuvsim.data.DATA_PATH}"))
    assert "where pyuvsim is installed" in error.message
    assert "telescope_config.beam_paths.0.path_variable=DIRECTORY" in str(error.hint)


def test_an_override_replaces_the_path_variable(user: Path) -> None:
    cst(user, "{filename: NF.beamfits, path_variable: pyuvsim.data.DATA_PATH}")
    spec = spec_of(user, **{"telescope_config.beam_paths.0.path_variable": str(user / "beams")})
    assert found(spec)["telescope_config.beam_paths.0.filename"] == "nf.beamfits"


@pytest.mark.parametrize(
    ("key", "value", "message", "hint"),
    [
        (
            "sources.catalog",
            "https://example.org/c",
            "https://example.org/c is no file",
            "download",
        ),
        ("sources.catalog", "~/sky.txt", "no such file: ~/sky.txt", "neither ~ nor variables"),
        ("sources.catalog", "$HOME/sky.txt", "no such file", "neither ~ nor variables"),
        ("sources.catalog", "sky.txt", "no such file: sky.txt", "current directory"),
        ("sources.catalog", "Sky Models", "is a directory", "one file"),
        ("sources.catalog", ["a", "b"], "not the path of a file", "one path"),
        ("sources.catalog", "a\nb", "not the path of a file", "control"),
        ("sources.catalog", "a" * 5000, "no such file", "current directory"),
        ("telescope.telescope_config_name", "t.yaml", "no such file: t.yaml", "current directory"),
        ("telescope.telescope_config_name", "layout.csv", "telescope configuration", "beam_paths"),
        ("telescope.telescope_config_name", None, "is missing", "beams"),
        ("telescope.array_layout", None, "is missing", "CSV"),
        ("telescope.array_layout", {0: [0, 0, 0]}, "written out", "CSV"),
        ("freq.Nfreq", 3, "no key 'freq.Nfreq'", "freq.Nfreqs"),
        (
            "telescope_config.telescope_nam",
            3,
            "no key 'telescope_config.telescope_nam'",
            "telescope_config.telescope_name",
        ),
    ],
)
def test_a_wrong_path_or_key_is_one_clear_error(
    user: Path, key: str, value: Any, message: str, hint: str
) -> None:
    error = refused(spec_of(user, **{key: value}))
    assert message in error.message
    assert hint in str(error.hint)


def test_a_file_that_is_no_file_is_refused(user: Path) -> None:
    assert (
        "not a regular file" in refused(spec_of(user, **{"sources.catalog": "/dev/null"})).message
    )


def test_an_unreadable_file_is_refused(user: Path) -> None:
    with as_an_ordinary_user(), tempfile.TemporaryDirectory(dir="/tmp") as folder:
        locked = Path(folder) / "locked.txt"
        locked.touch(mode=0o000)
        file = NamedFile("sources.catalog", "obsparam", (), (locked,), "locked.txt", ("", ""))
        with pytest.raises(UsageError, match="Permission denied") as caught:
            locate(file)
    assert caught.value.hint == "Check the file's permissions."


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root can read everything: be somebody else for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize(
    ("sections", "message", "hint"),
    [
        ({"telescop": {}}, "unknown key 'telescop'", "'telescope'"),
        ({"freqs": {}}, "unknown key 'freqs'", "'freq'"),
        ({"freq": {"nfreqs": 1}}, "unknown key 'freq.nfreqs'", "'Nfreqs'"),
        ({"freq": {"colour": 1}}, "unknown key 'freq.colour'", "channel_width"),
        ({"time": {"start_tim": 1}}, "unknown key 'time.start_tim'", "'start_time'"),
        ({"sources": {"catalogue": 1}}, "unknown key 'sources.catalogue'", "'catalog'"),
        ({"filing": {"outputformat": 1}}, "filing.outputformat", "output_format"),
        ({"select": {"no_auto": 1}}, "unknown key 'select.no_auto'", "'no_autos'"),
        ({"freq": {"start_freq": "1e8"}}, "freq.start_freq is not a number", "100000000.0"),
        ({"freq": {"freq_array": ["x"]}}, "freq.freq_array is not a number", "list of numbers"),
        ({"select": "all"}, "select is not a section", "antenna_nums"),
        ({"time": None}, "no section time", "sections"),
        ({"time": None, "beam_paths": {}}, "no section time", "telescope configuration"),
    ],
)
def test_a_wrong_obsparam_file_is_one_clear_error(
    user: Path, sections: dict[str, Any], message: str, hint: str
) -> None:
    edit(user / "obsparam_tiny.yaml", **sections)
    error = refused(spec_of(user))
    assert message in error.message
    assert hint in str(error.hint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no pyuvsim obsparam file"),
        (b"just text", "no pyuvsim obsparam file"),
        (b"- a\n- b\n", "no pyuvsim obsparam file"),
        (b"freq: [1, 2\n", "line 2, column 1"),
        (b"\x89HDF\r\n\x1a\n", "not valid YAML"),
    ],
)
def test_what_is_no_obsparam_file_is_refused(user: Path, text: bytes, message: str) -> None:
    (user / "obsparam_tiny.yaml").write_bytes(text)
    assert message in refused(spec_of(user)).message


@pytest.mark.parametrize("name", ["nothing.yaml", "."])
def test_an_obsparam_file_that_cannot_be_read_is_refused(user: Path, name: str) -> None:
    assert refused(replace(spec_of(user), source=user / name)).message


@pytest.mark.parametrize(
    ("telescope", "message"),
    [
        ({"beam_path": {}}, "unknown key 'beam_path'"),
        ({"beam_paths": None}, "has no beam_paths"),
        ({"beam_paths": [1]}, "does not map beam numbers"),
        ({"beam_paths": {0: "airy"}}, "does not take 'airy'"),
    ],
)
def test_a_wrong_telescope_file_is_one_clear_error(
    user: Path, telescope: dict[str, Any], message: str
) -> None:
    edit(user / "telescope.yaml", **telescope)
    error = refused(spec_of(user))
    assert message in error.message
    assert error.hint


def test_a_key_that_pyuvsim_passes_over_is_kept_with_a_warning(
    user: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(user / "obsparam_tiny.yaml", vis_units="Jy", sources={"note": "mine"})
    spec = spec_of(user)
    inputs = TOOL.discover(spec, read_file)
    plan = TOOL.plan(spec, inputs, read_file)
    assert yaml.safe_load(plan.configs["obsparam.yaml"])["vis_units"] == "Jy"
    assert [record.args for record in caplog.records] == [("vis_units",), ("sources.note",)]
