"""Archives that would do harm: each kind is refused, and nothing is written or left behind."""

import io
import random
import shutil
import subprocess
import tarfile
import threading
import zlib
from contextlib import suppress

import pytest
import zstandard
from archives import entry, plain_tar, repacked, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from valska.external_tools.core.archive import compressed, entries, reading
from valska.external_tools.core.archive.container import FRAME_HEAD, trailer
from valska.external_tools.core.archive.entries import Limits
from valska.external_tools.core.archive.errors import HostileError, NoArchiveError
from valska.external_tools.core.archive.reading import Nowhere, read_archive
from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.archive.verification import verify_archive
from valska.external_tools.core.errors import UsageError, ValskaError, VerificationError
from valska.external_tools.core.run_directory import TakenError

LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture
def place(tmp_path):
    """An empty directory to unpack into, in one that must stay as it is."""
    place = tmp_path / "in" / "here"
    place.mkdir(parents=True)
    return place


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


HOSTILE = {
    "an absolute name": [entry("/tmp/valska-was-here")],
    "a name that leads out": [entry("r1/../../outside")],
    "a name that leads out at once": [entry("../outside")],
    "a name beside the directory": [entry("other/file")],
    "a file beside the directory": [entry("file")],
    "a plain dot": [entry("r1/./file")],
    "an empty part": [entry("r1//file")],
    "a link out": [entry("r1/data/l", type=LINK, linkname="../../outside")],
    "an absolute link": [entry("r1/data/l", type=LINK, linkname="/etc/passwd")],
    "a link beside the payload": [entry("r1/l", type=LINK, linkname="README.md")],
    "a link without a target": [entry("r1/data/l", type=LINK, linkname="")],
    "a link to a directory": [entry("r1/data/l", type=LINK, linkname="bundle")],
    "a link to a link": [
        entry("r1/data/k", type=LINK, linkname="bundle/README.md"),
        entry("r1/data/l", type=LINK, linkname="k"),
    ],
    "a file below a link": [
        entry("r1/data/l", type=LINK, linkname="bundle"),
        entry("r1/data/l/file"),
    ],
    "a file below a file": [entry("r1/data/f"), entry("r1/data/f/g")],
    "a directory and a file": [entry("r1/data/d/f"), entry("r1/data/d")],
    "a hard link": [entry("r1/data/h", type=HARD, linkname="r1/README.md")],
    "a hard link out": [entry("r1/data/h", type=HARD, linkname="/etc/passwd")],
    "a character device": [entry("r1/data/d", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a block device": [entry("r1/data/d", type=tarfile.BLKTYPE, devmajor=8)],
    "a pipe": [entry("r1/data/p", type=tarfile.FIFOTYPE)],
    "a set-user-id file": [entry("r1/data/s", mode=0o4755)],
    "a set-group-id directory": [entry("r1/data/s", type=tarfile.DIRTYPE, mode=0o2755)],
    "a sticky file": [entry("r1/data/s", mode=0o1644)],
    "a control character": [entry("r1/data/a\x1b[2Jb")],
    "a line break": [entry("r1/data/a\nb")],
    "a name that is not UTF-8": [entry("r1/data/\udcff")],
    "names in two cases": [entry("r1/data/bundle/readme.md")],
    "directories in two cases": [entry("r1/data/Bundle/x")],
    "two forms of one letter": [entry("r1/data/\xe9"), entry("r1/data/e\u0301")],
    "a name twice": [entry("r1/data/bundle/README.md")],
    "the same name for a directory": [entry("r1/README.md", type=tarfile.DIRTYPE)],
    "a long name": [entry("r1/data/" + "x" * 300)],
    "a deep name": [entry("r1/data/" + "/".join(["x" * 200] * 30))],
    "a name of many parts": [entry("r1/data/" + "a/" * 1500 + "f")],
    "a line separator": [entry("r1/data/a\u2028b")],
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_hostile_kind_is_refused(archive, place, tmp_path, kind, form):
    path = tmp_path / "x.tar.zst"
    repacked(archive, path, more=HOSTILE[kind])
    before = everything(tmp_path)
    with pytest.raises(VerificationError) as caught:
        unpack_archive(path, place)
    assert caught.value.exit_code == 5
    assert everything(tmp_path) == before
    assert not (tmp_path / "outside").exists()
    assert any(one.path != path.name for one in verify_archive(path).findings)


@pytest.mark.parametrize("size", [3 << 20, 8 << 20])
def test_the_rest_of_what_is_refused_is_not_read(tmp_path, monkeypatch, size):
    places, read = [], compressed.CompressedFile.read

    def noted(source, wanted=-1):
        data = read(source, wanted)
        places.append(source.place)
        return data

    path = tmp_path / "x.tar.zst"
    write_tar(path, [entry("r1/../f"), (tarfile.TarInfo("r1/data"), random.randbytes(size))])
    monkeypatch.setattr(compressed.CompressedFile, "read", noted)
    threads = threading.active_count()
    with pytest.raises(HostileError, match="leads out"):
        read_archive(path, sink=Nowhere())
    assert max(places) < 2 << 20
    assert threading.active_count() == threads


def test_the_hostile_entry_is_named(archive, place, tmp_path):
    path = repacked(archive, tmp_path / "x.tar.zst", more=HOSTILE["a name that leads out"])
    with pytest.raises(HostileError, match="leads out of the archive"):
        unpack_archive(path, place)


def with_global_header(archive, target, fields):
    """Pack an archive again as it is, but for a header before it that is about all entries."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=fields
    ) as tar:
        header = tar.offset
    data = zstandard.ZstdCompressor(write_checksum=True).compress(
        buffer.getvalue()[:header] + plain_tar(archive)
    )
    target.write_bytes(data + trailer(len(data), zlib.crc32(data)))
    return target


@pytest.mark.parametrize("fields", [{"path": "r1/data/other"}, {"mtime": "1"}, {"comment": "x"}])
def test_a_header_about_all_entries_is_refused(archive, place, tmp_path, fields):
    path = with_global_header(archive, tmp_path / "g.tar.zst", fields)
    assert [(one.kind.value, one.path) for one in verify_archive(path).findings] == [
        ("unexpected", "g.tar.zst")
    ]
    before = everything(tmp_path)
    with pytest.raises(HostileError, match="changes entries after it"):
        unpack_archive(path, place)
    assert everything(tmp_path) == before


def pax_header(flag, key, size=0):
    """Return an extended header about what follows, or about all, as tarfile writes it."""
    info = tarfile.TarInfo("pax")
    body = f"{key}={'v' * size}\n"
    length = len(body) + 4
    data = f"{length} {body}".encode()
    assert len(data) == length
    info.type, info.size = flag, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def packed(target, headers):
    data = zstandard.ZstdCompressor(write_checksum=True).compress(headers + bytes(1024))
    target.write_bytes(data + trailer(len(data), zlib.crc32(data)))
    return target


def test_many_headers_about_all_entries_are_told_once(tmp_path):
    path = packed(tmp_path / "g.tar.zst", pax_header(b"g", "comment", 200) * 1000)
    found = [one for one in verify_archive(path).findings if one.path == path.name]
    assert [one.kind.value for one in found] == ["unexpected", "unreadable"]


@pytest.mark.parametrize("flag", [b"x", b"g"])
def test_headers_before_an_entry_are_counted(tmp_path, flag):
    path = packed(tmp_path / "x.tar.zst", pax_header(flag, "comment", 200) * 20)
    with pytest.raises(HostileError, match="more than 10 entries"):
        verify_archive(path, limits=Limits(count=10))


def test_headers_before_an_entry_fill_no_memory(tmp_path):
    headers = [pax_header(b"x", f"VENDOR.{number:05}", 900) for number in range(200)]
    path = packed(tmp_path / "x.tar.zst", b"".join(headers))
    told = [one.detail for one in verify_archive(path).findings if one.path == path.name]
    assert told == ["an extended header is too long"]


def test_a_fault_while_digesting_is_no_finding(archive, tmp_path, monkeypatch):
    def take(self, batch):
        raise MemoryError

    monkeypatch.setattr(compressed, "_SMALL", 0)
    monkeypatch.setattr(reading.Digester, "take", take)
    with pytest.raises(MemoryError):
        verify_archive(archive)


def test_tar_gives_other_times_by_such_a_header(archive, tmp_path, require):
    require(shutil.which("zstd"), "there is no zstd, with which tar reads an archive")
    path = with_global_header(archive, tmp_path / "g.tar.zst", {"mtime": "1"})
    argv = ["tar", "--zstd", "-xf", path, "-C", tmp_path, "r1/README.md"]
    subprocess.run(argv, check=True)
    assert (tmp_path / "r1" / "README.md").stat().st_mtime == 1


def test_a_hostile_entry_comes_first_and_nothing_is_written(place, tmp_path):
    path = write_tar(tmp_path / "x.tar.zst", [entry("../../outside"), entry("r1/file")])
    before = everything(tmp_path)
    with pytest.raises(HostileError):
        unpack_archive(path, place)
    assert everything(tmp_path) == before


def bomb(path, size):
    """Write a small archive of one large file, with a true end."""
    info = tarfile.TarInfo("r1/data/zeros")
    info.size = size
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    with path.open("wb") as file:
        file.write(compressor.compress(info.tobuf(tarfile.PAX_FORMAT)))
        for _ in range(size >> 20):
            file.write(compressor.compress(bytes(1 << 20)))
        file.write(compressor.compress(bytes(1024)) + compressor.flush())
    data = path.read_bytes()
    path.write_bytes(data + trailer(len(data), zlib.crc32(data)))
    return path


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(size=1 << 22), "more than 4194304 bytes"),
        (Limits(count=3), "more than 3 entries"),
    ],
)
def test_too_much_is_refused(archive, place, tmp_path, limits, words):
    path = archive if limits.count == 3 else bomb(tmp_path / "b.tar.zst", 1 << 24)
    before = everything(tmp_path)
    with pytest.raises(HostileError, match=words):
        unpack_archive(path, place, limits=limits)
    with pytest.raises(HostileError, match=words):
        verify_archive(path, limits=limits)
    assert everything(tmp_path) == before


def test_a_bomb_is_refused_by_its_ratio(place, tmp_path):
    path = bomb(tmp_path / "b.tar.zst", 3 << 29)
    assert path.stat().st_size < 1 << 18
    with pytest.raises(HostileError, match="times its size"):
        unpack_archive(path, place)
    assert everything(place) == []


def test_directories_that_only_names_tell_are_counted(place, tmp_path):
    """A few names can stand for any number of directories."""
    deep = [entry(f"r1/data/{number}/" + "a/" * 90 + "f") for number in range(12)]
    path = write_tar(tmp_path / "b.tar.zst", deep)
    with pytest.raises(HostileError, match="more than 1000 entries"):
        unpack_archive(path, place, limits=Limits(count=1000))
    assert everything(place) == []


def test_names_that_fill_the_memory_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr(entries, "_MOST_CHARACTERS", 5000)
    deep = [entry(f"r1/data/{number}/" + "a/" * 90 + "f") for number in range(3)]
    path = write_tar(tmp_path / "b.tar.zst", deep)
    with pytest.raises(HostileError, match="more than 5000 characters"):
        unpack_archive(path, place)
    assert everything(place) == []


def test_altered_and_cut_archives_are_not_unpacked(archive, place, tmp_path):
    data, path = archive.read_bytes(), tmp_path / "x.tar.zst"
    before = None
    for place_of_change in range(0, len(data), 211):
        bad = bytearray(data)
        bad[place_of_change] ^= 0x10
        for content in (bytes(bad), data[:place_of_change]):
            path.write_bytes(content)
            before = before or everything(tmp_path)
            with pytest.raises(VerificationError):
                unpack_archive(path, place)
    assert everything(tmp_path) == before


def test_an_archive_is_unpacked_whole(archive, place):
    done = unpack_archive(archive, place)
    assert done.path == place / "r1"
    assert (done.path / "data/bundle/outputs/out.txt").read_text() == "hello\n"
    assert done.files == sum(1 for path in done.path.rglob("*") if path.is_file())
    assert [path.name for path in place.iterdir()] == ["r1"]
    with pytest.raises(TakenError):
        unpack_archive(archive, place)


def test_what_is_in_the_place_is_kept(archive, place):
    (place / "r1").mkdir()
    with pytest.raises(TakenError):
        unpack_archive(archive, place)
    with pytest.raises(TakenError):
        unpack_archive(archive, place, place / "r1")
    assert [path.name for path in place.iterdir()] == ["r1"]
    with pytest.raises(UsageError, match="no such directory"):
        unpack_archive(archive, place, place / "no" / "such")


def test_modes_follow_the_umask(archive, place):
    done = unpack_archive(archive, place)
    script = done.path / "data/bundle/submit_simulate.sh"
    assert script.stat().st_mode & 0o111
    assert not (done.path / "README.md").stat().st_mode & 0o111


BYTES = st.binary(max_size=2000)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_bytes_make_the_reader_fail(archive, tmp_path, data):
    """Any change of an archive's tar file, packed anew, is a finding or an error of ours."""
    tar = bytearray(plain_tar(archive))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(tar)))
        length = data.draw(st.sampled_from([0, 1, 8, 512, 1024]))
        tar[start : start + length] = data.draw(st.one_of(BYTES, st.just(bytes(length))))
    check_survives(bytes(tar), tmp_path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    headers=st.lists(
        st.tuples(
            st.text(max_size=120),
            st.sampled_from([b"0", b"5", b"2", b"1", b"x", b"g", b"L", b"K", b"S", b"7", b"\0"]),
            st.one_of(st.text(max_size=20), st.just("data/x")),
            BYTES,
            st.integers(0, 0o7777),
        ),
        max_size=5,
    )
)
def test_no_entries_make_the_reader_fail(tmp_path, headers):
    blocks = []
    for name, kind, link, content, mode in headers:
        info = tarfile.TarInfo("r1/data/x")
        info.type, info.size, info.mode = kind, len(content), mode
        block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        block[:100] = name.encode("utf-8", "replace")[:100].ljust(100, b"\0")
        block[157:257] = link.encode("utf-8", "replace")[:100].ljust(100, b"\0")
        block[148:156] = b"        "
        block[148:156] = b"%06o\0 " % sum(block)
        blocks.append(bytes(block) + content + bytes(-len(content) % 512))
    check_survives(b"".join(blocks) + bytes(1024), tmp_path)


def check_survives(tar, folder):
    path = folder / "fuzz.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(tar))
    with suppress(ValskaError):
        assert verify_archive(path).findings
    with pytest.raises(ValskaError):
        unpack_archive(path, folder)
    assert [one.name for one in folder.iterdir()] == [path.name]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=4000), head=st.sampled_from([b"", FRAME_HEAD]))
def test_no_file_makes_the_reader_fail(tmp_path, data, head):
    path = tmp_path / "fuzz.tar.zst"
    path.write_bytes(head + data)
    try:
        assert verify_archive(path).findings
    except NoArchiveError:
        assert not head
