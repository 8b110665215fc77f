"""Signatures in images: made and checked by Apptainer, with the keys of its keyring."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images.apptainer import apptainer_version, clean_environment
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store.beside import files_beside
from valska.external_tools.core.images.store.copying import copy_file
from valska.external_tools.core.images.store.imagestore import ImageStore
from valska.external_tools.core.process import Completed, Run, run
from valska.external_tools.core.utils import sha256_file, utc_now_iso

TIMEOUT_S = 600.0

_KEYRING = ("APPTAINER_CONFIGDIR", "APPTAINER_KEYSDIR")
_SYSTEM = "FS"
_KEYS = "`apptainer key list --secret` names the keys, `apptainer key newpair` makes one."
_SIGN_FAULTS = {
    "keyring is empty": (PrerequisiteError, "there is no key to sign with", _KEYS),
    "index out of range": (UsageError, "there is no key of that number", _KEYS),
    "checksum failure": (
        UsageError,
        "the key needs its passphrase, and that was not it",
        "Give it: --ask-passphrase.",
    ),
}
_VERIFY_FAULTS = {
    "signature not found": ("is not signed", "Sign it: valska image sign."),
    "unknown entity": (
        "is signed with a key that is not in the keyring",
        "Get the signer's public key: apptainer key import FILE.",
    ),
    "integrity compromised": ("has been altered since it was signed", "Fetch it again."),
}


def sign_image(
    store: ImageStore,
    record: ImageRecord,
    *,
    key: int | None = None,
    passphrase: str | None = None,
    apptainer: str = "apptainer",
    run: Run = run,
) -> ImageRecord:
    """Sign an image; the signed one has a digest of its own, and the other one stays.

    Parameters
    ----------
    store
        Where the image is, and the signed one goes.
    record
        Of the image.
    key
        Number of the key, see ``apptainer key list --secret``; Apptainer's choice, if not given.
    passphrase
        Of the key.
    apptainer
        The program.
    run
        Runs programs.

    Returns
    -------
    ImageRecord
        Of the signed image.

    Raises
    ------
    PrerequisiteError
        If there is no key or no Apptainer, or the store cannot be written.
    UsageError
        If there is no such key, or it needs another passphrase.
    VerificationError
        If the image has been altered.
    """
    apptainer_version(apptainer, run=run)
    source = store.sif(record.sha256)
    with store.workspace() as work:
        copy = work / "image.sif"
        if copy_file(source, copy) != record.sha256:
            raise VerificationError(f"{source} has been altered", "Build it again.")
        before = _listed(apptainer, copy, run)
        _sign(apptainer, copy, key, passphrase, run)
        signed = signers(copy, apptainer=apptainer, run=run)
        made = _signed(record, copy, [one for one in signed if one not in before] or signed)
        return store.add(copy, made, files_beside(source, record))


def signers(sif: Path, *, apptainer: str = "apptainer", run: Run = run) -> tuple[str, ...]:
    """Check the signatures in an image with the keys of the keyring; ask no key server.

    Returns
    -------
    tuple of str
        Fingerprints of the keys that it is signed with, in upper case.

    Raises
    ------
    PrerequisiteError
        If there is no Apptainer.
    VerificationError
        If it is not signed, a key is not known, or it was altered since.
    """
    apptainer_version(apptainer, run=run)
    done = _verify(apptainer, sif, run)
    keys = _keys(done)
    good = [key for key in keys if key.get("KeyCheck") and key.get("DataCheck")]
    if done.returncode != 0 or _SYSTEM not in {key.get("Partition") for key in good}:
        raise _unverified(sif, done)
    return tuple(dict.fromkeys(str(key["Fingerprint"]).upper() for key in good))


def require_signer(sif: Path, found: Sequence[str], wanted: str) -> None:
    """Refuse an image that a certain key has not signed.

    Parameters
    ----------
    sif
        The image, for the message.
    found
        See `signers`.
    wanted
        A fingerprint, or the last 16 digits or more of it.

    Raises
    ------
    UsageError
        If that is no fingerprint.
    VerificationError
        If others have signed it.
    """
    end = wanted.replace(" ", "").upper().removeprefix("0X")
    if len(end) < 16 or set(end) - set("0123456789ABCDEF"):
        raise UsageError(
            f"{wanted!r} is no fingerprint of a key", "Give its 40 digits: apptainer key list."
        )
    if not any(one.endswith(end) for one in found):
        raise VerificationError(
            f"{sif} is signed with {', '.join(found)}, not with {end}",
            "Do not use it, unless you trust that key as well.",
        )


def _signed(record: ImageRecord, sif: Path, by: Sequence[str]) -> ImageRecord:
    unsigned = (record.signature or {}).get("unsigned_sha256") or record.sha256
    return replace(
        record,
        sha256=sha256_file(sif),
        size=sif.stat().st_size,
        created_utc=utc_now_iso(),
        signature={"fingerprint": by[0], "unsigned_sha256": unsigned},
    )


def _sign(apptainer: str, sif: Path, key: int | None, passphrase: str | None, run: Run) -> None:
    choice = [] if key is None else ["--keyidx", str(key)]
    argv = [apptainer, "sign", *choice, os.fspath(sif)]
    stdin = None if passphrase is None else _pipe(sif.parent, passphrase)
    done = run(argv, env=_environment(), timeout=TIMEOUT_S, stdin=stdin)
    if done.returncode == 0:
        return
    for text, (kind, message, hint) in _SIGN_FAULTS.items():
        if text in done.stderr:
            raise kind(f"the image is not signed: {message}", hint)
    raise ValskaError(f"the image is not signed: {_last(done)}", _KEYS)


def _pipe(folder: Path, text: str) -> Path:
    """Return a file to read a text from, once, that is never written to a disk."""
    pipe = folder / "passphrase"
    os.mkfifo(pipe, 0o600)
    threading.Thread(target=pipe.write_text, args=(f"{text}\n",), daemon=True).start()
    return pipe


def _verify(apptainer: str, sif: Path, run: Run) -> Completed:
    argv = [apptainer, "verify", "--local", "--json", os.fspath(sif)]
    return run(argv, env=_environment(), timeout=TIMEOUT_S)


def _listed(apptainer: str, sif: Path, run: Run) -> set[str]:
    return {str(key.get("Fingerprint")).upper() for key in _keys(_verify(apptainer, sif, run))}


def _keys(done: Completed) -> list[dict[str, Any]]:
    try:
        found = json.loads(done.stdout).get("SignerKeys") or []
        return [entry["Signer"] for entry in found]
    except (ValueError, AttributeError, KeyError, TypeError):
        return []


def _unverified(sif: Path, done: Completed) -> VerificationError:
    for text, (message, hint) in _VERIFY_FAULTS.items():
        if text in done.stderr:
            return VerificationError(f"{sif} {message}", hint)
    return VerificationError(f"the signature of {sif} does not hold: {_last(done)}")


def _environment() -> dict[str, str]:
    """Return the environment without the user's settings, but for where the keys are."""
    kept = {name: os.environ[name] for name in _KEYRING if name in os.environ}
    return {**clean_environment(os.environ), **kept}


def _last(done: Completed) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].removeprefix("FATAL:").strip() if lines else "no message"
