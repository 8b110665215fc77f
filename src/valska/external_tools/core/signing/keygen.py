"""``ssh-keygen -Y``: signatures with SSH keys, and what it says of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.process import Completed, Run
from valska.external_tools.core.signing.places import NAMESPACE

TIMEOUT_S = 60.0

_PROGRAM = "ssh-keygen"
_INSTALL = "Install OpenSSH 8.2 or newer (Debian and Ubuntu: openssh-client)."
_TOO_OLD = re.compile(r"(?i)(unknown|illegal|invalid) option|unsupported operation")
_GOOD = re.compile(r"Good \"[^\"]*\" signature .*?with (\S+) key (\S+)")
_NO_FILE = re.compile(r"Load key .*: No such file")
_AGENT = "Add it to the agent (`ssh-add FILE`) and see that SSH_AUTH_SOCK is set, or name the key."


class SigningError(ValskaError):
    """ssh-keygen did not make a signature."""


@dataclass(frozen=True, slots=True)
class Said:
    """What ssh-keygen says of a signature: whether it is good, by which key, or why it is not."""

    good: bool
    key: str = ""
    text: str = ""


def sign_file(file: Path, key: Path, run: Run) -> bytes:
    """Return the signature of a file, in OpenSSH's armour.

    Asks for a passphrase where a terminal (or SSH_ASKPASS) is there.

    Parameters
    ----------
    file
        What is signed.
    key
        A private key, or the public half of one that an agent holds.
    run
        Runs programs.

    Raises
    ------
    PrerequisiteError
        If ssh-keygen is missing or too old, or nobody has the private half.
    UsageError
        If `key` is no key, others can read it, or its passphrase was not given.
    SigningError
        If it fails otherwise.
    """
    done = _keygen(["sign", "-f", str(key), "-n", NAMESPACE], file, run, None)
    if done.returncode or not done.stdout.startswith("-----BEGIN SSH SIGNATURE-----"):
        raise _fault(done.stderr, key)
    return done.stdout.encode()


def _fault(text: str, key: Path) -> ValskaError:
    if "UNPROTECTED PRIVATE KEY" in text:
        return UsageError(f"others can read the key {key}", f"Close it: chmod 600 {key}")
    if "incorrect passphrase" in text:
        return UsageError(
            f"the passphrase of the key {key} was not given, or is another",
            f"Run it at a terminal, or have an agent hold the key first: ssh-add {key}",
        )
    if "No private key found" in text or _NO_FILE.search(text):
        return PrerequisiteError(
            f"neither a file nor an agent has the private half of {key}", _AGENT
        )
    if "agent refused" in text or "communication with agent" in text:
        return PrerequisiteError(f"the agent did not sign with {key}", _AGENT)
    if "Couldn't load public key" in text:
        return UsageError(
            f"{key} is not an SSH key that can be read",
            "Name a private key, or a .pub of one in an agent; `ssh-keygen -t ed25519` makes one.",
        )
    return SigningError(f"ssh-keygen did not sign with {key}: {_last(text)}")


def check_signature(file: Path, signature: Path, run: Run) -> Said:
    """Return whether a signature is one of a file, whoever made it.

    Raises
    ------
    PrerequisiteError
        If ssh-keygen is missing or too old.
    """
    args = ["check-novalidate", "-n", NAMESPACE, "-s", str(signature)]
    return _said(_keygen(args, file, run))


def verify_signer(
    file: Path,
    signature: Path,
    allowed: Path,
    identity: str,
    run: Run,
    options: Sequence[str] = (),
) -> Said:
    """Return whether a signature is one of a file by a certain person.

    Parameters
    ----------
    file, signature
        What was signed, and the signature.
    allowed
        Who may sign, see ``ALLOWED SIGNERS`` in ssh-keygen(1).
    identity
        The person, such as a mail address.
    run
        Runs programs.
    options
        Further ones of ``ssh-keygen -Y verify``.

    Raises
    ------
    PrerequisiteError
        If ssh-keygen is missing or too old.
    """
    who = [*options, "-I", identity, "-f", str(allowed)]
    return _said(_keygen(["verify", *who, "-n", NAMESPACE, "-s", str(signature)], file, run))


def find_principals(
    signature: Path, allowed: Path, run: Run, options: Sequence[str] = ()
) -> tuple[tuple[str, ...], str]:
    """Return whose key made a signature, and what was said besides.

    Raises
    ------
    PrerequisiteError
        If ssh-keygen is missing or too old.
    """
    where = ["-s", str(signature), "-f", str(allowed)]
    done = _keygen(["find-principals", *options, *where], signature, run)
    return tuple(done.stdout.split("\n")[:-1]) if not done.returncode else (), done.stderr


def check_revocation_list(path: Path, run: Run) -> str:
    """Return why a binary list of revoked keys is not understood; nothing if it is.

    Raises
    ------
    PrerequisiteError
        If ssh-keygen is missing.
    """
    require_keygen()
    done = run([_PROGRAM, "-Q", "-f", str(path)], timeout=TIMEOUT_S)
    return _last(done.stderr).rpartition(": ")[2] if done.returncode else ""


def _said(done: Completed) -> Said:
    found = _GOOD.search(done.stdout)
    if done.returncode or not found:
        return Said(good=False, text=done.stderr)
    return Said(good=True, key=f"{found[1]} {found[2]}")


def _keygen(
    args: Sequence[str], stdin: Path, run: Run, timeout: float | None = TIMEOUT_S
) -> Completed:
    require_keygen()
    done = run([_PROGRAM, "-Y", *args], timeout=timeout, stdin=stdin)
    if done.returncode and _TOO_OLD.search(done.stderr):
        raise PrerequisiteError(f"this {_PROGRAM} is too old to sign files", _INSTALL)
    return done


def require_keygen() -> None:
    """Refuse to go on without ssh-keygen.

    Raises
    ------
    PrerequisiteError
        If there is none.
    """
    if shutil.which(_PROGRAM) is None:
        raise PrerequisiteError(f"there is no {_PROGRAM}", _INSTALL)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
