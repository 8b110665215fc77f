"""SIF, Apptainer's image format: written without a clock or a random id, and read.

The layout is that of github.com/sylabs/sif, version 2 (``pkg/sif``): a global header, descriptors
of fixed size, then the data objects, all numbers little-endian.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.utils import CHUNK_BYTES

DEFINITION, LABELS, PARTITION, SIGNATURE, JSON, SBOM = (
    0x4001,
    0x4003,
    0x4004,
    0x4005,
    0x4006,
    0x4009,
)
"""Kinds of data objects."""

METADATA_NAME = "inspect-metadata.json"
"""Name of the JSON object that ``apptainer inspect`` reads."""

_LAUNCH = b"#!/usr/bin/env run-singularity\n"
_MAGIC = b"SIF_MAGIC\0"
_VERSION = b"01\0"
_ARCHITECTURES = {
    "x86_64": b"02\0",
    "aarch64": b"04\0",
    "ppc64le": b"06\0",
    "s390x": b"11\0",
    "riscv64": b"12\0",
}
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
_PARTITION = struct.Struct("<2i3s")
_SIGNATURE = struct.Struct("<i64s")
_DESCRIPTORS = 48
_DESCRIPTORS_AT = 4096
_DATA_AT = _DESCRIPTORS_AT + _DESCRIPTORS * _DESCRIPTOR.size
_ALIGNMENT = 4096
_GROUP = 0xF0000001
_SQUASHFS, _PRIMARY_SYSTEM = 1, 2
_FINGERPRINT_BYTES = 20
_NOT_AN_IMAGE = "Name a .sif file; fetch or build it again if it was cut off."


@dataclass(frozen=True, slots=True)
class DataObject:
    """A data object of an image: where it is, and what.

    Parameters
    ----------
    kind
        `DEFINITION`, `PARTITION`, `SIGNATURE`, `JSON` or another number.
    number
        Its id, from 1.
    offset, size
        In bytes.
    name
        As the descriptor has it; may be empty.
    extra
        What the descriptor says beyond that, by kind.
    """

    kind: int
    number: int
    offset: int
    size: int
    name: str
    extra: bytes

    @property
    def is_system(self) -> bool:
        """Whether it is the squashfs that an image's root file system is in."""
        if self.kind != PARTITION:
            return False
        system, part, _ = _PARTITION.unpack_from(self.extra)
        return (system, part) == (_SQUASHFS, _PRIMARY_SYSTEM)

    @property
    def fingerprint(self) -> str | None:
        """Of the PGP key of a signature: 40 upper-case digits. None where it is no such."""
        if self.kind != SIGNATURE:
            return None
        entity: bytes = _SIGNATURE.unpack_from(self.extra)[1]
        key = entity[:_FINGERPRINT_BYTES]
        return key.hex().upper() if any(key) else None


@dataclass(frozen=True, slots=True)
class Sif:
    """An image file as its header describes it.

    Parameters
    ----------
    path
        The file.
    objects
        Its data objects, in the order of their descriptors.
    """

    path: Path
    objects: tuple[DataObject, ...]

    @property
    def system(self) -> DataObject | None:
        """The object that holds the root file system."""
        return next((found for found in self.objects if found.is_system), None)

    @property
    def signatures(self) -> tuple[str, ...]:
        """Fingerprints of the keys that it is signed with. They are not verified."""
        found = (entry.fingerprint for entry in self.objects)
        return tuple(fingerprint for fingerprint in found if fingerprint)

    def read(self, wanted: DataObject) -> bytes:
        """Return the content of a data object.

        Raises
        ------
        PrerequisiteError
            If the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(wanted.offset)
                return file.read(wanted.size)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def sha256(self, wanted: DataObject) -> str:
        """Return the digest of a data object.

        Raises
        ------
        PrerequisiteError
            If the file cannot be read.
        """
        digest, left = sha256(), wanted.size
        try:
            with self.path.open("rb") as file:
                file.seek(wanted.offset)
                while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                    digest.update(chunk)
                    left -= len(chunk)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Frame:
    """All of an image but its file system, which stands behind it in the file.

    Parameters
    ----------
    definition
        The text of the definition.
    metadata
        What ``apptainer inspect`` shows, as JSON; None to have it ask the image.
    time
        Seconds since 1970, for every time in the file.
    """

    definition: bytes
    metadata: bytes | None
    time: int

    @property
    def offset(self) -> int:
        """Where the file system begins."""
        end = _DATA_AT + len(self.definition) + len(self.metadata or b"")
        return -(-end // _ALIGNMENT) * _ALIGNMENT

    def write(self, squashfs: Path, target: Path) -> str:
        """Write an image, and return its digest.

        Parameters
        ----------
        squashfs
            The file system.
        target
            The image, which must not exist.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        head = self._to_bytes(squashfs.stat().st_size)
        digest = sha256(head)
        with squashfs.open("rb") as source, target.open("xb") as file:
            file.write(head)
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _to_bytes(self, size: int) -> bytes:
        small = [(DEFINITION, b"", self.definition)]
        if self.metadata is not None:
            small.append((JSON, METADATA_NAME.encode(), self.metadata))
        descriptors, at = [], _DATA_AT
        for number, (kind, name, data) in enumerate(small, 1):
            descriptors.append(self._descriptor(kind, number, at, at, len(data), name))
            at += len(data)
        extra = _PARTITION.pack(_SQUASHFS, _PRIMARY_SYSTEM, _architecture())
        number = len(small) + 1
        descriptors.append(self._descriptor(PARTITION, number, at, self.offset, size, b"", extra))
        head = self._header(len(descriptors), self.offset + size - _DATA_AT)
        table = head.ljust(_DESCRIPTORS_AT, b"\0") + b"".join(descriptors)
        data = b"".join(content for _, _, content in small)
        return (table.ljust(_DATA_AT, b"\0") + data).ljust(self.offset, b"\0")

    def _header(self, used: int, length: int) -> bytes:
        return _HEADER.pack(
            *(_LAUNCH, _MAGIC, _VERSION, _architecture(), bytes(16), self.time, self.time),
            *(_DESCRIPTORS - used, _DESCRIPTORS, _DESCRIPTORS_AT),
            *(_DESCRIPTORS * _DESCRIPTOR.size, _DATA_AT, length),
        )

    def _descriptor(
        self,
        kind: int,
        number: int,
        before: int,
        at: int,
        size: int,
        name: bytes,
        extra: bytes = b"",
    ) -> bytes:
        """`before` is where the padding begins, which counts as the object's."""
        return _DESCRIPTOR.pack(
            *(kind, True, number, _GROUP, 0),
            *(at, size, at - before + size, self.time, self.time, 0, 0),
            *(name, extra),
        )


def read_sif(path: Path) -> Sif:
    """Read the header and the descriptors of an image.

    Raises
    ------
    PrerequisiteError
        If there is no such file, it cannot be read, is not a SIF, or is cut off.
    """
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            count, at = _read_header(path, file.read(_HEADER.size))
            file.seek(at)
            table = file.read(count * _DESCRIPTOR.size)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(table) < count * _DESCRIPTOR.size:
        raise _cut_off(path)
    objects = tuple(_objects(table))
    if any(found.offset < 0 or found.size < 0 for found in objects):
        raise PrerequisiteError(f"{path} is a damaged SIF image: its descriptors", _NOT_AN_IMAGE)
    if any(found.offset + found.size > end for found in objects):
        raise _cut_off(path)
    return Sif(path, objects)


def _read_header(path: Path, head: bytes) -> tuple[int, int]:
    """Return how many descriptors there are, and where."""
    if len(head) < _HEADER.size or head[32 : 32 + len(_MAGIC)] != _MAGIC:
        raise PrerequisiteError(f"{path} is not a SIF image", _NOT_AN_IMAGE)
    fields = _HEADER.unpack(head)
    count, at = fields[8], fields[9]
    if not (0 <= count <= 1 << 16 and 0 < at < 1 << 62):
        raise PrerequisiteError(f"{path} is a damaged SIF image: its header", _NOT_AN_IMAGE)
    return count, at


def _objects(table: bytes) -> Sequence[DataObject]:
    found = []
    for fields in _DESCRIPTOR.iter_unpack(table):
        kind, used, number, _, _, offset, size = fields[:7]
        if used:
            name = fields[-2].rstrip(b"\0").decode(errors="replace")
            found.append(DataObject(kind, number, offset, size, name, fields[-1]))
    return found


def _architecture() -> bytes:
    return _ARCHITECTURES.get(platform.machine(), b"00\0")


def _cut_off(path: Path) -> PrerequisiteError:
    return PrerequisiteError(f"{path} is a SIF image that is cut off", _NOT_AN_IMAGE)


def _unreadable(path: Path, error: OSError) -> PrerequisiteError:
    return PrerequisiteError(f"cannot read the image {path}: {error.strerror}", _NOT_AN_IMAGE)
