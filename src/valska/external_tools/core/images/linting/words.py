"""The words of one shell command: what stands before the program, and scripts that it is handed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from valska.external_tools.core.images.sections import Line

ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=(.*)", re.DOTALL | re.ASCII)
_KEYWORDS = frozenset((
    "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "esac", "!", "{", "}",
    "time",
))  # fmt: skip
_WRAPPERS = frozenset((
    "sudo", "doas", "env", "exec", "command", "nohup", "nice", "ionice", "builtin", "xargs",
    "timeout", "retry", "chroot", "eatmydata", "fakeroot", "setsid", "stdbuf",
))  # fmt: skip
_RUNNERS = frozenset(("conda", "mamba", "micromamba"))
_RUNNER_VALUES = frozenset(("-n", "--name", "-p", "--prefix", "-r", "--root-prefix", "--cwd"))
_WITH_VALUE = frozenset(("-u", "-g", "-n", "-P", "-I", "-s", "-k", "-L", "-d", "-a", "-C"))
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh"))
_DURATION = re.compile(r"\d+(?:\.\d+)?[smhd]?")


def split_loop(words: Sequence[str], variables: dict[str, str]) -> list[str]:
    """Return the words after a keyword; a loop's variable is set to all that it will be."""
    rest = list(words)
    while rest and rest[0] in _KEYWORDS:
        rest.pop(0)
    if rest[:1] == ["for"] and len(rest) > 1:
        if rest[2:3] == ["in"]:
            variables[rest[1]] = " ".join(rest[3:])
        else:
            variables.pop(rest[1], None)
        return []
    return rest


def assignments(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the assignments that words begin with, and the rest."""
    found: dict[str, str] = {}
    for position, word in enumerate(words):
        match = ASSIGNMENT.fullmatch(word)
        if match is None:
            return found, list(words[position:])
        found[match[1]] = match[2]
    return found, []


def own_words(words: Sequence[str]) -> tuple[list[str], dict[str, str], bool]:
    """Return a command without the programs that only run it, their settings, and `xargs`."""
    rest, settings, appended = list(words), {}, False
    while rest and ((name := rest[0].rpartition("/")[2]) in _WRAPPERS or _runs_another(rest)):
        appended = appended or name == "xargs"
        if name in _RUNNERS:
            inner = _after_options(rest[2:], _RUNNER_VALUES)
        else:
            inner = _after_options(rest[1:])[1 if name == "chroot" else 0 :]
        more, inner = assignments(inner)
        settings.update(more)
        if not inner:
            break
        rest = inner
    return rest, settings, appended


def _runs_another(words: list[str]) -> bool:
    return words[0].rpartition("/")[2] in _RUNNERS and words[1:2] == ["run"]


def _after_options(words: list[str], with_value: frozenset[str] = _WITH_VALUE) -> list[str]:
    rest = list(words)
    while rest and (rest[0].startswith("-") or _DURATION.fullmatch(rest[0])):
        option = rest.pop(0)
        if option in with_value and rest:
            rest.pop(0)
    return rest


def inner_script(words: Sequence[str], line: int, document: Sequence[Line]) -> list[Line]:
    """Return the script that a shell is handed as words or on its input, or nothing."""
    name = words[0].rpartition("/")[2]
    if name == "eval":
        return [Line(line, " ".join(words[1:]))]
    if name not in _SHELLS | {"su"}:
        return []
    for option, value in pairwise(words):
        if re.fullmatch(r"-[a-z]*c", option):
            return [Line(line, value)]
    return list(document)


def option_names(text: str) -> frozenset[str]:
    """Return the options that a text names, blanks between them."""
    return frozenset(text.split())


def options(
    words: Sequence[str], with_value: frozenset[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return a command's options with their values, and its other words.

    Parameters
    ----------
    words
        Those after the program.
    with_value
        Options that take the next word, or what follows ``=``, for their value.
    """
    found: list[tuple[str, str]] = []
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            others.extend(rest)
            break
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            others.append(word)
        elif equals and word.startswith("--"):
            found.append((name, value))
        elif word in with_value:
            found.append((word, rest.pop(0) if rest else ""))
        elif (short := _cluster(word, with_value)) is not None:
            found.append((short[0], short[1] or (rest.pop(0) if rest else "")))
        else:
            found.append((word, ""))
    return found, others


def _cluster(word: str, with_value: frozenset[str]) -> tuple[str, str] | None:
    """Split ``-sSLo FILE`` or ``-ofile`` at the first letter that takes a value."""
    if not re.match(r"-[A-Za-z]{2}", word) and not re.match(r"-[A-Za-z][^-\s]", word):
        return None
    for position, letter in enumerate(word[1:], 1):
        if f"-{letter}" in with_value:
            return f"-{letter}", word[position + 1 :]
    return None
