"""A dry run of unpacking ends as unpacking does."""

import tarfile

import pytest
from archives import entry, repacked
from test_archive_hostile import HOSTILE

from valska.external_tools.core.archive.entries import Limits
from valska.external_tools.core.archive.errors import HostileError
from valska.external_tools.core.archive.unpacking import rehearse_unpacking, unpack_archive
from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.run_directory import TakenError


@pytest.fixture
def both(tmp_path):
    """What gives the error of an unpacking, once the dry run has told the same."""
    place = tmp_path / "here"
    place.mkdir()

    def both(archive, output=None, **more):
        errors = []
        before = sorted(tmp_path.rglob("*"))
        for unpack in (rehearse_unpacking, unpack_archive):
            with pytest.raises(ValskaError) as caught:
                unpack(archive, place, output, **more)
            errors.append(caught.value)
        one, other = errors
        assert (type(one), one.message, one.hint) == (type(other), other.message, other.hint)
        assert sorted(tmp_path.rglob("*")) == before
        return one

    return both


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive(archive, both, tmp_path, kind):
    path = repacked(archive, tmp_path / "x.tar.zst", more=HOSTILE[kind])
    assert isinstance(both(path), VerificationError)


def test_a_hostile_entry_is_named_as_such(archive, both, tmp_path):
    path = repacked(archive, tmp_path / "x.tar.zst", more=HOSTILE["a character device"])
    error = both(path)
    assert isinstance(error, HostileError)
    assert error.hint == "Nothing was unpacked. Do not trust it."


def test_more_than_is_allowed(archive, both):
    assert "more than 3 entries" in both(archive, limits=Limits(count=3)).message


def test_what_is_not_as_it_was_packed(archive, both, tmp_path):
    path = repacked(archive, tmp_path / "x.tar.zst", without=("README.md",))
    assert "README.md" in both(path).message
    path.write_bytes(archive.read_bytes()[:-100])
    assert "not as it was packed" in both(path).message


def test_a_place_that_is_not_there_or_no_directory(archive, both, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("nothing", "file"):
        error = both(archive, tmp_path / name / "r1")
        assert error.exit_code == 2
        assert "no such directory" in error.message
    (tmp_path / "taken").mkdir()
    assert isinstance(both(archive, tmp_path / "taken"), TakenError)


def test_what_would_be_made(archive, tmp_path):
    told = rehearse_unpacking(archive, tmp_path)
    assert not told.path.exists()
    assert unpack_archive(archive, tmp_path) == told


def test_the_first_entry_that_is_hostile_is_the_last_that_is_looked_at(both, archive, tmp_path):
    more = [entry("../outside"), entry("r1/data/h", type=tarfile.LNKTYPE, linkname="/etc/passwd")]
    path = repacked(archive, tmp_path / "x.tar.zst", more=more)
    assert "outside" in both(path).message
