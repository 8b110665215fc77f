"""What must not be packed: keys, tokens and passwords."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive.errors import SecretsError
from valska.external_tools.core.archive.members import Member
from valska.external_tools.core.archive.tar import Kind

MOST_BYTES = 1 << 23
"""Files above this size are data, not text that somebody wrote."""

_SHOWN = 10
_DATA = re.compile(r"data/(?:images|references)/|data/bundle/(?:[^/]+/[^/]+/)?outputs(?:\.\d+)?/")
_TEXT = re.compile(
    r"\.(?:ya?ml|json|toml|ini|cfg|conf|env|sh|bash|py|def|lock|txt|csv|md|xml|out|err|log|in)$"
    r"|/[^./]+$"
)

_SHAPES: tuple[tuple[str, str], ...] = (
    ("private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    ("AWS key id", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Za-z0-9])"),
    ("GitHub token", r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22})"),
    ("GitLab token", r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20}"),
    ("Slack token", r"(?<![A-Za-z0-9])xox[abeprs]-[A-Za-z0-9-]{10}"),
    ("Google key", r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}"),
    ("PyPI token", r"(?<![A-Za-z0-9])pypi-[A-Za-z0-9_-]{50}"),
    ("npm token", r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}"),
    ("Hugging Face token", r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30}"),
    ("API key", r"(?<![A-Za-z0-9])sk-(?:(?:[a-z]{1,20}|api\d\d)-){0,3}[A-Za-z0-9_]{20}"),
    ("payment key", r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_[A-Za-z0-9]{16}"),
    ("age key", r"AGE-SECRET-KEY-1[A-Z0-9]{40}"),
    ("PuTTY key", r"PuTTY-User-Key-File-\d"),
    ("Google token", r"(?<![A-Za-z0-9])(?:ya29\.[A-Za-z0-9_-]{20}|GOCSPX-[A-Za-z0-9_-]{20})"),
    ("DigitalOcean token", r"(?<![A-Za-z0-9])do[opr]_v1_[0-9a-f]{40}"),
    ("mail key", r"(?<![A-Za-z0-9])SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{30}"),
    (
        "password of an option",
        r"(?<!\S)--(?:password|passwd|passphrase|token|api-key)\s+[A-Za-z0-9][^\s:]{3}",
    ),
    ("password for curl", r"\bcurl\s(?:.{0,300}\s)?(?:-u|--user)[ =]?['\"]?[^\s:$'\"]+:[^\s$'\"]"),
    ("login of a registry", r"\"auth\"\s*:\s*\"[A-Za-z0-9+/]{8,}={0,2}\""),
    ("login of a netrc file", r"\b(?:login|machine)\s+\S+\s+password\s+[^\s$<{]"),
    (
        "JSON web token",
        r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8}",
    ),
    (
        "password in a URL",
        r"[a-z][a-z0-9+.-]{0,20}://[^\s/:@'\"$<{]{1,200}:[^\s/@'\"$<{]{1,1000}@[A-Za-z0-9\[]",
    ),
    (
        "authorization header",
        r"(?i:authorization)['\"]?\s*[:=]\s*['\"]?(?i:basic|bearer|token|digest)\s+[^\s$<{]",
    ),
)
_NAMED = re.compile(
    rb"(?<![A-Za-z])(?<!/etc/)(?P<name>(?:[A-Za-z0-9]{1,40}[_-]){0,6}(?:[A-Za-z0-9]{0,20}passw(?:or)?d"
    rb"|passphrase|(?:access|api|auth|bearer|client|refresh|session)?(?:secret|token)"
    rb"|(?<=_)(?:pass|pwd)|api[_-]?key|access[_-]?key|account[_-]?key|secret[_-]?key"
    rb"|private[_-]?key|credentials?))"
    rb"(?:\\?[\"'])?[ \t]*(?:[:=]|=>)[ \t]*(?P<value>\\?\"[^\"\n]*\"|'[^'\n]*'|[^\s,;}\]]+)",
    re.IGNORECASE,
)
_ANY = re.compile("|".join(f"(?P<s{i}>{shape})" for i, (_, shape) in enumerate(_SHAPES)).encode())
_HARMLESS = re.compile(
    rb"|[$<{*%(~|&>].*|null|none|nil|true|false|yes|no|x+|\.+|-+|[0-9]{1,3}|redacted|changeme"
    # The version of a package, such as Debian's base-passwd.
    rb"|(?:\d+:)?\d+(?:\.\d+)+[0-9a-z.+~-]*",
    re.IGNORECASE,
)
_CLUES = (
    *(
        b"private key",
        b"akia",
        b"asia",
        b"ghp_",
        b"gho_",
        b"ghu_",
        b"ghs_",
        b"ghr_",
        b"github_pat_",
    ),
    *(b"glpat-", b"xox", b"aiza", b"pypi-", b"npm_", b"hf_", b"sk-", b"eyj", b"://"),
    *(b"authorization", b"passw", b"passphrase", b"secret", b"token", b"api", b"access", b"key"),
    *(b"credential", b"password", b"_pass", b"_pwd", b'"auth"', b"curl", b"putty"),
    *(b"sk_", b"rk_", b"sg.", b"ya29.", b"gocspx-", b"_v1_"),
)
"""One of them is in each line that is worth a closer look."""
_OWN_TOKEN = re.compile(rb"[0-9a-f]{8,12}")
"""What tells the jobs of one submission from those of another; nothing can be opened with it."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Where something looks like a secret, and like which kind; never the secret."""

    path: str
    line: int
    kind: str

    def __str__(self) -> str:
        """Return place and kind."""
        return f"{self.path}:{self.line} ({self.kind})"


def find_secrets(text: bytes, path: str) -> Iterator[Secret]:
    """Yield what looks like a secret in a text, at most one for each line.

    Parameters
    ----------
    text
        Content of a file.
    path
        Its name.
    """
    if b"\0" in text:
        return
    for start, end in _suspects(text):
        line = text[start:end]
        kind = _named(line) or _shaped(line)
        if kind:
            yield Secret(path, text.count(b"\n", 0, start) + 1, kind)


def _suspects(text: bytes) -> list[tuple[int, int]]:
    """Return where the lines are that hold a part of what is looked for."""
    lower = text.lower()
    found = set()
    for clue in _CLUES:
        place = lower.find(clue)
        while place >= 0:
            start = lower.rfind(b"\n", 0, place) + 1
            end = lower.find(b"\n", place)
            end = len(lower) if end < 0 else end
            found.add((start, end))
            place = lower.find(clue, end)
    return sorted(found)


def _shaped(line: bytes) -> str | None:
    match = _ANY.search(line)
    return _SHAPES[int((match.lastgroup or "s0")[1:])][0] if match else None


def _named(line: bytes) -> str | None:
    for match in _NAMED.finditer(line):
        value = match["value"].strip(b"\\\"'")
        name = match["name"].lower()
        if not _HARMLESS.fullmatch(value) and not (
            name == b"token" and _OWN_TOKEN.fullmatch(value)
        ):
            return name.decode()
    return None


def require_no_secrets(members: Iterable[Member], allowed: Collection[str] = ()) -> None:
    """Look for secrets in configurations, scripts, environments, records and logs.

    Parameters
    ----------
    members
        What is to be packed. Images, outputs, referenced inputs and large files are not looked
        into.
    allowed
        Places, ``file:line``, at which there is none though it looks so.

    Raises
    ------
    SecretsError
        Naming the places. The secrets themselves are not in it.
    """
    found = [
        secret
        for member in members
        if _is_looked_at(member)
        for secret in find_secrets(_content(member), member.name.removeprefix("data/bundle/"))
        if f"{secret.path}:{secret.line}" not in allowed
    ]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise SecretsError(
            "these look like secrets, and an archive is for others to read: "
            + ", ".join(map(str, found[:_SHOWN]))
            + more,
            "Make the run again without them; if one is none, --allow-secret FILE:LINE packs it.",
        )


def _is_looked_at(member: Member) -> bool:
    return (
        member.kind is Kind.FILE
        and member.size <= MOST_BYTES
        and not _DATA.match(member.name)
        and bool(_TEXT.search(member.name) or member.size <= 1 << 16)
    )


def _content(member: Member) -> bytes:
    if member.source is None:
        return member.data or b""
    try:
        return Path(member.source).read_bytes()
    except OSError:
        return b""
