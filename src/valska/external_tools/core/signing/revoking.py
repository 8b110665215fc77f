"""Files of keys that no longer count: whether they can be understood, and whom they name.

ssh-keygen refuses a key for both, one that is named and a file that it does not understand, in the
same words.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.process import Run
from valska.external_tools.core.signing.keygen import check_revocation_list

_MAGIC = b"SSHKRL\n\0"
_BLANK = b" \t"


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a file of revoked keys says.

    Parameters
    ----------
    fault
        Why it is not understood; empty if it is.
    fingerprints
        Of the keys in it, up to a line that is not understood; None of a binary list, which
        ssh-keygen alone reads.
    """

    fault: str
    fingerprints: frozenset[str] | None = None


def read_revoked(path: Path, run: Run) -> Revoked:
    """Read a file of revoked keys: a list that ``ssh-keygen -k`` made, or public keys in lines.

    Parameters
    ----------
    path
        The file.
    run
        Runs programs.

    Raises
    ------
    OSError
        If it cannot be read.
    PrerequisiteError
        If there is no ssh-keygen.
    """
    data = path.read_bytes()
    if data.startswith(_MAGIC):
        return Revoked(check_revocation_list(path, run))
    fault, found = "", set()
    for number, key in _keys(data):
        if key is None:
            fault = f"its line {number} is not a public key"
            break
        digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
        found.add(f"SHA256:{digest}")
    return Revoked(fault, frozenset(found))


def _keys(data: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number of each line that is not empty nor a comment, and the key in it."""
    for number, line in enumerate(data.split(b"\n"), 1):
        words = line.lstrip(_BLANK)
        if words and not words.startswith(b"#"):
            yield number, _key(words.split())


def _key(words: list[bytes]) -> bytes | None:
    """Return the key of a line, if that has a type and a key of that type."""
    try:
        key = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error):
        return None
    length = int.from_bytes(key[:4], "big")
    return key if key[4 : 4 + length] == words[0] and len(key) > 4 + length else None
