"""What a build is given from beside its definition: files, their modes, and a local base."""

import os
import tarfile

import pytest

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images.building.base import own_base
from valska.external_tools.core.images.building.sandbox import _own_text, _unpack
from valska.external_tools.core.images.building.staging import stage_files
from valska.external_tools.core.images.definition import read_definition, replace_source
from valska.external_tools.core.process import run


@pytest.fixture
def stage(tmp_path):
    """Stage the lines of %files of a definition in ``home``; return where it is to be built."""
    (tmp_path / "work").mkdir()

    def stage(*lines, directory=tmp_path / "work" / "files"):
        path = tmp_path / "home" / "x.def"
        text = "Bootstrap: docker\nFrom: a\n\n%files\n" + "".join(f"    {line}\n" for line in lines)
        path.write_text(text)
        return stage_files(read_definition(path), {}, directory)

    (tmp_path / "home" / "data" / "sub").mkdir(parents=True)
    (tmp_path / "home" / "data" / "one").write_text("1")
    (tmp_path / "home" / "data" / "sub" / "two").write_text("2")
    return stage


def test_a_link_brings_what_it_leads_to_from_beside_the_directory(stage, tmp_path):
    (tmp_path / "home" / "other").write_text("other")
    (tmp_path / "home" / "data" / "link").symlink_to("../other")
    here = stage("data /opt/data")
    assert (here / "data" / "link").read_text() == "other"
    assert not (here / "data" / "link").is_symlink()


def test_a_file_of_a_directory_named_before_it_does_not_stand_for_it(stage):
    here = stage("data/one /one", "data /data", "data/sub/two /two")
    assert (here / "data" / "sub" / "two").read_text() == "2"


def test_all_that_lies_beside_a_definition(stage, tmp_path):
    inside = tmp_path / "home" / "tmp"
    inside.mkdir()
    here = stage(". /opt", directory=inside / "files")
    assert (here / "data" / "sub" / "two").read_text() == "2"
    assert not (here / "tmp").exists()


@pytest.mark.parametrize("name", ["../up/one", "../u*/one", "../up", "../home/../up/one"])
def test_files_above_the_definition_have_modes_of_no_umask(stage, tmp_path, name):
    (tmp_path / "up").mkdir(mode=0o700)
    file = tmp_path / "up" / "one"
    file.write_text("1")
    file.chmod(0o600)
    here = stage(f"{name} /opt/one", "data /opt/data")
    if name.count("..") > 1:
        assert here == tmp_path / "home"
        return
    staged = here / ".." / "up" / "one"
    assert staged.read_text() == "1"
    assert staged.stat().st_mode & 0o777 == 0o644
    assert staged.resolve().is_relative_to(tmp_path / "work" / "files")
    assert (here / "data" / "one").is_file()


def test_a_pipe_is_no_file_to_copy(stage, tmp_path):
    os.mkfifo(tmp_path / "home" / "data" / "pipe")
    with pytest.raises(ValskaError, match="for %files cannot be copied"):
        stage("data /opt/data")


@pytest.mark.parametrize(
    ("bootstrap", "source"),
    [
        ("localimage", "../base"),
        ("localimage", "../\\\nbase # ours"),
        ("oci-archive", "../base:v1"),
    ],
)
def test_a_base_beside_a_definition_is_named_by_its_whole_path(tmp_path, bootstrap, source):
    home = tmp_path / "home"
    home.mkdir()
    (home / "x.def").write_text(
        f"Bootstrap: {bootstrap}\nFrom: {source}\nFingerprints: a\n\n%post\n"
    )
    with tarfile.open(tmp_path / "base", "w") as tar:
        tar.addfile(tarfile.TarInfo("etc"))
    definition = read_definition(home / "x.def")
    base = own_base(definition, {})
    assert base.sha256
    place = f"{home}/../base" + (":v1" if ":" in source else "")
    assert _own_text(base, definition) == (
        f"Bootstrap: {bootstrap}\nFrom: {place}\nFingerprints: a\n\n%post\n"
    )


def test_a_base_that_is_cut_off(tmp_path):
    (tmp_path / "base").write_bytes(bytes(32) + b"SIF_MAGIC\0".ljust(96, b"\1"))
    (tmp_path / "x.def").write_text("Bootstrap: localimage\nFrom: base\n\n%post\n")
    with pytest.raises(PrerequisiteError, match=r"base is a (damaged )?SIF image"):
        own_base(read_definition(tmp_path / "x.def"), {})


def test_nothing_but_the_source_is_replaced(tmp_path):
    text = "# From: no\nBootstrap: docker\nFrom: a@b\n\n%post\n    echo From: c\n"
    (tmp_path / "x.def").write_text(text)
    definition = read_definition(tmp_path / "x.def")
    assert replace_source(definition, "/d e") == text.replace("a@b", "/d e")
    remote = own_base(definition, {})
    assert _own_text(remote, definition) == text


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_base_in_a_tar_file_has_the_modes_that_the_tar_file_says(tmp_path, umask):
    with tarfile.open(tmp_path / "base.tar", "w") as tar:
        for name, kind, mode in (
            ("tmp", tarfile.DIRTYPE, 0o1777),
            ("etc", tarfile.DIRTYPE, 0o775),
            ("etc/shadow", tarfile.REGTYPE, 0),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            tar.addfile(member)

    def run_as_others_do(argv, **options):
        without = ["--no-same-permissions", "--no-same-owner"]
        return run([argv[0], argv[1], *without, *argv[2:]], **options)

    before = os.umask(umask)
    try:
        root = _unpack(tmp_path / "base.tar", tmp_path / "base", run_as_others_do)
    finally:
        os.umask(before)
    modes = {name: (root / name).stat().st_mode & 0o7777 for name in ("tmp", "etc", "etc/shadow")}
    assert modes == {"tmp": 0o1777, "etc": 0o775, "etc/shadow": 0o400}
