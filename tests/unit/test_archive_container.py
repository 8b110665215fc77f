"""The file of an archive: one frame and its trailer, and whatever else a reader would pass over."""

import zlib

import pytest
import zstandard
from archives import finished, pack

from valska.external_tools.core.archive.container import TRAILER_BYTES, Frame, trailer
from valska.external_tools.core.archive.verification import verify_archive

SKIPPED = bytes.fromhex("502a4d18 04000000") + b"away"
CUT = bytes.fromhex("502a4d18 f0ffffff")


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    return pack(finished(folder), folder / "r1.tar.zst").path.read_bytes()[:-TRAILER_BYTES]


def findings(path, data):
    """Write the file of an archive from what is before its trailer, and verify it."""
    path.write_bytes(data + trailer(len(data), zlib.crc32(data)))
    return verify_archive(path).findings


def test_the_frame_that_was_packed_is_one(frame, tmp_path):
    assert findings(tmp_path / "a.tar.zst", frame) == ()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda frame: frame[:-4], id="no-checksum"),
        pytest.param(lambda frame: frame + SKIPPED, id="skipped-after"),
        pytest.param(lambda frame: SKIPPED + frame, id="skipped-before"),
        pytest.param(lambda frame: frame + CUT, id="skipped-cut"),
        pytest.param(lambda frame: frame + zstandard.compress(b""), id="second-frame"),
        pytest.param(lambda frame: frame + b"x", id="byte-after"),
    ],
)
def test_what_readers_pass_over_or_refuse_is_found(frame, change, tmp_path):
    found = findings(tmp_path / "a.tar.zst", change(frame))
    assert any("one frame" in one.detail for one in found)


def test_a_frame_without_checksum_is_found(frame, tmp_path):
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(frame)
    plain = zstandard.ZstdCompressor(write_checksum=False).compress(raw)
    assert findings(tmp_path / "a.tar.zst", plain)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 4096])
@pytest.mark.parametrize("options", [{}, {"level": 19}, {"write_content_size": False}])
def test_a_frame_is_followed_whatever_the_pieces(step, options):
    content = bytes(300_000) + bytes(range(256)) * 100
    data = zstandard.ZstdCompressor(write_checksum=True, **options).compress(content)
    followed = Frame()
    for start in range(0, len(data), step):
        assert not followed.has_ended
        followed.take(data[start : start + step])
    assert followed.is_whole
    followed.take(b"xy")
    assert followed.after == 2
    assert not followed.is_whole
