"""What surrounds the compressed bytes of an archive: one frame, then one that is skipped.

The second frame has the length and the CRC-32 of all bytes before it. A byte of compressed data
can be changed in ways that do not show in what it means; this shows them.
"""

from __future__ import annotations

import struct

FRAME_HEAD = bytes.fromhex("28b52ffd")
"""What a frame of Zstandard begins with."""

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
