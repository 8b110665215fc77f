"""Unpacking an archive: all of it, checked, or nothing."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive.contents import Contents, target_of
from valska.external_tools.core.archive.document import ArchiveDocument
from valska.external_tools.core.archive.entries import Limits, on_disk
from valska.external_tools.core.archive.errors import ArchiveError
from valska.external_tools.core.archive.judging import judge_contents, worth_telling
from valska.external_tools.core.archive.reading import Nowhere, Read, read_archive
from valska.external_tools.core.archive.tar import Header, Kind
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.partial import workshop
from valska.external_tools.core.run_directory import TakenError, check_name, refuse_inside
from valska.external_tools.core.seal import Finding
from valska.external_tools.core.utils import fsync_directory

_SHOWN = 5
_ANY_X = 0o111


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An archive that was unpacked.

    Parameters
    ----------
    path
        Its directory.
    files, size
        How many files it has, and their bytes.
    document
        What the archive says of itself.
    """

    path: Path
    files: int
    size: int
    document: ArchiveDocument


def unpack_archive(
    archive: Path,
    directory: Path,
    output: Path | None = None,
    *,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Unpacked:
    """Unpack an archive into a new directory, checking everything on the way.

    Parameters
    ----------
    archive
        The file.
    directory
        Where the new directory is made, named as in the archive.
    output
        The new directory, instead.
    limits
        How much the archive may hold.
    progress
        Told the bytes of the file that were read, and all.

    Raises
    ------
    TakenError
        If there is something in its place.
    UsageError
        If the directory is not there in which it is to be.
    HostileError
        If the archive would write where it must not, or more than is allowed.
    VerificationError
        If something in it is not as it was packed.
    ArchiveError
        If it cannot be read, or the directory cannot be written.
    """
    place = _place(archive, directory, output)
    try:
        with workshop(place / archive.name) as staging:
            return _unpack(archive, staging, directory, output, limits, progress)
    except _FullError as full:
        raise _unwritable(place, full.error, archive, full.size) from full.error
    except OSError as error:
        raise _unwritable(place, error) from error


def rehearse_unpacking(
    archive: Path,
    directory: Path,
    output: Path | None = None,
    *,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Unpacked:
    """Check an archive as `unpack_archive` does, and return what that would make.

    Parameters and errors are those of `unpack_archive`; nothing is written.
    """
    _require_writable(_place(archive, directory, output))
    read = read_archive(archive, limits=limits, sink=Nowhere(), progress=progress)
    return _judged(archive, read, directory, output)


def unpack_some(
    archive: Path,
    directory: Path,
    wanted: Callable[[str, int], bool],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Check an archive as `unpack_archive` does, and unpack only some of its files.

    Parameters
    ----------
    archive
        The file.
    directory
        Where to; nobody else can write there.
    wanted
        Whether to unpack a file, by its path in the archive and its bytes.
    progress
        See `unpack_archive`.

    Returns
    -------
    Path
        The directory that would be the archive's, with these files alone.

    Raises
    ------
    ValskaError
        As `unpack_archive` does.
    """
    place = directory / "some"
    try:
        writer = _Writer(os.fspath(place), wanted)
        try:
            read = read_archive(archive, sink=writer, progress=progress)
        finally:
            writer.close()
    except _FullError as full:
        raise _unwritable(place, full.error) from full.error
    except OSError as error:
        raise _unwritable(place, error) from error
    _judged(archive, read, directory, None)
    return place


def _place(archive: Path, directory: Path, output: Path | None) -> Path:
    """Return the directory in which the new one is made."""
    place = directory if output is None else output.absolute().parent
    if output is not None:
        _refuse_taken(output)
        if not place.is_dir():
            raise UsageError(f"no such directory: {output.parent}", "Make it, or choose another.")
    refuse_inside(place / archive.name)
    return place


def _require_writable(place: Path) -> None:
    try:
        os.stat(f"{place}/.")  # noqa: PTH116 - pathlib leaves the dot out, which asks for a directory
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(place, error) from error


def _judged(archive: Path, read: Read, directory: Path, output: Path | None) -> Unpacked:
    """Return what an archive is unpacked to, if all in it is as it was packed."""
    judged = judge_contents(read.contents, more=read.findings)
    if judged.findings or judged.document is None:
        raise _unsound(archive, worth_telling(judged.findings, archive.name))
    target = output or directory / check_name(read.top, "the archive's directory")
    _refuse_taken(target)
    sizes = [entry.size for _, entry in read.contents.files()]
    return Unpacked(target.absolute(), len(sizes), sum(sizes), judged.document)


def _unpack(
    archive: Path,
    staging: Path,
    directory: Path,
    output: Path | None,
    limits: Limits | None,
    progress: Callable[[int, int], None],
) -> Unpacked:
    writer = _Writer(os.fspath(staging / "whole"))
    try:
        read = read_archive(archive, limits=limits, sink=writer, progress=progress)
    finally:
        writer.close()
    unpacked = _judged(archive, read, directory, output)
    writer.link(read.contents)
    _refuse_taken(unpacked.path)
    (staging / "whole").replace(unpacked.path)
    fsync_directory(unpacked.path.parent)
    return unpacked


class _FullError(Exception):
    """What is unpacked cannot be written: not a fault of the archive, whatever the error says.

    Parameters
    ----------
    error
        What the system said.
    size
        Bytes that were written until then.
    """

    def __init__(self, error: OSError, size: int) -> None:
        super().__init__(str(error))
        self.error, self.size = error, size


class _Writer:
    """Writes what is read, or some of it, below a directory that nobody else can enter."""

    def __init__(
        self, root: str, wanted: Callable[[str, int], bool] = lambda name, size: True
    ) -> None:
        self._root = root
        self._wanted = wanted
        self._made = {""}
        self._descriptor = -1
        self._size = 0
        os.mkdir(root)  # noqa: PTH102 - paths here are plain text, there are many

    def begin(self, name: str, header: Header) -> None:
        """Make a directory or a file; links come last."""
        try:
            self._begin(name, header)
        except OSError as error:
            raise _FullError(error, self._size) from error

    def _begin(self, name: str, header: Header) -> None:
        if header.kind is Kind.DIRECTORY:
            self._make(name)
        elif header.kind is Kind.FILE and self._wanted(name, header.size):
            self._make(name.rpartition("/")[0])
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            mode = 0o777 if header.mode & _ANY_X else 0o666
            self._descriptor = os.open(self._place(name), flags, mode)

    def data(self, view: memoryview) -> None:
        """Write some bytes of a file."""
        try:
            while view and self._descriptor >= 0:
                written = os.write(self._descriptor, view)
                self._size += written
                view = view[written:]
        except OSError as error:
            raise _FullError(error, self._size) from error

    def end(self) -> None:
        """Close the file, of which some file systems only then say that it does not fit."""
        try:
            self.close()
        except OSError as error:
            raise _FullError(error, self._size) from error

    def close(self) -> None:
        """Close what is open."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _place(self, name: str) -> str:
        return f"{self._root}/{on_disk(name)}"

    def _make(self, name: str) -> None:
        if name not in self._made:
            self._make(name.rpartition("/")[0])
            os.mkdir(self._place(name))  # noqa: PTH102
            self._made.add(name)

    def link(self, contents: Contents) -> None:
        """Make the links, each to a file that is there."""
        for name, entry in contents.entries.items():
            if entry.kind is Kind.LINK and contents.file(name) is not None:
                self._make(name.rpartition("/")[0])
                if target_of(name, entry.link) in contents.entries:
                    os.symlink(on_disk(entry.link), self._place(name))  # noqa: PTH211


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise TakenError(f"{path} exists already", "Choose another directory with -o.")


def _unsound(archive: Path, findings: tuple[Finding, ...]) -> VerificationError:
    more = f" and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    named = shlex.quote(os.fspath(archive))
    return VerificationError(
        f"{archive} is not as it was packed: " + "; ".join(map(str, findings[:_SHOWN])) + more,
        f"Nothing was unpacked. Get it again; `valska verify {named}` says more.",
    )


def _unwritable(
    place: Path, error: OSError, archive: Path | None = None, size: int = 0
) -> ArchiveError:
    message = f"cannot unpack into {place}: {(error.strerror or str(error)).lower()}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ArchiveError(message, "Check the directory and its permissions.")
    hint = "Free some space, or choose another place with -o; nothing was left behind."
    if archive is not None:
        hint += (
            f" It takes more than {size:,} bytes: `valska unpack --dry-run "
            f"{shlex.quote(os.fspath(archive))}` says how many."
        )
    return ArchiveError(message, hint)
