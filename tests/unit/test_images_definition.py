"""Definition files: found, read through spython, checked, and put on another base."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.definition import (
    DefinitionError,
    check_arguments,
    find_definition,
    read_definition,
    rebase,
    shipped_definitions,
)
from valska.external_tools.core.images.linting import lint

DIGEST = "a" * 64
TEXT = f"""\
# Bootstrap: localimage, From: a comment is no header
Bootstrap: docker
From: Registry.example/Library/Python:3.11@sha256:{DIGEST}  # pinned

%arguments
    # how many
    lock=tool.lock
    level = 3

%files
    bootstrap.sh /opt/bootstrap.sh
    {{{{ lock }}}} /opt/tool.lock
    "two words.txt" /opt/two

%post
    # from: nothing
    echo "level {{{{ level }}}}" # a comment
    cat <<'END'
END

%labels
    org.opencontainers.image.title tool
    org.opencontainers.image.base.name registry.example/library/python:3.11
    org.opencontainers.image.base.digest sha256:{DIGEST}

%test
    true
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="tool.def"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_what_a_definition_says(written):
    definition = read_definition(written(TEXT))
    assert definition.header == {
        "bootstrap": "docker",
        "from": f"Registry.example/Library/Python:3.11@sha256:{DIGEST}",
    }
    assert definition.arguments == {"lock": "tool.lock", "level": "3"}
    assert definition.pairs({}) == (
        ("bootstrap.sh", "/opt/bootstrap.sh"),
        ("tool.lock", "/opt/tool.lock"),
        ("two words.txt", "/opt/two"),
    )
    assert definition.pairs({"lock": "other.lock"})[1] == ("other.lock", "/opt/tool.lock")


def test_spython_is_imported_only_when_a_definition_is_read():
    code = (
        "import sys; import valska.external_tools.core.images; "
        "sys.exit(any(name.startswith('spython') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_prints_nothing(written, capfd):
    text = "Bootstrap: localimage\nFrom: x\n%setup\n a\n%runscript\n b\n c\n%appinstall x\n d\n"
    read_definition(written(text))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("agent", ["localimage", "scratch", "debootstrap", "oras"])
def test_every_kind_of_base_is_read(written, agent):
    definition = read_definition(written(f"bootstrap: {agent}\nFrom: X/Y\n%post\n true\n"))
    assert definition.header == {"bootstrap": agent, "from": "X/Y"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no Bootstrap"),
        ("hello\n", "no Bootstrap"),
        ("%post\n true\n", "no Bootstrap"),
        ("Bootstrap: docker\nFrom: x\n%pots\n true\n", "%pots"),
        ("Bootstrap: docker\nFrom: x\nStage: a\n%post\n a\nBootstrap: docker\nFrom: y\n", "stage"),
        ("Bootstrap: docker\nFrom: x\n%arguments\n  nothing\n", "NAME=VALUE"),
        ("Bootstrap: docker\nFrom: x\n%post\n  %test\n", "blanks stand before %test"),
        ("Bootstrap: docker\nFrom: x\n%appinstall\n  true\n", "of which application"),
    ],
)
def test_a_definition_that_cannot_be_built_is_refused(written, text, told):
    with pytest.raises(DefinitionError, match=told) as caught:
        read_definition(written(text))
    assert caught.value.exit_code == 2


def test_a_header_goes_on_after_a_backslash(written):
    text = (
        "Bootstrap: debootstrap\nInclude: a \\\n  b # c\nMirrorURL: https://x.org\n%post\n true\n"
    )
    definition = read_definition(written(text))
    assert definition.header["include"] == "a b"
    assert definition.header["mirrorurl"] == "https://x.org"


def test_a_misspelt_section_has_a_near_miss(written):
    with pytest.raises(DefinitionError) as caught:
        read_definition(written("Bootstrap: docker\nFrom: x\n%pots\n true\n"))
    assert "'post'" in caught.value.hint


@pytest.mark.parametrize("data", [b"Bootstrap: \xff\n", b"plain.txt\0\0\0ustar\0"])
def test_bytes_that_are_no_text_are_refused(tmp_path, data):
    path = tmp_path / "x.def"
    path.write_bytes(data)
    with pytest.raises(DefinitionError, match="is not text"):
        read_definition(path)
    (finding,) = lint(path)
    assert (finding.line, finding.code) == (1, "text")


def test_a_directory_is_no_definition(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "pyuvsim").mkdir()
    with pytest.raises(UsageError, match="folder is a directory"):
        find_definition("folder")
    assert find_definition("pyuvsim").is_file()


def test_arguments_are_checked(written):
    definition = read_definition(written(TEXT))
    check_arguments(definition, {"level": "4"})
    with pytest.raises(UsageError) as caught:
        check_arguments(definition, {"leval": "4"})
    assert "'level'" in caught.value.hint
    missing = read_definition(written("Bootstrap: docker\nFrom: {{ base }}\n", "m.def"))
    with pytest.raises(DefinitionError, match="base"):
        check_arguments(missing, {})
    check_arguments(missing, {"base": "x"})


def test_another_base_changes_the_header_and_its_labels_alone(written):
    definition = read_definition(written(TEXT))
    text = rebase(definition, "localimage", "/some/base", {"name": "base", "digest": "sha256:b"})
    assert text.startswith("Bootstrap: localimage\nFrom: /some/base\n")
    assert "image.base.name base\n" in text
    assert "image.base.digest sha256:b\n" in text
    kept = [line for line in TEXT.splitlines() if "base." not in line and ": " not in line[:11]]
    assert [line for line in kept if line not in text.splitlines()] == []
    assert DIGEST not in rebase(definition, "localimage", "x", {"name": "base"})


def test_shipped_definitions_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = shipped_definitions()
    assert "pyuvsim" in shipped
    for reference in ("pyuvsim", "pyuvsim.def", "containers/pyuvsim.def"):
        assert find_definition(reference) == shipped["pyuvsim"]
    with pytest.raises(UsageError) as caught:
        find_definition("pyuvsin")
    assert "'pyuvsim'" in caught.value.hint
    with pytest.raises(UsageError):
        find_definition("elsewhere/pyuvsim.def")


def test_a_file_wins_over_a_shipped_name(written, monkeypatch):
    path = written("Bootstrap: docker\nFrom: x\n", "pyuvsim.def")
    monkeypatch.chdir(path.parent)
    assert find_definition("pyuvsim.def").resolve() == path.resolve()


@pytest.mark.parametrize("name", sorted(shipped_definitions()))
def test_every_shipped_definition_is_pinned(name):
    definition = read_definition(shipped_definitions()[name])
    assert "@sha256:" in definition.header["from"]
    check_arguments(definition, {})
    for source, _ in definition.pairs({}):
        assert (definition.path.parent / source).is_file()


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r"), max_size=200))
def test_no_text_makes_the_reader_fail_otherwise(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.def"
    path.write_text(f"Bootstrap: docker\nFrom: x\n{text}")
    try:
        definition = read_definition(path)
    except DefinitionError:
        return
    assert definition.header["bootstrap"]
