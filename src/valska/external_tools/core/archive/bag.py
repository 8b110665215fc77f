"""The bag: tag files and manifests as RFC 8493 has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from valska.external_tools.core.archive.members import NotPackableError
from valska.external_tools.core.archive.places import DATA

DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_ENCODED = re.compile("%(0[aAdD]|25)")
_OXUM = re.compile(r"^Payload-Oxum: *([0-9]{1,19})\.([0-9]{1,19})$", re.MULTILINE)


class BagError(Exception):
    """A tag file is not of its form."""


def check_names(names: Iterable[str]) -> None:
    """Refuse names that readers of bags take for others.

    Raises
    ------
    NotPackableError
        If one holds ``%0A``, ``%0D`` or ``%25``.
    """
    for name in names:
        if "%" in name and _ENCODED.search(name):
            raise NotPackableError(
                f"{name} is not usable as a name in an archive: {_ENCODED.pattern} stands for "
                "another character there",
                "Rename it.",
            )


def manifest_text(digests: Mapping[str, str]) -> bytes:
    """Return a manifest: path to SHA-256, in the format of ``sha256sum``, sorted bytewise."""
    lines = [f"{digests[path]}  {path}\n" for path in sorted(digests, key=str.encode)]
    return "".join(lines).encode()


def parse_manifest(data: bytes) -> dict[str, str]:
    """Read a manifest: path to SHA-256.

    Raises
    ------
    BagError
        If a line is not of its form, or a path stands twice or leads out of the bag.
    """
    try:
        lines = data.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise BagError("it is not UTF-8") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if not match or match[2] in found or not _stays(match[2]):
            raise BagError(f"line {number} is not usable")
        found[match[2]] = match[1]
    return found


def _stays(path: str) -> bool:
    return not {"", ".", ".."} & set(path.split("/"))


def info_text(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return ``bag-info.txt``; a line break in a value is a blank."""
    return "".join(f"{key}: {' '.join(value.split())}\n" for key, value in fields).encode()


def payload_oxum(sizes: Iterable[int]) -> str:
    """Return bytes and number of the payload's files."""
    count = total = 0
    for size in sizes:
        count, total = count + 1, total + size
    return f"{total}.{count}"


def said_oxum(info: bytes) -> str | None:
    """Return what ``bag-info.txt`` says of bytes and number of the payload's files."""
    found = _OXUM.findall(info.decode(errors="replace"))
    return f"{int(found[0][0])}.{int(found[0][1])}" if len(found) == 1 else None


def is_payload(name: str) -> bool:
    """Return whether a file is of the payload."""
    return name.startswith(f"{DATA}/")
