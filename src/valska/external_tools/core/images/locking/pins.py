"""Pins as text, as pip reads them: which packages, whether each has a hash, and no passwords."""

from __future__ import annotations

import re

from valska.external_tools.core.errors import UsageError

_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?(?:==([^\s;\\]+)| @ (\S+))", re.MULTILINE)
_HASH = re.compile(r"--hash=sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})\b")
_LOGIN = re.compile(r"(?P<start>[a-z][a-z0-9+.-]*://)(?P<login>[^\s/@]*)@", re.IGNORECASE)
_VARIABLES = re.compile(r"(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|:)+")


def pinned_versions(pins: str) -> dict[str, str]:
    """Return the packages that pins name, each with its version or its address."""
    return {normal_name(name): number or place for name, number, place in _PIN.findall(pins)}


def normal_name(name: str) -> str:
    """Return the name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def without_hashes(pins: str) -> str:
    """Return pins as wishes for versions alone; uv would keep the hashes that it finds."""
    return re.sub(r"\s*\\\n\s*--hash=\S+", "", pins)


def unhashed(text: str) -> list[str]:
    """Return the requirements in a text for pip that have no hash."""
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(?:^|\s)#.*", "", line).strip() for line in joined.splitlines())
    bare = [line for line in lines if line and not _HASH.search(line)]
    return [line for line in bare if not line.startswith("-") or line.startswith(("-r", "-e"))]


def check_pins(pins: str, source: str) -> None:
    """Check that pins can be written down: each has a hash, and none an address with a password.

    Parameters
    ----------
    pins
        As they were resolved.
    source
        Name of the file that they are made from.

    Raises
    ------
    UsageError
        If they cannot. The message has no password in it.
    """
    logins = [match for match in _LOGIN.finditer(pins) if not _is_harmless(match["login"])]
    if logins:
        line = pins[pins.rfind("\n", 0, logins[0].start()) + 1 :].partition("\n")[0]
        shown = _masked(line).rstrip(" \\")
        raise UsageError(
            f"a login would be written into the lock: {shown}",
            "Keep it in ~/.netrc, in $UV_DEFAULT_INDEX or $PIP_INDEX_URL, "
            "or write ${NAME} into the address for a variable of the environment.",
        )
    bare = unhashed(pins)
    if bare:
        raise UsageError(
            f"{source} asks for what cannot have a hash: {_masked(bare[0])}",
            "Name a release of it (pip takes nothing from a directory or a repository where it "
            "checks hashes); or copy it in with %files, and install it with --no-deps.",
        )


def _is_harmless(login: str) -> bool:
    """Return whether a login is made of variables, or is the name that all use for git's ssh."""
    return login in ("", "git") or _VARIABLES.fullmatch(login) is not None


def _masked(text: str) -> str:
    return _LOGIN.sub(r"\g<start>****@", text)
