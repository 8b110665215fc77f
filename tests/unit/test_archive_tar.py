"""Headers of tar files: what is written is what tarfile reads, and the other way round."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.archive.tar import (
    BLOCK,
    END,
    Header,
    Headers,
    Kind,
    Parser,
    TarError,
    padded,
    pax_records,
)

NAMES = st.lists(
    st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1),
    min_size=1,
    max_size=6,
).map(lambda parts: "/".join(part if part not in (".", "..") else "x" for part in parts))


@given(NAMES, st.binary(max_size=1500), st.sampled_from([0o644, 0o755]))
def test_tarfile_reads_what_is_written(name, content, mode):
    text = Headers(1_700_000_000).encode(name, Kind.FILE, len(content), mode)
    assert len(text) % BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(text + padded(content) + END)) as tar:
        (member,) = tar.getmembers()
        assert tar.extractfile(member).read() == content
    assert (member.name, member.mode, member.mtime) == (name, mode, 1_700_000_000)
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (tarfile.REGTYPE, Kind.FILE),
        (tarfile.DIRTYPE, Kind.DIRECTORY),
        (tarfile.SYMTYPE, Kind.LINK),
        (tarfile.LNKTYPE, Kind.HARD_LINK),
        (tarfile.CHRTYPE, Kind.DEVICE),
        (tarfile.BLKTYPE, Kind.DEVICE),
        (tarfile.FIFOTYPE, Kind.DEVICE),
        (b"S", Kind.OTHER),
    ],
)
def test_what_tarfile_writes_is_read(form, kind, expected):
    info = tarfile.TarInfo("some/name")
    info.type, info.mode, info.linkname = kind, 0o4755, "target"
    header = Parser().parse(info.tobuf(form), {})
    assert header.kind is expected
    assert header.mode == 0o4755
    assert header.name.rstrip("/") == "some/name"
    assert header.link == "target"


def test_known_headers_are_read_as_the_first_one_was():
    parser, headers = Parser(), Headers(0)
    for number in range(3):
        for kind, mode in ((Kind.FILE, 0o644), (Kind.FILE, 0o755), (Kind.DIRECTORY, 0o755)):
            name = f"{kind.name}{number}" + "/" * (kind is Kind.DIRECTORY)
            size = number if kind is Kind.FILE else 0
            assert parser.parse(headers.encode(name, kind, size, mode), {}) == Header(
                name, kind, size, mode
            )
    assert parser.parse(headers.encode("old/", Kind.FILE, 0, 0o644), {}).kind is Kind.DIRECTORY


def test_a_size_beyond_the_plain_form_is_written_and_read():
    text = Headers(0).encode("big", Kind.FILE, 9 << 30, 0o644)
    records = pax_records(text[BLOCK : 2 * BLOCK].rstrip(b"\0"))
    assert Parser().parse(text[-BLOCK:], records).size == 9 << 30
    assert tarfile.TarInfo.frombuf(text[:BLOCK], "utf-8", "strict").type == tarfile.XHDTYPE


@pytest.mark.parametrize("known", [False, True], ids=["first", "known"])
def test_every_altered_byte_of_a_header_is_found(known):
    text = Headers(1_700_000_000).encode("name", Kind.FILE, 5, 0o644)
    parser = Parser()
    good = Parser().parse(text, {})
    if known:
        assert parser.parse(text, {}) == good
    for place in range(BLOCK):
        bad = bytearray(text)
        bad[place] ^= 0x41
        try:
            assert parser.parse(bytes(bad), {}) == good
        except TarError:
            continue
        assert place in (154, 155), place


@pytest.mark.parametrize(
    "text",
    [b"x", b"5 a=b\n", b"9 path=a\n9 path=b\n", b"99 path=a\n", b"8 path=a\n", b"0 a=\n"],
)
def test_damaged_extended_headers_are_refused(text):
    with pytest.raises(TarError):
        pax_records(text)
