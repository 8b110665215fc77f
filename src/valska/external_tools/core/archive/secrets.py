"""What must not be packed: keys, tokens and passwords."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive.errors import SecretsError
from valska.external_tools.core.archive.members import Member
from valska.external_tools.core.archive.shapes import NAMES, SHAPES, Name, name_at
from valska.external_tools.core.archive.tar import Kind

MOST_BYTES = 1 << 23
"""Files above this size are data, not text that somebody wrote."""

_SHOWN = 10
_HEAD_BYTES = 8000
_DATA = re.compile(r"data/(?:images|references)/|data/bundle/(?:[^/]+/[^/]+/)?outputs(?:\.\d+)?/")
_TEXT = re.compile(
    r"\.(?:ya?ml|json|toml|ini|cfg|conf|env|sh|bash|py|def|lock|txt|csv|md|xml|out|err|log|in)$"
    r"|/[^./]+$"
)
_CODE = (".py", ".sh", ".bash", ".def")
_OWN_FILE = re.compile(r"(?:.*/)?(?:jobs(?:_[^/]*)?|\.?[^/]*local[^/]*)\.json")
_OWN_TOKEN = re.compile(rb'"[0-9a-f]{8}"')
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

    The time that it takes grows with the length of the text alone, however long its lines are.

    Parameters
    ----------
    text
        Content of a file.
    path
        Its name.
    """
    if b"\0" in text[:_HEAD_BYTES]:
        return
    found: dict[int, str] = {}
    lower = text.lower()
    for clues, judge in _judges(path):
        for clue in clues:
            _look(text, lower, clue, judge, found)
    line = place = 0
    for start in sorted(found):
        line += text.count(b"\n", place, start)
        place = start
        yield Secret(path, line + 1, found[start])


_Judge = Callable[[bytes, int], str | None]


def _judges(path: str) -> Iterator[tuple[tuple[bytes, ...], _Judge]]:
    """Yield what to look for, and what says of a place which kind of secret begins there."""

    def named(text: bytes, place: int) -> str | None:
        name = name_at(text, place, in_python=path.endswith(".py"))
        return None if name is None or _is_harmless(name, path) else name.text

    yield NAMES, named
    for shape in SHAPES:
        yield shape.clues, shape.kind_at


def _look(text: bytes, lower: bytes, clue: bytes, judge: _Judge, found: dict[int, str]) -> None:
    """Note the first secret of each line that begins with a clue."""
    place = lower.find(clue)
    while place >= 0:
        kind = judge(text, place)
        after = place + 1
        if kind is not None:
            start = text.rfind(b"\n", 0, place) + 1
            found.setdefault(start, kind)
            end = text.find(b"\n", place)
            after = len(text) if end < 0 else end
        place = lower.find(clue, after)


def _is_harmless(name: Name, path: str) -> bool:
    own = name.text == "token" and _OWN_TOKEN.fullmatch(name.value)
    if own and _OWN_FILE.fullmatch(path):
        return True
    return name.is_harmless(in_python=path.endswith(".py"), in_code=path.endswith(_CODE))


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
