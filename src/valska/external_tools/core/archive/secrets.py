"""What must not be packed: keys, tokens and passwords."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from valska.external_tools.core.archive.errors import SecretsError
from valska.external_tools.core.archive.members import Member
from valska.external_tools.core.archive.shapes import NAMES, SHAPES, Name, name_at
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import UsageError

MOST_BYTES = 1 << 23
"""Files above this size are data, not text that somebody wrote."""

_SHOWN = 10
_AT_ONCE = 1 << 18
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
    for clue in NAMES:
        if clue in lower:
            _look(text, lower, clue, partial(_named, path), found)
    for clue, kind_at in _CLUES:
        if clue in lower:
            _look(text, lower, clue, kind_at, found)
    line = place = 0
    for start in sorted(found):
        line += text.count(b"\n", place, start)
        place = start
        yield Secret(path, line + 1, found[start])


def _named(path: str, text: bytes, place: int) -> str | None:
    """Return the name that begins at a place, if it is given a value that is to be kept."""
    name = name_at(text, place, in_python=path.endswith(".py"))
    return None if name is None or _is_harmless(name, path) else name.text


_CLUES = tuple((clue, shape.kind_at) for shape in SHAPES for clue in shape.clues)


def _look(
    text: bytes,
    lower: bytes,
    clue: bytes,
    judge: Callable[[bytes, int], str | None],
    found: dict[int, str],
) -> None:
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
    UsageError
        If nothing looks like a secret at a place of `allowed`.
    """
    seen = {
        f"{secret.path}:{secret.line}": secret
        for texts in _texts(members)
        if _has_clue(texts)
        for path, text in texts
        for secret in find_secrets(text, path)
    }
    found = [secret for place, secret in seen.items() if place not in allowed]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise SecretsError(
            "these look like secrets, and an archive is for others to read: "
            + ", ".join(map(str, found[:_SHOWN]))
            + more,
            "Make the run again without them; if one is none, --allow-secret FILE:LINE packs it.",
        )
    idle = [place for place in allowed if place not in seen]
    if idle:
        raise UsageError(
            f"nothing looks like a secret at {', '.join(idle[:_SHOWN])}, which is allowed",
            "Leave --allow-secret out there, or name file and line as `valska archive` does.",
        )


def _texts(members: Iterable[Member]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield the files that are looked into, by their paths in the bundle, some at a time."""
    texts: list[tuple[str, bytes]] = []
    size = 0
    for member in filter(_is_looked_at, members):
        text = _content(member)
        texts.append((member.name.removeprefix("data/bundle/"), text))
        size += len(text)
        if size >= _AT_ONCE:
            yield texts
            texts, size = [], 0
    yield texts


def _has_clue(texts: Iterable[tuple[str, bytes]]) -> bool:
    """Return whether any of these can hold a secret: of very many small files few can."""
    lower = b"\n".join(text for _, text in texts).lower()
    return any(clue in lower for clue in NAMES) or any(clue in lower for clue, _ in _CLUES)


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
        with open(member.source, "rb", buffering=0) as file:  # noqa: PTH123 - there are many
            return file.read()
    except OSError:
        return b""
