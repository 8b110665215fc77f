"""Whether an archive or a receipt is signed, by whom, and as it is now."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.process import Run, run
from valska.external_tools.core.seal import Finding, FindingKind
from valska.external_tools.core.signing.keygen import (
    check_signature,
    find_principals,
    verify_signer,
)
from valska.external_tools.core.signing.keys import Trust
from valska.external_tools.core.signing.places import NAMESPACE, signature_of, statement_of
from valska.external_tools.core.signing.revoking import read_revoked
from valska.external_tools.core.signing.statement import signed_digests
from valska.external_tools.core.utils import sha256_file

_EXPIRED = re.compile(r"key has expired: .*valid-before (\S+)")
_EARLY = re.compile(r"key is not yet valid: .*valid-after (\S+)")
_PURPOSE = re.compile(r"not permitted for use in signature namespace")
_LINE = re.compile(r":(\d+): ((?:bad|invalid|missing|unknown) .*)")
_DAMAGED = re.compile(r"parse signature|sshsig_armor|invalid format|incomplete message")


@dataclass(frozen=True, slots=True)
class SignatureVerification:
    """What a signature is worth.

    Parameters
    ----------
    findings
        What is wrong; empty if all holds. Paths are file names beside the archive.
    signer
        Who signed; None if something is wrong.
    key
        Type and fingerprint of the key; empty if there is no good signature.
    """

    findings: tuple[Finding, ...]
    signer: str | None = None
    key: str = ""


def verify_archive_signature(
    archive: Path, trust: Trust, sha256: str | None = None, *, run: Run = run
) -> SignatureVerification:
    """Check the signature beside an archive, and that it is about this archive.

    Parameters
    ----------
    archive
        The file.
    trust
        Who may have signed.
    sha256
        Of the archive; it is read if that is not given.
    run
        Runs programs.

    Raises
    ------
    PrerequisiteError
        If ssh-keygen is missing or too old.
    """
    statement = statement_of(archive)
    checked = verify_signature(statement, trust, run=run)
    if not statement.is_file():
        return checked
    digest = sha256 or sha256_file(archive)
    about = _compare(archive, statement, digest)
    if about is None:
        return checked
    return SignatureVerification((*checked.findings, about), None, checked.key)


def _compare(archive: Path, statement: Path, sha256: str) -> Finding | None:
    try:
        signed = signed_digests(statement.read_bytes())
    except VerificationError as error:
        return Finding(FindingKind.UNREADABLE, statement.name, error.message)
    except OSError as error:
        return Finding(FindingKind.UNREADABLE, statement.name, error.strerror or str(error))
    if sha256 in signed:
        return None
    detail = f"sha256 {sha256[:12]}…, the statement is about {signed[0][:12]}…"
    return Finding(FindingKind.ALTERED, archive.name, detail)


def verify_signature(signed: Path, trust: Trust, *, run: Run = run) -> SignatureVerification:
    """Check the signature beside a file: a statement, or a receipt.

    Parameters
    ----------
    signed
        The file.
    trust
        Who may have signed.
    run
        Runs programs.

    Raises
    ------
    PrerequisiteError
        If ssh-keygen is missing or too old.
    """
    signature = signature_of(signed)
    missing = [one.name for one in (signed, signature) if not one.is_file()]
    if missing:
        return _wrong(*(Finding(FindingKind.MISSING, name, "not signed") for name in missing))
    said = check_signature(signed, signature, run)
    if not said.good:
        return _wrong(_broken(signed, signature, said.text))
    return _judge(signed, signature, trust, said.key, run)


def _judge(
    signed: Path, signature: Path, trust: Trust, key: str, run: Run
) -> SignatureVerification:
    """Say whether somebody who may sign made a good signature."""
    wanted: list[str | None] = [trust.identity]
    reason = ""
    if trust.identity is None:
        wanted, reason = _possible(signature, trust, run)
    for identity in wanted:
        who = identity or ""
        verified = verify_signer(signed, signature, trust.allowed, who, run, _date(trust))
        if verified.good:
            return _unless_revoked(signed, signature, trust, who, key, run)
        reason += verified.text
    before = _before_it_expired(trust, reason)
    if before and (findings := _judge(signed, signature, before, key, run).findings):
        return SignatureVerification(findings, None, key)
    return SignatureVerification((_untrusted(signature, trust, key, reason, run),), None, key)


def _before_it_expired(trust: Trust, reason: str) -> Trust | None:
    """Return what counted when a key was still valid: what was revoked never counts again."""
    match = _EXPIRED.search(reason)
    if trust.revoked is None or match is None:
        return None
    try:
        last = datetime.fromisoformat(match[1]) - timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None
    date = f"{last:%Y%m%d%H%M%S}"
    return None if date == trust.date else replace(trust, date=date)


def _wrong(*findings: Finding) -> SignatureVerification:
    return SignatureVerification(findings)


def _broken(signed: Path, signature: Path, text: str) -> Finding:
    if "namespace does not match" in text:
        detail = f"it was made for something else than {NAMESPACE}"
        return Finding(FindingKind.ALTERED, signature.name, detail)
    if _DAMAGED.search(text):
        return Finding(FindingKind.UNREADABLE, signature.name, "it is not an SSH signature")
    return Finding(FindingKind.ALTERED, signed.name, "the signature is of other bytes")


def _date(trust: Trust) -> list[str]:
    return ["-O", f"verify-time={trust.date}"] if trust.date else []


def _unless_revoked(
    signed: Path, signature: Path, trust: Trust, identity: str, key: str, run: Run
) -> SignatureVerification:
    """Look for the key of a good signature among those that no longer count."""
    if trust.revoked is None:
        return SignatureVerification((), identity, key)
    options = [*_date(trust), "-r", str(trust.revoked)]
    if verify_signer(signed, signature, trust.allowed, identity, run, options).good:
        return SignatureVerification((), identity, key)
    detail = _revocation(trust.revoked, key, run)
    finding = Finding(FindingKind.UNKNOWN_SIGNER, signature.name, detail)
    return SignatureVerification((finding,), None, key)


def _revocation(path: Path, key: str, run: Run) -> str:
    """Say why a file of revoked keys shuts a key out."""
    try:
        said = read_revoked(path, run)
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    named = said.fingerprints is not None and key.split()[1] in said.fingerprints
    if said.fault and not named:
        return f"{path.name} is not understood: {said.fault}"
    if named or said.fingerprints is None:
        return f"{path.name} revokes {_by(key)}"
    return f"{path.name} revokes {_by(key)}, or is not understood"


def _by(key: str) -> str:
    return "the {} key {}".format(*key.split())


def _possible(signature: Path, trust: Trust, run: Run) -> tuple[list[str | None], str]:
    """Return the identities that a key has; a pattern that shuts some out is none."""
    names, text = find_principals(signature, trust.allowed, run, _date(trust))
    return [name for name in names if not name.startswith("!")], text


def _untrusted(signature: Path, trust: Trust, key: str, reason: str, run: Run) -> Finding:
    """Say why a good signature does not count."""
    by = _by(key)
    if match := _EXPIRED.search(reason):
        return Finding(FindingKind.EXPIRED_KEY, signature.name, f"{by} was valid until {match[1]}")
    kind = FindingKind.UNKNOWN_SIGNER
    if match := _EARLY.search(reason):
        return Finding(kind, signature.name, f"{by} is not valid before {match[1]}")
    if _PURPOSE.search(reason):
        return Finding(kind, signature.name, f"{by} is not allowed for {NAMESPACE}")
    others, more = find_principals(signature, trust.allowed, run, _date(trust))
    if trust.identity is not None and others:
        detail = f"{by} is that of {', '.join(others)}, not of {trust.identity}"
        return Finding(FindingKind.WRONG_SIGNER, signature.name, detail)
    detail = f"{trust.allowed.name} does not allow {by}"
    if match := _LINE.search(reason + more):
        detail += f"; its line {match[1]} is not understood: {match[2].strip()}"
    return Finding(kind, signature.name, detail)
