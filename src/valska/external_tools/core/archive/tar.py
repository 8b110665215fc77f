"""Headers of a tar file: those that are written, and all that are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends a tar file."""

_NAME_BYTES = 100
_PLAIN_SIZE = 8**11
_BLANK_SUM = 8 * 0x20
_MOST_KNOWN = 64
_PAX_RECORD = re.compile(rb"([0-9]{1,20}) ([^=]+)=")
_NUL = b"\0"


class TarError(Exception):
    """A header is damaged, or of a form that is not known."""


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "symbolic link"
    HARD_LINK = "hard link"
    DEVICE = "device"
    OTHER = "special file"


_KINDS = {
    b"0": Kind.FILE,
    _NUL: Kind.FILE,
    b"7": Kind.FILE,
    b"5": Kind.DIRECTORY,
    b"2": Kind.LINK,
    b"1": Kind.HARD_LINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"6": Kind.DEVICE,
}
_FLAGS = {Kind.FILE: b"0", Kind.DIRECTORY: b"5", Kind.LINK: b"2"}


@dataclass(slots=True)
class Header:
    """An entry of a tar file.

    Parameters
    ----------
    name
        As it stands there; bytes that are not UTF-8 are surrogates.
    kind
        What it is.
    size
        Bytes of content that follow.
    mode
        Permissions.
    link
        Target of a link.
    """

    name: str
    kind: Kind
    size: int = 0
    mode: int = 0o644
    link: str = ""


class Headers:
    """Writes headers that depend on nothing but what they are told.

    Parameters
    ----------
    mtime
        The time of every entry, in seconds since 1970.
    """

    def __init__(self, mtime: int) -> None:
        self._mtime = mtime
        self._frames: dict[tuple[Kind, int], tuple[bytes, bytes, int]] = {}

    def encode(self, name: str, kind: Kind, size: int, mode: int, link: str = "") -> bytes:
        """Return the header of an entry, with a further one before it where it is long.

        Parameters
        ----------
        name, kind, size, mode, link
            See `Header`.
        """
        raw, target = name.encode(), link.encode()
        if len(raw) <= _NAME_BYTES and not target and size < _PLAIN_SIZE:
            return self._plain(raw, kind, size, mode, target)
        pax = {}
        if len(raw) > _NAME_BYTES:
            pax["path"], raw = raw, raw[:_NAME_BYTES]
        if len(target) > _NAME_BYTES:
            pax["linkpath"], target = target, target[:_NAME_BYTES]
        if size >= _PLAIN_SIZE:
            pax["size"], size = b"%d" % size, 0
        return (self._extended(pax) if pax else b"") + self._plain(raw, kind, size, mode, target)

    def _extended(self, records: Mapping[str, bytes]) -> bytes:
        body = b"".join(_pax_record(key.encode(), value) for key, value in records.items())
        head = _head(b"pax", b"x", len(body), 0o644, self._mtime, b"")
        return head + padded(body)

    def _plain(self, name: bytes, kind: Kind, size: int, mode: int, link: bytes) -> bytes:
        if link:
            return _head(name, _FLAGS[kind], size, mode, self._mtime, link)
        frame = self._frames.get((kind, mode))
        if frame is None:
            whole = _head(b"", _FLAGS[kind], 0, mode, self._mtime, b"")
            digits = sum(b"%011o" % 0)
            total = sum(whole[:148]) + sum(whole[156:]) + _BLANK_SUM - digits
            frame = self._frames[kind, mode] = (whole[100:124], whole[136:148], total)
        before, after, total = frame
        digits_of = b"%011o" % size
        checksum = b"%06o\0 " % (total + sum(name) + sum(digits_of))
        tail = _TAILS[kind]
        return b"".join((name.ljust(100, _NUL), before, digits_of, _NUL, after, checksum, tail))


def padding(size: int) -> int:
    """Return how many bytes follow content of a size up to the next header."""
    return -size % BLOCK


def padded(data: bytes) -> bytes:
    """Return content with what follows it up to the next header."""
    return data + bytes(padding(len(data)))


def _head(name: bytes, flag: bytes, size: int, mode: int, mtime: int, link: bytes) -> bytes:
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, _NUL),
        mode,
        0,
        0,
        size,
        mtime,
    )
    after = b"%b%b" % (flag, link.ljust(100, _NUL)) + _END_OF_HEAD
    total = sum(before) + sum(after) + _BLANK_SUM
    return before + b"%06o\0 " % total + after


_END_OF_HEAD = b"ustar\x0000".ljust(72, _NUL) + b"0000000\x000000000\0" + bytes(155 + 12)
_TAILS = {kind: flag + bytes(100) + _END_OF_HEAD for kind, flag in _FLAGS.items()}


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = b" %b=%b\n" % (key, value)
    length = len(body) + 1
    while length != len(body) + len(b"%d" % length):
        length = len(body) + len(b"%d" % length)
    return b"%d%b" % (length, body)


class Parser:
    """Reads headers. What one has in common with earlier ones is not looked at again."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Kind, int, int]] = {}

    def parse(self, block: bytes, extended: Mapping[str, bytes]) -> Header:
        """Read a header.

        Parameters
        ----------
        block
            512 bytes that are not all zero.
        extended
            What headers before it said of this entry, see `pax_records`.

        Raises
        ------
        TarError
            If its checksum or a number in it is wrong.
        """
        common = block[100:124] + block[136:148] + block[156:]
        known = None if extended else self._known.get(common)
        if known is None:
            header = _parse(block, extended)
            if not (block[157] or block[345]) and len(self._known) < _MOST_KNOWN:
                self._known[common] = _kind(block), header.mode, sum(common)
            return header
        kind, mode, total = known
        size = block[124:136]
        _require_sum(block, total + sum(block[:100]) + sum(size))
        name = block[:100].split(_NUL, 1)[0]
        if kind is Kind.FILE and name.endswith(b"/"):
            kind = Kind.DIRECTORY
        return Header(_text(name), kind, _number(size), mode)


def _parse(block: bytes, extended: Mapping[str, bytes]) -> Header:
    _require_sum(block, sum(block) - sum(block[148:156]))
    name = extended.get("path") or _name(block)
    link = extended.get("linkpath") or block[157:257].split(_NUL, 1)[0]
    size = extended.get("size")
    kind = _kind(block)
    if kind is Kind.FILE and name.endswith(b"/"):
        kind = Kind.DIRECTORY
    return Header(
        _text(name),
        kind,
        _number(block[124:136]) if size is None else _decimal(size),
        _number(block[100:108]),
        _text(link),
    )


def _require_sum(block: bytes, total: int) -> None:
    if _number(block[148:156]) != total + _BLANK_SUM:
        raise TarError("a header's checksum is wrong")


def _kind(block: bytes) -> Kind:
    return _KINDS.get(block[156:157], Kind.OTHER)


def flag(block: bytes) -> bytes:
    """Return the type of a header, in one byte."""
    return block[156:157]


def size_of(block: bytes) -> int:
    """Return how many bytes of content follow a header that describes the next one.

    Raises
    ------
    TarError
        If that is no number.
    """
    return _number(block[124:136])


def pax_records(data: bytes) -> dict[str, bytes]:
    """Read the records of a pax header.

    Raises
    ------
    TarError
        If they are not of that form.
    """
    found: dict[str, bytes] = {}
    place = 0
    while place < len(data):
        match = _PAX_RECORD.match(data, place)
        end = place + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise TarError("an extended header is damaged")
        key = _text(match[2])
        if key in found or key.startswith("GNU.sparse"):
            raise TarError(f"an extended header is not usable: {key}")
        found[key] = data[match.end() : end - 1]
        place = end
    return found


def _name(block: bytes) -> bytes:
    name = block[:100].split(_NUL, 1)[0]
    prefix = block[345:500].split(_NUL, 1)[0]
    return b"%b/%b" % (prefix, name) if prefix and block[257:263] == b"ustar\0" else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[-1:] == _NUL and field[:-1].isdigit():
        try:
            return int(field[:-1], 8)
        except ValueError:
            raise TarError("a number in a header is damaged") from None
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(_NUL, 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise TarError("a number in a header is damaged")
    return int(digits or b"0", 8)


def _decimal(field: bytes) -> int:
    if not field.isdigit() or len(field) > 18:
        raise TarError("a size in an extended header is damaged")
    return int(field)
