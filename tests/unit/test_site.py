"""site.env: what bash reads from it is what went in."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import ConfigError
from valska.external_tools.core.runner import CondaRunner
from valska.external_tools.core.site import Site, mount_spec, render_site_env, write_site_env

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
SHOW = (
    'eval "$1"; printf "%s\\0" "$VALSKA_IMAGE" "$VALSKA_APPTAINER" "$VALSKA_SCRATCH" '
    '"$VALSKA_SRUN_MPI" "${VALSKA_REFERENCES[$2]}" "${#VALSKA_REFERENCES[@]}" "${VALSKA_MOUNTS[@]}"'
)


def read(site, key="x"):
    code = f"declare -A VALSKA_REFERENCES=(); declare -a VALSKA_MOUNTS=(); {SHOW}"
    out = subprocess.check_output(["bash", "-c", code, "bash", render_site_env(site), key])
    return out.decode().split("\0")[:-1]


@given(TEXT, TEXT, TEXT)
def test_values_come_out_as_they_went_in(image, apptainer, mpi):
    site = Site(image=Path("/", image), apptainer=apptainer, srun_mpi=mpi)
    assert read(site)[:4] == [str(Path("/", image)), apptainer, "", mpi]


@pytest.mark.parametrize("place", ["inputs/a b", "inputs/a]b", "inputs/'\"$x`id`", "inputs/é,=:"])
def test_references_come_out_as_they_went_in(place):
    site = Site(references={place: "/real 'path' $x", "inputs/other": "/y"})
    assert read(site, place)[4:6] == ["/real 'path' $x", "2"]


def test_nothing_given():
    assert read(Site()) == ["", "apptainer", "", "", "", "0"]


@pytest.mark.parametrize(
    ("bind", "spec"),
    [
        ("/a", 'type=bind,"source=/a","destination=/a"'),
        ("/a:/b", 'type=bind,"source=/a","destination=/b"'),
        ("/a::ro", 'type=bind,"source=/a","destination=/a",ro'),
        ("/a:/b:rw", 'type=bind,"source=/a","destination=/b"'),
        ("/a b,c:/d e:ro", 'type=bind,"source=/a b,c","destination=/d e",ro'),
    ],
)
def test_binds(bind, spec):
    assert mount_spec(bind) == spec
    assert read(Site(binds=(bind, "/z")))[6:] == [spec, 'type=bind,"source=/z","destination=/z"']


@pytest.mark.parametrize("bind", ["", "a", "a:/b", "/a:b", "/a:/b:x", "/a:/b:ro:ro", '/a"b'])
def test_unusable_binds(bind):
    with pytest.raises(ConfigError) as caught:
        mount_spec(bind)
    assert caught.value.hint


def test_set_up_lines_and_conda_become_functions():
    site = Site(setup=("echo one", "echo 'two'"), conda=CondaRunner("/c.sh", "my env"))
    text = render_site_env(site)
    out = subprocess.check_output(["bash", "-c", f"{text}\nsite_setup; declare -f site_activate"])
    assert out.decode().startswith("one\ntwo\nsite_activate")
    assert "conda activate 'my env'" in out.decode()


@pytest.mark.parametrize("line", ["a\nb", "a\0b"])
def test_set_up_line_of_several_lines_is_refused(line):
    with pytest.raises(ConfigError, match="more than one line"):
        render_site_env(Site(setup=(line,)))


def test_what_moves_with_an_archive_stays_named_from_there(tmp_path):
    site_env, image = tmp_path / "bundle" / "site.env", tmp_path / "images" / "a b.sif"
    site_env.parent.mkdir()
    site_env.write_text(
        "VALSKA_IMAGE=\"$common\"/../images/'a b.sif'\n"
        'VALSKA_REFERENCES=([inputs/x]="$common"/../references/x)\n'
    )
    references = {"inputs/x": str(tmp_path / "references/x"), "inputs/y": "/y"}
    for _ in range(2):
        write_site_env(site_env, Site(image=image, references=references))
        show = 'common=$1; declare -A VALSKA_REFERENCES=(); source "$1/site.env"; '
        show += 'printf "%s\n" "$VALSKA_IMAGE" "${VALSKA_REFERENCES[@]}"'
        moved = tmp_path / "moved"
        site_env.parent.rename(moved)
        out = subprocess.check_output(["bash", "-c", show, "bash", moved], text=True)
        moved.rename(site_env.parent)
        assert sorted(out.splitlines()) == sorted(
            [f"{moved}/../images/a b.sif", f"{moved}/../references/x", "/y"]
        )
    write_site_env(site_env, Site(image=tmp_path / "other.sif"))
    assert "$common" not in site_env.read_text()


def test_written_whole(tmp_path):
    write_site_env(tmp_path / "site.env", Site())
    write_site_env(tmp_path / "site.env", Site(scratch=tmp_path))
    assert (tmp_path / "site.env").read_text() == render_site_env(Site(scratch=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["site.env"]
