"""Squashfs 4.0 as a tree: the root file system of a SIF, read in place and without running it.

Nothing is unpacked, so neither space nor privileges are needed, and names and modes are the
image's own. The format is described in the Linux kernel's ``fs/squashfs/squashfs_fs.h``.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any, NamedTuple, NoReturn, Self
from weakref import finalize

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FILE,
    LINK,
    PIPE,
    SOCKET,
    Node,
)

MAGIC = b"hsqs"
CACHED_FRAGMENTS = 64
LARGEST_READ = 64 << 20
"""Bytes of a file read whole. Lists of packages have a few megabytes; holes cost nothing."""

MOST_READ = 1 << 30
"""Bytes of all files read whole, or sixteen times those of the squashfs if that is more."""

_SUPER = Struct("<4sIIIIHHHHHHQQQQQQQQ")
_INODE = Struct("<HHHHII")
_ENTRY = Struct("<HhHH")
_RUN = Struct("<III")
_FRAGMENT = Struct("<QII")
_POINTER = Struct("<Q")
_NO_FRAGMENT = 0xFFFFFFFF
_STORED = 1 << 24
_STORED_METADATA = 1 << 15
_FRAGMENTS_IN_BLOCK = 512
_METADATA_BLOCK = 1 << 13
_BLOCK_SIZES = frozenset(1 << power for power in range(12, 21))
_LONGEST_LINK = 1 << 16
_XZ_MEMORY = 64 << 20
_EXTENDED = 7
"""What an inode's type is higher by if it has the longer form."""

_KINDS = {1: DIRECTORY, 2: FILE, 3: LINK, 4: BLOCK, 5: CHARACTER, 6: PIPE, 7: SOCKET}
_DIRECTORY, _LONG_DIRECTORY = Struct("<IIHHI"), Struct("<IIIIHHI")
_FILE, _LONG_FILE = Struct("<IIII"), Struct("<QQQIIII")
_LINK, _DEVICE = Struct("<II"), Struct("<II")


class _Content(NamedTuple):
    """Where the bytes of a file are."""

    start: int
    size: int
    blocks: tuple[int, ...]
    fragment: int
    offset: int


def require_whole(path: Path, offset: int, room: int) -> None:
    """Check the head of a squashfs, of any compression; what follows it is not read.

    Parameters
    ----------
    path
        The file that it is in.
    offset, room
        Where in it the file system begins, and how much there is for it; bytes.

    Raises
    ------
    PrerequisiteError
        If the file cannot be read, or no whole squashfs 4.0 can be there.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            head = file.read(min(room, _SUPER.size))
    except OSError as error:
        raise PrerequisiteError(f"cannot read {path}: {error.strerror}") from error
    if len(head) == _SUPER.size:
        fields = _SUPER.unpack(head)
        used, tables = fields[12], (fields[13], fields[15], fields[16])
        known = (fields[0], *fields[9:11]) == (MAGIC, 4, 0)
        blocks = fields[3] in _BLOCK_SIZES and fields[3] == 1 << fields[6]
        inside = all(_SUPER.size <= table < used for table in tables)
        if known and blocks and inside and used <= room:
            return
    raise PrerequisiteError(
        f"{path} is an altered image: its file system cannot be read",
        "Fetch or build it again.",
    )


class SquashfsTree:
    """The tree in a squashfs.

    Parameters
    ----------
    path
        The file that it is in.
    offset
        Where in it the file system begins, in bytes.

    Raises
    ------
    PrerequisiteError
        If there is none, it is of another version or compression, or it is damaged; by every
        method, since it is read bit by bit.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path, self._offset = path, offset
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise PrerequisiteError(f"cannot read {path}: {error.strerror}") from error
        self._closing = finalize(self, os.close, self._file)
        self._read_super()
        self._block = lru_cache(None)(self._read_metadata)
        self._fragment = lru_cache(CACHED_FRAGMENTS)(self._read_fragment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it is closed anyway when nothing refers to the tree any more."""
        self._closing()

    def nodes(self) -> Sequence[Node]:
        """Return all that there is, the root included, in no order."""
        return [node for node, _ in self._walked]

    def read(self, path: bytes) -> bytes:
        """Return what a regular file holds; links in `path` are not followed."""
        content = self._contents.get(path)
        if content is None:
            raise PrerequisiteError(f"there is no file {os.fsdecode(path)} in {self._path}")
        if content.size > LARGEST_READ:
            self._refuse(f"{os.fsdecode(path)} is larger than such a file is")
        self._left -= content.size
        if self._left < 0:
            self._refuse(f"files that are read whole have more than {self._most_read} bytes")
        return b"".join(self._pieces(content))

    def sha256(self, node: Node) -> str:
        """Return the digest of what a regular file holds; several threads may ask."""
        digest = hashlib.sha256()
        for piece in self._pieces(self._contents[node.path]):
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def _walked(self) -> list[tuple[Node, _Content | None]]:
        try:
            return list(self._walk())
        except (StructError, KeyError, OverflowError) as error:
            self._refuse(f"its directories cannot be read ({error})")

    @cached_property
    def _contents(self) -> dict[bytes, _Content]:
        return {node.path: content for node, content in self._walked if content is not None}

    def _read_super(self) -> None:
        head = os.pread(self._file, _SUPER.size, self._offset)
        if len(head) < _SUPER.size or not head.startswith(MAGIC):
            self._refuse("there is no squashfs in it")
        fields = _SUPER.unpack(head)
        self._block_size, self._compression = fields[3], fields[5]
        self._root, self._inodes, self._directories = fields[11], fields[15], fields[16]
        self._fragments, used = fields[17], fields[12]
        self._left = self._most_read = max(MOST_READ, 16 * used)
        if fields[9:11] != (4, 0):
            self._refuse(f"its squashfs is of version {fields[9]}.{fields[10]}")
        if self._block_size not in _BLOCK_SIZES:
            self._refuse(f"its squashfs has blocks of {self._block_size} bytes")
        if self._compression not in _DECOMPRESSORS:
            self._refuse("its squashfs is compressed with neither gzip nor xz nor zstd")
        if os.fstat(self._file).st_size < self._offset + used:
            self._refuse("it ends too early")

    def _walk(self) -> Iterator[tuple[Node, _Content | None]]:
        pending = [(b"", self._root)]
        seen = set()
        while pending:
            path, place = pending.pop()
            if place in seen:
                self._refuse("a directory in it holds itself")
            seen.add(place)
            kind, mode, start, offset, size = self._directory(place)
            yield Node(path or b".", kind, mode), None
            for name, child, is_directory in self._names(start, offset, size):
                below = path + b"/" + name if path else name
                if name in (b"", b".", b"..") or b"/" in name:
                    self._refuse(f"{name!r} is no name of a file")
                if is_directory:
                    pending.append((below, child))
                else:
                    yield self._node(below, child)

    def _directory(self, place: int) -> tuple[str, int, int, int, int]:
        """Return kind and mode of a directory, and where its names are."""
        type_, mode, position = self._inode(place)
        if type_ == 1:
            start, _, size, offset, _ = self._fields(_DIRECTORY, position)
        elif type_ == 1 + _EXTENDED:
            _, size, start, _, _, offset, _ = self._fields(_LONG_DIRECTORY, position)
        else:
            self._refuse("an entry is not the directory that it is said to be")
        return DIRECTORY, mode, start, offset, size - 3

    def _names(self, start: int, offset: int, size: int) -> Iterator[tuple[bytes, int, bool]]:
        data = self._metadata((self._directories + start, offset), max(size, 0))
        at = 0
        while at < len(data):
            count, block, _ = _RUN.unpack_from(data, at)
            at += _RUN.size
            for _ in range(count + 1):
                inner, _, type_, length = _ENTRY.unpack_from(data, at)
                at += _ENTRY.size
                name = data[at : at + length + 1]
                at += length + 1
                yield name, block << 16 | inner, type_ == 1

    def _node(self, path: bytes, place: int) -> tuple[Node, _Content | None]:
        type_, mode, position = self._inode(place)
        kind = _KINDS[type_ if type_ <= _EXTENDED else type_ - _EXTENDED]
        if kind == DIRECTORY:
            self._refuse("an entry is a directory and is not said to be one")
        if kind == FILE:
            content = self._content(type_, position)
            return Node(path, kind, mode, content.size), content
        if kind == LINK:
            _, length = self._fields(_LINK, position)
            if length > _LONGEST_LINK:
                self._refuse("a link leads too far")
            data = self._metadata(position, _LINK.size + length)
            return Node(path, kind, mode, 0, data[_LINK.size :]), None
        if kind in (BLOCK, CHARACTER):
            _, device = self._fields(_DEVICE, position)
            return Node(path, kind, mode, 0, _device_numbers(device)), None
        return Node(path, kind, mode), None

    def _content(self, type_: int, position: tuple[int, int]) -> _Content:
        if type_ == 2:
            form = _FILE
            start, fragment, offset, size = self._fields(form, position)
        else:
            form = _LONG_FILE
            start, size, _, _, fragment, offset, _ = self._fields(form, position)
        count = size // self._block_size
        if fragment == _NO_FRAGMENT and size % self._block_size:
            count += 1
        data = self._metadata(position, form.size + 4 * count)
        blocks = Struct(f"<{count}I").unpack_from(data, form.size)
        return _Content(start, size, blocks, fragment, offset)

    def _pieces(self, content: _Content) -> Iterator[bytes]:
        """Yield a file's bytes, block after block."""
        place, left = content.start, content.size
        for word in content.blocks:
            length = min(self._block_size, left)
            yield self._data(place, word, length)
            place += word & ~_STORED
            left -= length
        if content.fragment != _NO_FRAGMENT and left:
            piece = self._fragment(content.fragment)[content.offset : content.offset + left]
            if len(piece) != left:
                self._refuse("the end of a file is missing")
            yield piece

    def _data(self, place: int, word: int, length: int) -> bytes:
        data = self._packed(place, word) if word & ~_STORED else bytes(length)
        if len(data) != length:
            self._refuse("a block is not as long as it should be")
        return data

    def _read_fragment(self, number: int) -> bytes:
        table, inner = divmod(number, _FRAGMENTS_IN_BLOCK)
        pointer = self._raw(self._fragments + table * _POINTER.size, _POINTER.size)
        entry = (_POINTER.unpack(pointer)[0], inner * _FRAGMENT.size)
        place, word, _ = self._fields(_FRAGMENT, entry)
        return self._packed(place, word)

    def _packed(self, place: int, word: int) -> bytes:
        size = word & ~_STORED
        if size > self._block_size:
            self._refuse("a block is larger than it may be")
        data = self._raw(place, size)
        return data if word & _STORED else self._decompress(data, self._block_size)

    def _inode(self, place: int) -> tuple[int, int, tuple[int, int]]:
        """Return an inode's type and mode, and where what is peculiar to its type begins."""
        block, offset = self._inodes + (place >> 16), place & 0xFFFF
        type_, mode, *_ = self._fields(_INODE, (block, offset))
        return type_, mode & 0o7777, (block, offset + _INODE.size)

    def _fields(self, form: Struct, position: tuple[int, int]) -> tuple[int, ...]:
        return form.unpack(self._metadata(position, form.size))

    def _metadata(self, position: tuple[int, int], size: int) -> bytes:
        """Return bytes of the metadata, which may go on in the blocks that follow."""
        block, offset = position
        data, following = self._block(block)
        if len(data) >= offset + size:
            return data[offset : offset + size]
        parts, length = [data], len(data)
        while length < offset + size:
            more, following = self._block(following)
            if not more:
                self._refuse("it ends too early")
            parts.append(more)
            length += len(more)
        return b"".join(parts)[offset : offset + size]

    def _read_metadata(self, place: int) -> tuple[bytes, int]:
        word = int.from_bytes(self._raw(place, 2), "little")
        size = word & ~_STORED_METADATA
        data = self._raw(place + 2, size)
        if not word & _STORED_METADATA:
            data = self._decompress(data, _METADATA_BLOCK)
        return data, place + 2 + size

    def _raw(self, place: int, size: int) -> bytes:
        try:
            data = os.pread(self._file, size, self._offset + place)
        except (OSError, OverflowError) as error:
            self._refuse(str(error))
        if len(data) != size:
            self._refuse("it ends too early")
        return data

    def _decompress(self, data: bytes, most: int) -> bytes:
        try:
            return _DECOMPRESSORS[self._compression](data, most)
        except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
            self._refuse(f"a block does not unpack ({error})")

    def _refuse(self, why: str) -> NoReturn:
        raise PrerequisiteError(
            f"the files in {self._path} cannot be read: {why}", "Is the image whole?"
        )


def _device_numbers(device: int) -> bytes:
    major = device >> 8 & 0xFFF
    minor = device & 0xFF | device >> 12 & 0xFFF00
    return f"{major},{minor}".encode()


def _inflate(data: bytes, most: int) -> bytes:
    return _whole(zlib.decompressobj(), data, most)


def _unpack_xz(data: bytes, most: int) -> bytes:
    return _whole(lzma.LZMADecompressor(memlimit=_XZ_MEMORY), data, most)


def _whole(unpacker: Any, data: bytes, most: int) -> bytes:
    """Unpack a block to its end; one that holds more than it may never gets into memory."""
    found: bytes = unpacker.decompress(data, most + 1)
    if len(found) > most or not unpacker.eof:
        raise ValueError("it is longer than it may be, or cut off")
    return found


def _unpack_zstd(data: bytes, most: int) -> bytes:
    from zstandard import ZstdDecompressor, ZstdError

    try:
        return ZstdDecompressor().decompress(data, max_output_size=most)
    except ZstdError as error:
        raise ValueError(error) from error


_DECOMPRESSORS: dict[int, Callable[[bytes, int], bytes]] = {
    1: _inflate,
    4: _unpack_xz,
    6: _unpack_zstd,
}
