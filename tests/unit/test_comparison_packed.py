"""What of an archive is written down to compare it: no more than there is a limit to."""

import pytest
from archives import entry, write_tar

from valska.external_tools.core.comparison import packed
from valska.external_tools.core.comparison.packed import packed_side
from valska.external_tools.core.errors import VerificationError

CONFIG = "r1/data/bundle/config"


def told(path):
    with pytest.raises(VerificationError) as caught, packed_side(path):
        pass
    return caught.value.message


@pytest.mark.parametrize(
    "names",
    [
        [f"{CONFIG}/{number}" for number in range(60)],
        [f"{CONFIG}/{number}/{'a/' * 20}f" for number in range(3)],
    ],
    ids=["files", "directories"],
)
def test_empty_files_and_their_directories_are_counted(tmp_path, monkeypatch, names):
    path = write_tar(tmp_path / "x.tar.zst", [entry(name, b"") for name in names])
    assert "too many" not in told(path)
    monkeypatch.setattr(packed, "_MOST_BYTES", 50 * packed._ENTRY_BYTES)
    assert told(path).startswith("too many or too large")
    assert "in x.tar.zst: data/bundle" in told(path)


def test_what_would_fill_the_disk_is_not_written(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar.zst", [entry(f"{CONFIG}/large", bytes(1 << 20))])
    assert "too many" not in told(path)
    monkeypatch.setattr(packed, "_MOST_BYTES", 1 << 20)
    assert "too large" in told(path)
