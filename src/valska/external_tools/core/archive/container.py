"""What the file of an archive consists of: one frame of Zstandard, then one that is skipped.

The frames are those of RFC 8878. The second one has the length and the CRC-32 of all bytes before
it. A byte of compressed data can be changed in ways that do not show in what it means; this shows
them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

FRAME_HEAD = bytes.fromhex("28b52ffd")
"""What a frame of Zstandard begins with."""

_FRAME_START = 5
_BLOCK_HEAD = 3
_CHECKSUM = 4
_SIZE_BYTES = (0, 2, 4, 8)
_NAME_BYTES = (0, 1, 2, 4)
"""Of a dictionary's name."""
_SKIPPABLE = 0x184D2A5E
_MARK = b"valska archive 1"
_TRAILER = struct.Struct("<II16sQI")
TRAILER_BYTES = _TRAILER.size


def may_be_archive(head: bytes, *, whole: bool) -> bool:
    """Return whether a file may be an archive, be it damaged: it begins or ends like one.

    Parameters
    ----------
    head
        Its first bytes, at least 4 if it has so many.
    whole
        Whether it ends like one, see `is_trailer`.
    """
    return whole or head.startswith(FRAME_HEAD) or FRAME_HEAD.startswith(head)


def trailer(size: int, crc: int) -> bytes:
    """Return what ends an archive.

    Parameters
    ----------
    size
        Bytes before it.
    crc
        CRC-32 of these.
    """
    return _TRAILER.pack(_SKIPPABLE, TRAILER_BYTES - 8, _MARK, size, crc)


def is_trailer(data: bytes) -> bool:
    """Return whether an archive's last bytes look like what ends one."""
    if len(data) != TRAILER_BYTES:
        return False
    magic, size, mark, _, _ = _TRAILER.unpack(data)
    return (magic, size, mark) == (_SKIPPABLE, TRAILER_BYTES - 8, _MARK)


class Frame:
    """Follows the first frame of a file from header to header, whatever it holds.

    A reader of frames passes over what is skipped, and takes a frame that does not end for one
    that does if its content is whole.

    Attributes
    ----------
    has_ended
        Whether it has come to its end.
    after
        Bytes that came after it.
    """

    def __init__(self) -> None:
        self.has_ended = False
        self.after = 0
        self._field = bytearray()
        self._wanted = _FRAME_START
        self._skipped = 0
        self._next: Callable[[bytes], None] = self._start
        self._is_whole = True

    @property
    def is_whole(self) -> bool:
        """Whether it has come to its end, with a checksum, and nothing came after it."""
        return self.has_ended and self._is_whole and not self.after

    def take(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        place = 0
        while place < len(data) and not self.has_ended:
            step = min(self._skipped, len(data) - place)
            self._skipped -= step
            place += step
            part = data[place : place + self._wanted - len(self._field)]
            place += len(part)
            self._field += part
            if len(self._field) == self._wanted and not self._skipped:
                field = bytes(self._field)
                self._field.clear()
                self._next(field)
        self.after += len(data) - place

    def _start(self, field: bytes) -> None:
        flags = field[4]
        has_window, has_checksum = not flags & 0x20, flags & 4
        size = _SIZE_BYTES[flags >> 6] or int(not has_window)
        self._is_whole = field[:4] == FRAME_HEAD and bool(has_checksum)
        self._skipped = has_window + _NAME_BYTES[flags & 3] + size
        self._wanted, self._next = _BLOCK_HEAD, self._block

    def _block(self, field: bytes) -> None:
        head = int.from_bytes(field, "little")
        is_repeated = head >> 1 & 3 == 1
        self._skipped = 1 if is_repeated else head >> 3
        if head & 1:
            self._wanted, self._next = _CHECKSUM, self._end

    def _end(self, field: bytes) -> None:
        self.has_ended = True
