"""Signing an archive, or the receipt of a verification."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive.document import parse_json
from valska.external_tools.core.archive.errors import ArchiveError
from valska.external_tools.core.archive.judging import judge_contents, worth_telling
from valska.external_tools.core.archive.reading import read_archive
from valska.external_tools.core.archive.verification import SCHEMA as RECEIPT
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.run_directory import TakenError
from valska.external_tools.core.schema import judge
from valska.external_tools.core.signing.keygen import SigningError, check_signature, sign_file
from valska.external_tools.core.signing.keys import Key
from valska.external_tools.core.signing.places import signature_of, statement_of
from valska.external_tools.core.signing.statement import statement_bytes
from valska.external_tools.core.utils import sha256_bytes, write_atomic

MOST_RECEIPT_BYTES = 1 << 26

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Signable:
    """What is to be signed.

    Parameters
    ----------
    path
        An archive, or a receipt.
    sha256
        Of it.
    signed
        The file that is signed: the statement about an archive, or the receipt.
    data
        The content of that file.
    """

    path: Path
    sha256: str
    signed: Path
    data: bytes

    @property
    def signature(self) -> Path:
        """Where the signature goes."""
        return signature_of(self.signed)


def prepare(
    path: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Signable:
    """Read an archive or a receipt, and say what is to be signed.

    Parameters
    ----------
    path
        The file.
    progress
        Told the bytes of the file that were read, and all.

    Raises
    ------
    ArchiveError
        If it cannot be read.
    VerificationError
        If an archive is not as it was packed.
    TakenError
        If it is signed already, or another statement is where that about an archive goes.
    """
    receipt = read_receipt(path)
    _refuse_signed(path, path if receipt is not None else statement_of(path))
    found = _archive(path, progress) if receipt is None else _receipt(path, receipt)
    if found.signed.exists() and found.signed.read_bytes() != found.data:
        raise TakenError(
            f"{found.signed} exists, and says something else", "Move it away, and sign again."
        )
    return found


def _refuse_signed(path: Path, signed: Path) -> None:
    signature = signature_of(signed)
    if os.path.lexists(signature):
        raise TakenError(
            f"{path} is signed already: {signature} exists",
            "`valska verify --signer` says by whom. Move the signature away to sign it again.",
        )


def read_receipt(path: Path) -> bytes | None:
    """Return the bytes of a receipt; None if a file is something else.

    Raises
    ------
    ArchiveError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(1)
            if data != b"{":
                return None
            data += file.read(MOST_RECEIPT_BYTES)
    except OSError as error:
        raise ArchiveError(
            f"cannot read {path}: {error.strerror}", "Check the path and its permissions."
        ) from error
    try:
        return data if judge(RECEIPT)(parse_json(data)) else None
    except VerificationError:
        return None


def _receipt(path: Path, data: bytes) -> Signable:
    return Signable(path, sha256_bytes(data), path, data)


def _archive(path: Path, progress: Callable[[int, int], None]) -> Signable:
    read = read_archive(path, progress=progress)
    judged = judge_contents(read.contents, more=read.findings)
    if judged.findings or judged.document is None or read.sha256 is None:
        shown = "; ".join(map(str, worth_telling(judged.findings, path.name)[:_SHOWN]))
        raise VerificationError(
            f"{path} is not as it was packed, and is not signed: {shown}",
            "`valska verify` of it says more.",
        )
    data = statement_bytes(read.contents, judged.document, read.sha256)
    return Signable(path, read.sha256, statement_of(path), data)


def sign(signable: Signable, key: Key, *, run: Run = run) -> str:
    """Sign; write the statement and the signature beside what is signed.

    Parameters
    ----------
    signable
        See `prepare`.
    key
        The key.
    run
        Runs programs.

    Returns
    -------
    str
        Type and fingerprint of the key.

    Raises
    ------
    PrerequisiteError, UsageError, SigningError
        See `sign_file`; nothing has been written then.
    """
    with tempfile.TemporaryDirectory(prefix="valska-") as folder, key.file() as file:
        data = Path(folder) / "data"
        data.write_bytes(signable.data)
        made = sign_file(data, file, run)
        signature = signature_of(data)
        signature.write_bytes(made)
        said = check_signature(data, signature, run)
    if not said.good:
        raise SigningError(f"the signature made with {key} does not hold: {said.text.strip()}")
    if signable.signed != signable.path:
        write_atomic(signable.signed, signable.data)
    write_atomic(signable.signature, made)
    return said.key
