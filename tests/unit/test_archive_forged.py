"""Entries that would do harm, in archives that agree with themselves in everything else.

Each rule of what is refused stands alone here: without it the archive would be taken.
"""

import re
import struct

import pytest
import zstandard
from archives import plain_tar
from forged import DAMAGED, KINDS, PLACE, TOP, block, closed, forged, gnu, pax

from valska.external_tools.core.archive.errors import HostileError
from valska.external_tools.core.archive.unpacking import rehearse_unpacking, unpack_archive
from valska.external_tools.core.archive.verification import verify_archive
from valska.external_tools.core.errors import VerificationError


@pytest.fixture
def path(tmp_path):
    """Where to write an archive, in a directory that must stay as it is."""
    return tmp_path / "x.tar.zst"


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


HARMLESS = {
    "nothing": (b"", {}),
    "a file": (block(f"{TOP}/{PLACE}/a", b"x"), {f"{PLACE}/a": b"x"}),
    "a name by pax": (
        pax(path=f"{TOP}/{PLACE}/a") + block("z", b"x"),
        {f"{PLACE}/a": b"x"},
    ),
    "a name by GNU tar": (
        gnu(b"L", f"{TOP}/{PLACE}/a\0".encode()) + block("z", b"x"),
        {f"{PLACE}/a": b"x"},
    ),
    "a link": (
        block(f"{TOP}/{PLACE}/l", kind=b"2", link=b"a") + block(f"{TOP}/{PLACE}/a", b"x"),
        {f"{PLACE}/a": b"x", f"{PLACE}/l": b"x"},
    ),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_harmless_is_taken(archive, path, kind):
    """What the others are refused for is then what is in them, not how they were made."""
    forged(archive, path, *HARMLESS[kind])
    assert verify_archive(path).findings == ()
    assert unpack_archive(path, path.parent).path.is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_refused_for_what_it_is(archive, path, kind):
    made, why = KINDS[kind]
    forged(archive, path, *made)
    before = everything(path.parent.parent)
    told = [one.detail for one in verify_archive(path).findings]
    assert any(re.search(why, detail) for detail in told), told
    for take in (unpack_archive, rehearse_unpacking):
        with pytest.raises(VerificationError, match=why):
            take(path, path.parent)
    assert everything(path.parent.parent) == before


@pytest.mark.parametrize("kind", DAMAGED)
def test_each_damaged_header_is_found(archive, path, kind):
    raw, why = DAMAGED[kind]
    forged(archive, path, raw)
    before = everything(path.parent.parent)
    told = [one.detail for one in verify_archive(path).findings]
    assert any(re.search(why, detail) for detail in told), told
    with pytest.raises((HostileError, VerificationError), match=why):
        unpack_archive(path, path.parent)
    assert everything(path.parent.parent) == before


def compressed(data, **how):
    return zstandard.ZstdCompressor(**how).compress(data)


def windowed(data, log):
    parameters = zstandard.ZstdCompressionParameters(window_log=log)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(data) + compressor.flush()


def with_a_dictionary(data):
    words = zstandard.ZstdCompressionDict(data[:4096])
    return compressed(data, dict_data=words)


def with_another_end(data):
    return compressed(data) + compressed(block("../outside", b"x") + bytes(1024))


def with_more_than_there_is(data):
    return struct.pack("<II", 0x184D2A50, 0xFFFFFFF0) + compressed(data)


FRAMES = {
    "a window of 2 GiB": lambda data: windowed(data, 31),
    "a dictionary": with_a_dictionary,
    "a second frame with entries": with_another_end,
    "a frame that passes over everything": with_more_than_there_is,
    "a frame that is cut": lambda data: compressed(data)[:-9],
    "an unknown frame": lambda data: b"\x28\xb5\x2f\xfc" + compressed(data)[4:],
}


@pytest.mark.parametrize("kind", FRAMES)
def test_each_odd_frame_is_found(archive, path, kind):
    path.write_bytes(closed(FRAMES[kind](plain_tar(archive))))
    before = everything(path.parent.parent)
    told = [(one.kind.value, one.path) for one in verify_archive(path).findings]
    assert ("unreadable", path.name) in told
    with pytest.raises(VerificationError):
        unpack_archive(path, path.parent)
    assert everything(path.parent.parent) == before


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "data/../x", "data//x"])
def test_a_manifest_that_leads_out_is_found(archive, path, name):
    forged(archive, path, b"", {name: b"x"})
    told = {one.path: one.detail for one in verify_archive(path).findings}
    assert re.fullmatch(r"line \d+ is not usable", told["manifest-sha256.txt"])
    with pytest.raises(VerificationError, match="is not usable"):
        unpack_archive(path, path.parent)
    assert everything(path.parent) == [str(path)]
