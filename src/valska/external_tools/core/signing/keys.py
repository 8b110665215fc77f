"""Which key signs, and who may: what git is told, as far as nothing else is said."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.process import Run
from valska.external_tools.core.signing.revoking import read_revoked

_TIMEOUT_S = 20.0
_NOT_SET = 1
"""What ``git config --get`` ends with if there is no such setting."""
_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
_LITERAL = "key::"
_CERTIFICATE = "-cert-v01@openssh.com"
"""How the type of a certificate ends; an agent lists it beside the key that it is of."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key to sign with: a file, or the text of the public half of one that an agent holds."""

    path: Path | None
    text: str = ""

    def __str__(self) -> str:
        """Return what a person calls the key."""
        return str(self.path) if self.path else " ".join(self.text.split()[:2])

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Give the key as a file."""
        if self.path is not None:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="valska-") as folder:
            public = Path(folder) / "key.pub"
            public.write_text(self.text + "\n", encoding="utf-8")
            yield public


@dataclass(frozen=True, slots=True)
class Trust:
    """Who may sign, and when.

    Parameters
    ----------
    allowed
        A file of allowed signers.
    identity
        Which of them is wanted; None: any.
    revoked
        Keys that no longer count, see ``KEY REVOCATION LISTS`` in ssh-keygen(1).
    date
        The day, as ``20260301``, at which a key has to have been valid; today if it is empty.
    """

    allowed: Path
    identity: str | None
    revoked: Path | None = None
    date: str = ""


def find_key(path: Path | None, run: Run) -> Key:
    """Return the key to sign with.

    Parameters
    ----------
    path
        What the user named; else git's ``user.signingkey`` where ``gpg.format`` is ``ssh``; else
        the first of OpenSSH's default keys whose private half is in its file or in an agent; else
        the one key of an agent.
    run
        Runs programs.

    Raises
    ------
    UsageError
        If there is no such file, or git cannot read its configuration.
    PrerequisiteError
        If there is no key at all, or an agent has several.
    """
    if path is not None:
        return _existing(path, "Name a private key, or the public half of one in an agent.")
    if _git("gpg.format", run) == "ssh" and (said := _git("user.signingkey", run)):
        if said.startswith((_LITERAL, "ssh-", "ecdsa-", "sk-")):
            return Key(None, said.removeprefix(_LITERAL))
        return _existing(_expanded(said), "git's user.signingkey names it; or give --key.")
    held = _of_agent(run)
    publics = []
    for private in (_expanded("~/.ssh") / name for name in _NAMES):
        public = private.with_suffix(".pub")
        if private.is_file():
            return Key(private)
        if public.is_file():
            if _half(public.read_text(errors="replace")) in map(_half, held):
                return Key(public)
            publics.append(public)
    return _only(held, publics)


def _only(held: list[str], publics: list[Path]) -> Key:
    """Return the one key of an agent; without any, a public half whose private one is missed."""
    if len(held) == 1:
        return Key(None, held[0])
    if held:
        raise PrerequisiteError(
            f"an agent has {len(held)} keys, and none was named",
            "Put the public half of one into a file, and name it: `ssh-add -L` prints them all, "
            "--key FILE.",
        )
    if publics:
        return Key(publics[0])
    raise PrerequisiteError(
        "there is no SSH key to sign with",
        "Make one with `ssh-keygen -t ed25519`, name one with --key, or set git's user.signingkey.",
    )


def _half(text: str) -> list[str]:
    """Return type and key of a line, without its comment."""
    return text.split()[:2]


def _of_agent(run: Run) -> list[str]:
    """Return the public halves of the keys that an agent holds; certificates are none."""
    if not os.environ.get("SSH_AUTH_SOCK"):
        return []
    try:
        done = run(["ssh-add", "-L"], timeout=_TIMEOUT_S)
    except ValskaError:
        return []
    lines = [] if done.returncode else done.stdout.splitlines()
    return [line for line in lines if not line.partition(" ")[0].endswith(_CERTIFICATE)]


def _expanded(said: str) -> Path:
    """Return a path with the home of its user; of a user whom nobody knows, as it stands."""
    try:
        return Path(said).expanduser()
    except RuntimeError:
        return Path(said)


def _existing(path: Path, hint: str) -> Key:
    if not path.is_file():
        raise UsageError(f"there is no key {path}", hint)
    return Key(path.absolute())


def find_trust(
    signer: str,
    allowed: Path | None,
    run: Run,
    *,
    revoked: Path | None = None,
    date: str = "",
) -> Trust:
    """Return who may sign.

    Parameters
    ----------
    signer
        A file of allowed signers, any of which may have signed; or an identity in one.
    allowed
        That file, where `signer` is an identity; else git's ``gpg.ssh.allowedSignersFile``.
    run
        Runs programs.
    revoked
        Keys that no longer count; else git's ``gpg.ssh.revocationFile``.
    date
        See `Trust`.

    Raises
    ------
    UsageError
        If there is no identity, no such file, or it cannot be read; or if git cannot read its
        configuration.
    """
    if revoked is None and (said := _git("gpg.ssh.revocationFile", run)):
        revoked = _expanded(said)
    if revoked is not None:
        revoked = _understood(revoked, run)
    if allowed is None and Path(signer).is_file():
        return Trust(_readable(Path(signer)), None, revoked, date)
    if not signer:
        raise UsageError("there is no identity", "Name one, such as a mail address.")
    if allowed is None and (said := _git("gpg.ssh.allowedSignersFile", run)):
        allowed = _expanded(said)
    if allowed is None:
        raise UsageError(
            f"there is no file {signer}, and none that says which key an identity has",
            "Name it with --allowed-signers, or set git's gpg.ssh.allowedSignersFile; "
            "a line of it: IDENTITY ssh-ed25519 AAAA…",
        )
    return Trust(_readable(allowed), signer, revoked, date)


def _understood(revoked: Path, run: Run) -> Path:
    hint = "The file says which keys no longer count."
    path = _readable(revoked, "revoked keys", hint)
    if fault := read_revoked(path, run).fault:
        raise UsageError(
            f"the revoked keys in {revoked} are not understood: {fault}",
            "It holds public keys, one on each line, or is what `ssh-keygen -k` made.",
        )
    return path


def _readable(
    path: Path,
    what: str = "allowed signers",
    hint: str = "The file says which key an identity has.",
) -> Path:
    try:
        with path.open("rb"):
            return path.absolute()
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be read from {path}: {error.strerror}", hint
        ) from error


def _git(name: str, run: Run) -> str:
    """Return a setting of git; nothing if it is not set, or without git.

    Raises
    ------
    UsageError
        If git cannot read its configuration, which may set it.
    """
    # git passes over a file that it may not read; that is told in its words.
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = run(["git", "config", "--get", name], env=env, timeout=_TIMEOUT_S)
    except PrerequisiteError:
        return ""
    if done.returncode in (0, _NOT_SET) and "unable to access" not in done.stderr:
        return done.stdout.strip()
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = lines[0] if lines else f"it ended with {done.returncode}"
    raise UsageError(
        f"git does not say whether {name} is set: {said}",
        "Mend git's configuration, or name key and files: --key, --allowed-signers, --revoked.",
    )
