"""Tar files of plain files alone: the same bytes for the same content, and read with distrust."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.utils import CHUNK_BYTES

BLOCK = tarfile.BLOCKSIZE
NAME_BYTES = 100
"""Longer names need headers of a kind that we neither write nor read."""

_END = 2 * BLOCK
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_AGAIN = "Copy it again."
_GNU = "Headers of the kind pax are not read: `tar --format=gnu` makes none."

Advance = Callable[[int], object]
"""Told how many bytes more have gone through."""


class NotPlainError(VerificationError):
    """A tar file has what is no plain file.

    Parameters
    ----------
    what
        The tar file.
    name
        What is in it.
    hint
        See `ValskaError`.
    """

    def __init__(self, what: str, name: str, hint: str | None = None) -> None:
        super().__init__(f"{what} has {name!r}, which is no plain file", hint)
        self.name = name


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file.

    Parameters
    ----------
    name
        Its path there.
    size
        Bytes.
    offset
        Where its content begins.
    """

    name: str
    size: int
    offset: int


def write_member(
    out: IO[bytes], name: str, size: int, content: IO[bytes], advance: Advance | None = None
) -> str:
    """Append a file, and return the SHA-256 of what was written.

    Raises
    ------
    VerificationError
        If the content is not of this size, or the name is too long.
    """
    if len(name.encode()) > NAME_BYTES:
        raise VerificationError(f"{name} is too long a name for a tar file")
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    out.write(info.tobuf(tarfile.GNU_FORMAT))
    digest, left = sha256(), size
    while left and (chunk := content.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        out.write(chunk)
        left -= len(chunk)
        _ = advance and advance(len(chunk))
    if left or content.read(1):
        raise VerificationError(f"{name} changed while it was packed", "Try again.")
    out.write(bytes(-size % BLOCK))
    return digest.hexdigest()


def write_end(out: IO[bytes]) -> None:
    """Close a tar file, filled up as tar does."""
    out.write(bytes(_END))
    out.write(bytes(-out.tell() % tarfile.RECORDSIZE))


def begins_as_tar(path: Path) -> bool:
    """Tell whether a file begins with a header of a tar file.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        try:
            tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeError):
            return False
    return True


def next_member(
    file: IO[bytes], what: str, *, directories: re.Pattern[str] | None = None
) -> Member | None:
    """Read the next header; None at the end of the archive.

    Parameters
    ----------
    file
        Stands at a header.
    what
        What is read, for messages.
    directories
        Names of directories that may be there; they are passed over.

    Raises
    ------
    NotPlainError
        If it tells of what is no plain file.
    VerificationError
        If there is no whole header.
    """
    while True:
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise _cut(what)
        if block == bytes(BLOCK):
            return None
        info = _header(block, what, file.tell() - BLOCK)
        if not (directories and _is_one_of(directories, info)):
            break
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
        raise NotPlainError(what, info.name, _GNU if info.type in _PAX else None)
    return Member(info.name, info.size, file.tell())


def _is_one_of(directories: re.Pattern[str], info: tarfile.TarInfo) -> bool:
    return info.isdir() and info.size == 0 and directories.fullmatch(info.name) is not None


def _header(block: bytes, what: str, place: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeError) as error:
        raise VerificationError(
            f"{what} is damaged: what stands at byte {place} is no header of a file",
            _AGAIN,
        ) from error


def contents(
    file: IO[bytes], member: Member, what: str, advance: Advance | None = None
) -> Iterator[bytes]:
    """Yield the content of a file whose header was read, and pass over its padding.

    Raises
    ------
    VerificationError
        If the archive ends before.
    """
    left = member.size
    while left:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise _cut(what)
        yield chunk
        left -= len(chunk)
        _ = advance and advance(len(chunk))
    padding = file.read(-member.size % BLOCK)
    if len(padding) < -member.size % BLOCK:
        raise _cut(what)
    if any(padding):
        raise VerificationError(
            f"{what} has something after {member.name}, where nothing belongs", _AGAIN
        )


def require_end(file: IO[bytes], what: str) -> None:
    """Check that nothing but the filling follows the first of the blocks that end an archive.

    Raises
    ------
    VerificationError
        If something does, or the second of them is not there.
    """
    rest = file.read(tarfile.RECORDSIZE + 1)
    if len(rest) < BLOCK:
        raise _cut(what)
    if len(rest) > tarfile.RECORDSIZE or any(rest):
        raise VerificationError(f"{what} goes on after its end", _AGAIN)


def list_members(path: Path, *, directories: re.Pattern[str] | None = None) -> tuple[Member, ...]:
    """Return the files of an archive without reading them.

    Raises
    ------
    VerificationError
        If it is damaged, or has what is no plain file.
    """
    found = []
    size = path.stat().st_size
    with path.open("rb") as file:
        while (member := next_member(file, str(path), directories=directories)) is not None:
            if member.offset + member.size > size:
                raise _cut(str(path))
            found.append(member)
            file.seek(member.offset + member.size + -member.size % BLOCK)
    return tuple(found)


def _cut(what: str) -> VerificationError:
    return VerificationError(f"{what} is cut short", _AGAIN)
