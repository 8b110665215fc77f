"""Comments that excuse a line: ``# valska: allow CODE reason``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.sections import Line, split_lines
from valska.external_tools.core.suggest import did_you_mean

_EXCUSE = re.compile(r"(?:^|\s)#+\s*valska:\s*(?P<verb>\S+)\s*(?P<code>\S*)\s*(?P<reason>.*)")


@dataclass(slots=True)
class _Excuse:
    """A comment that allows a code on some lines."""

    line: int
    code: str
    lines: frozenset[int]
    used: bool = field(default=False)


def apply_excuses(
    text: str, found: list[Finding], codes: frozenset[str], ends: dict[int, int]
) -> list[Finding]:
    """Leave out what a comment excuses, and add what is wrong with such comments.

    Parameters
    ----------
    text
        The definition.
    found
        Findings.
    codes
        Those that can be excused.
    ends
        Where a command ends that begins in a line, if that is another line.
    """
    excuses, wrong = _read(text, codes)
    kept = [finding for finding in found if not _excused(finding, excuses, ends)]
    unused = (
        Finding(
            excuse.line,
            "warning",
            "excuse",
            f"nothing here has to be excused as {excuse.code}",
            "Remove the comment.",
        )
        for excuse in excuses
        if not excuse.used
    )
    return [*kept, *wrong, *unused]


def _excused(finding: Finding, excuses: list[_Excuse], ends: dict[int, int]) -> bool:
    lines = range(finding.line, max(finding.line, ends.get(finding.line, 0)) + 1)
    fitting = [e for e in excuses if e.code == finding.code and e.lines & {*lines}]
    for excuse in fitting:
        excuse.used = True
    return bool(fitting)


def _read(text: str, codes: frozenset[str]) -> tuple[list[_Excuse], list[Finding]]:
    lines = split_lines(text)
    excuses, wrong = [], []
    for line in lines:
        match = _EXCUSE.search(line.text)
        if match is None:
            continue
        fault = _fault(match, codes)
        if fault is None:
            excuses.append(_Excuse(line.number, match["code"], frozenset(_reach(lines, line))))
        else:
            wrong.append(Finding(line.number, "error", "excuse", *fault))
    return excuses, wrong


def _reach(lines: tuple[Line, ...], line: Line) -> Iterator[int]:
    """Return the line itself and, for a comment on its own, the next that is none."""
    yield line.number
    if line.is_comment:
        following = lines[line.number :]
        yield from (other.number for other in islice(_said(following), 1))


def _said(lines: tuple[Line, ...]) -> Iterator[Line]:
    return (line for line in lines if not line.is_comment)


def _fault(match: re.Match[str], codes: frozenset[str]) -> tuple[str, str | None] | None:
    form = "Write: # valska: allow CODE reason"
    if match["verb"] != "allow":
        return f"valska knows no comment {match['verb']!r}", form
    if match["code"] not in codes:
        message = f"there is no finding {match['code']!r} to allow"
        return message, did_you_mean(match["code"], codes) or form
    if not match["reason"]:
        return f"the comment that allows {match['code']} gives no reason", form
    return None
