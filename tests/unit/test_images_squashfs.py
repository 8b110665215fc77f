"""A squashfs read in place agrees with the directory that mksquashfs packed."""

import lzma
import os
import random
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images import squashfs
from valska.external_tools.core.images.listing import list_tree
from valska.external_tools.core.images.squashfs import SquashfsTree
from valska.external_tools.core.utils import sha256_bytes

BLOCK = 131072


@pytest.fixture
def source(tmp_path):
    """A directory with everything that has a form of its own in a squashfs."""
    root = tmp_path / "source"
    (root / "usr" / "lib").mkdir(parents=True)
    for name, size in {"empty": 0, "small": 10, "block": BLOCK, "large": 3 * BLOCK + 5}.items():
        (root / name).write_bytes(random.Random(name).randbytes(size))
    (root / "zeros").write_bytes(bytes(BLOCK * 2 + 1))
    with (root / "sparse").open("wb") as file:
        file.truncate(5 * BLOCK + 7)
    (root / "usr" / "many").mkdir()
    for number in range(700):
        (root / "usr" / "many" / f"{number:04}-{'x' * 60}").write_text(str(number))
    (root / "link").symlink_to("usr/lib")
    (root / "dangling").symlink_to("/nowhere/" + "far/" * 200)
    (root / "new\nline, 100% ü").write_text("odd")
    (root / os.fsdecode(b"\xff")).write_text("not UTF-8")
    (root / "again").hardlink_to(root / "large")
    os.mkfifo(root / "pipe")
    (root / "small").chmod(0o4755)
    (root / "usr" / "lib").chmod(0o1777)
    return root


@pytest.fixture
def pack(source, tmp_path, require):
    require(shutil.which("mksquashfs"), "mksquashfs is not here (package squashfs-tools)")

    def pack(*options, root=source):
        path = tmp_path / "image.sqfs"
        flags = ["-noappend", "-no-progress", "-all-root", *options]
        subprocess.run(
            ["mksquashfs", root, path, *flags], check=True, capture_output=True, cwd=tmp_path
        )
        return path

    return pack


@pytest.mark.parametrize(
    "options",
    [
        ("-comp", "gzip"),
        ("-comp", "xz"),
        ("-comp", "zstd"),
        ("-noI", "-noD", "-noF"),
        ("-no-fragments",),
        ("-always-use-fragments",),
        ("-no-exports", "-no-xattrs", "-b", "4096"),
        ("-b", "1M"),
    ],
    ids=" ".join,
)
def test_it_agrees_with_the_directory(pack, source, options):
    with SquashfsTree(pack(*options)) as tree:
        assert list_tree(tree) == list_tree(source)


def test_a_file_is_read(pack, source):
    with SquashfsTree(pack()) as tree:
        assert tree.read(b"large") == (source / "large").read_bytes()
        assert tree.read(b"empty") == b""
        assert tree.read(b"new\nline, 100% \xc3\xbc") == b"odd"
        with pytest.raises(PrerequisiteError, match="there is no file nothing in"):
            tree.read(b"nothing")
        with pytest.raises(PrerequisiteError, match="there is no file link in"):
            tree.read(b"link")


def test_it_begins_where_it_is_said_to(pack, source, tmp_path):
    path = tmp_path / "with a head"
    path.write_bytes(b"#!" * 2048 + pack().read_bytes())
    with SquashfsTree(path, 4096) as tree:
        assert list_tree(tree) == list_tree(source)


def test_devices_are_told_by_their_numbers(pack):
    devices = ["-p", "null c 666 0 0 1 3", "-p", "disk b 660 0 0 259 300"]
    with SquashfsTree(pack(*devices)) as tree:
        found = {node.path: node for node in tree.nodes()}
    assert found[b"null"][1:] == ("c", 0o666, 0, b"1,3")
    assert found[b"disk"][1:] == ("b", 0o660, 0, b"259,300")


def test_an_empty_directory_is_a_tree(pack, tmp_path):
    (tmp_path / "nothing").mkdir()
    with SquashfsTree(pack(root=tmp_path / "nothing")) as tree:
        assert [node.path for node in tree.nodes()] == [b"."]


@pytest.mark.parametrize("compression", ["lzo", "lz4"])
def test_an_unknown_compression_is_named(pack, compression):
    try:
        path = pack("-comp", compression)
    except subprocess.CalledProcessError:
        pytest.skip(f"this mksquashfs has no {compression}")
    with pytest.raises(PrerequisiteError, match="neither gzip nor xz nor zstd"):
        SquashfsTree(path)


@pytest.mark.parametrize("content", [b"", b"hsqs", b"something else " * 20])
def test_what_is_no_squashfs_is_refused(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(PrerequisiteError, match="there is no squashfs in it"):
        SquashfsTree(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PrerequisiteError, match=r"cannot read .*: No such file"):
        SquashfsTree(tmp_path / "x")


def read_all(path: Path) -> str | None:
    with SquashfsTree(path) as tree:
        return list_tree(tree).sha256


@pytest.mark.parametrize("missing", [5000, 100_000, 400_000])
def test_one_that_is_cut_off_is_refused(pack, missing):
    path = pack()
    os.truncate(path, path.stat().st_size - missing)
    with pytest.raises(PrerequisiteError, match="it ends too early"):
        read_all(path)


def test_no_damage_shows_as_anything_but_a_clear_error(pack, source):
    path = pack("-noI", "-noD", "-noF")
    whole = path.read_bytes()
    dice = random.Random(4)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            # The superblock, or the tables, which are at the end.
            place = dice.choice([dice.randrange(96), -dice.randrange(1, 8000)])
            damaged[place] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            read_all(path)
        except PrerequisiteError:
            refused += 1
    assert refused > 10


def test_a_directory_within_itself_is_refused(pack, tmp_path):
    (tmp_path / "nest" / "inner").mkdir(parents=True)
    path = pack("-noI", root=tmp_path / "nest")
    data = bytearray(path.read_bytes())
    name = data.rindex(b"inner")
    root, inner = (int.from_bytes(data[32:40], "little"), data[name - 8 : name - 6])
    assert int.from_bytes(inner, "little") != root & 0xFFFF
    data[name - 8 : name - 6] = (root & 0xFFFF).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(PrerequisiteError, match="holds itself"):
        read_all(path)


def test_digests_are_of_the_content(pack, source):
    with SquashfsTree(pack()) as tree:
        found = list_tree(tree).by_path()
    assert found[b"zeros"].detail == sha256_bytes(bytes(BLOCK * 2 + 1))
    assert found[b"again"].detail == found[b"large"].detail


def test_a_directory_that_is_said_to_be_a_file_hides_nothing(pack, tmp_path):
    path = pack("-noI")
    data = path.read_bytes()
    place = data.index(b"\x01\x00\x02\x00usr")
    path.write_bytes(data[:place] + b"\x02" + data[place + 1 :])
    with pytest.raises(PrerequisiteError, match="is not said to be one"):
        SquashfsTree(path).nodes()


@pytest.mark.parametrize("name", [b"a/b", b".."])
def test_a_name_that_leads_elsewhere_is_refused(pack, tmp_path, name):
    root = tmp_path / "odd"
    root.mkdir()
    (root / ("x" * len(name))).write_text("")
    path = pack("-noI", root=root)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"x" * len(name), name))
    with pytest.raises(PrerequisiteError, match="is no name of a file"):
        SquashfsTree(path).nodes()


@pytest.mark.parametrize(("number", "pack_bytes"), [(1, zlib.compress), (4, lzma.compress)])
def test_a_block_that_would_fill_the_memory_is_not_unpacked(number, pack_bytes):
    unpack = squashfs._DECOMPRESSORS[number]
    assert unpack(pack_bytes(bytes(8192)), 8192) == bytes(8192)
    with pytest.raises(ValueError, match="longer than it may be"):
        unpack(pack_bytes(bytes(1 << 26)), 8192)


def test_a_file_of_holes_that_would_fill_the_memory_is_not_read(pack, source):
    with (source / "status").open("wb") as file:
        file.truncate(squashfs.LARGEST_READ + 1)
    with SquashfsTree(pack()) as tree, pytest.raises(PrerequisiteError, match="status is larger"):
        tree.read(b"status")


def test_many_files_of_holes_are_not_all_read(pack, source):
    size, most = squashfs.LARGEST_READ, squashfs.MOST_READ // squashfs.LARGEST_READ
    for number in range(most + 1):
        with (source / f"METADATA{number}").open("wb") as file:
            file.truncate(size)
    with SquashfsTree(pack("-b", "1M")) as tree:
        for number in range(most):
            assert len(tree.read(b"METADATA%d" % number)) == size
        with pytest.raises(PrerequisiteError, match=f"more than {squashfs.MOST_READ} bytes"):
            tree.read(b"METADATA%d" % most)


def test_a_large_squashfs_may_have_more_read(pack, source, monkeypatch):
    path = pack("-noD", "-noF")
    monkeypatch.setattr(squashfs, "MOST_READ", 1000)
    with SquashfsTree(path) as tree:
        for _ in range(10):
            assert tree.read(b"large") == (source / "large").read_bytes()


def test_a_size_of_blocks_that_none_has_is_refused(pack):
    path = pack()
    data = path.read_bytes()
    for size in (0, 1000, 1 << 31):
        path.write_bytes(data[:12] + size.to_bytes(4, "little") + data[16:])
        with pytest.raises(PrerequisiteError, match=f"blocks of {size} bytes"):
            SquashfsTree(path)
