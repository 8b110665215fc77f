"""A shell script taken apart into its commands, as far as a look at it can.

Nothing is run. Quotes, comments, continued lines, here-documents, pipes, substitutions and
variables that are set in plain words are followed; loops and conditions are read once, from top to
bottom.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from valska.external_tools.core.images.linting.words import (
    ASSIGNMENT,
    assignments,
    inner_script,
    own_words,
    split_loop,
)
from valska.external_tools.core.images.sections import Line

_HEREDOC = re.compile(
    r"\d*<<(?P<dash>-?)[ \t]*(?P<word>(?:'[^'\n]*'|\"[^\"\n]*\"|\\.|[^\s;&|<>()])+)"
)
_REDIRECTION = re.compile(r"(?:\d*|&)(?P<kind><<<|>>|>\||>&|<&|<>|>|<)(?!\()")
_SEPARATORS = ("&&", "||", ";;", ";", "&")
_NAME = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
_META = frozenset(" \t\n;&|()<>")
_MAX_DEPTH = 30
_MAX_VALUE = 4096


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command.

    Parameters
    ----------
    words
        Program and arguments without quotes; variables are filled in where they are known.
    line, last
        Numbers of the lines that it begins and ends in.
    statement
        Number that the commands of one pipeline, and of its substitutions, share.
    input
        Lines of its here-document.
    writes, reads
        Files that its output goes to, and that its input comes from.
    settings
        Variables as they are when it runs.
    appended
        Whether `xargs` hands it more words.
    """

    words: tuple[str, ...]
    line: int
    last: int
    statement: int
    input: tuple[Line, ...] = ()
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    appended: bool = False

    @property
    def program(self) -> str:
        """Name of the program without its directory."""
        return self.words[0].rpartition("/")[2]

    @property
    def text(self) -> str:
        """All that it says."""
        return "\n".join((" ".join(self.words), *(line.text for line in self.input)))


def read_script(lines: Iterable[Line]) -> tuple[Command, ...]:
    """Return the commands of a script, in their order."""
    reader = _Reader(tuple(lines), {}, 0)
    return tuple(reader.read())


@dataclass(slots=True)
class _Pending:
    """A command that is being read."""

    line: int = 0
    words: list[str] = field(default_factory=list)
    input: list[Line] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)


class _Reader:
    """Reads the characters of a script once."""

    def __init__(
        self, lines: tuple[Line, ...], variables: dict[str, str], depth: int, statement: int = 0
    ) -> None:
        self.text = "".join(line.text + "\n" for line in lines)
        self.lines = lines
        self.starts = list(accumulate((len(line.text) + 1 for line in lines), initial=0))
        self.variables = variables
        self.depth = depth
        self.nested = depth > 0
        self.statement = statement
        self.at = 0
        self.after_documents: int | None = None
        self.found: list[Command] = []

    def read(self) -> list[Command]:
        """Return the commands."""
        while self.at < len(self.text):
            self._list("")
        return self.found

    def _number(self, at: int) -> int:
        row = min(bisect_right(self.starts, at) - 1, len(self.lines) - 1)
        return self.lines[row].number

    def _list(self, closing: str) -> None:
        """Read commands up to an unquoted closing character."""
        pending = _Pending()
        while self.at < len(self.text):
            self._skip_blanks()
            rest = self.text[self.at : self.at + 2]
            if not rest:
                break
            if closing and rest[0] == closing:
                self.at += 1
                break
            if self._ends(rest, pending):
                pending = _Pending()
            elif not self._redirected(pending):
                self._word_into(pending)
        self._finish(pending)

    def _ends(self, rest: str, pending: _Pending) -> bool:
        """Take what stands between two commands; return whether there was any."""
        if rest[0] == "\n":
            self._finish(pending)
            self._next_statement()
            self._newline()
        elif separator := next((s for s in _SEPARATORS if rest.startswith(s)), None):
            if rest == "&>":
                return False
            self._finish(pending)
            self._next_statement()
            self.at += len(separator)
        elif rest[0] in "|()":
            self._bar_or_bracket(rest, pending)
        else:
            return False
        return True

    def _bar_or_bracket(self, rest: str, pending: _Pending) -> None:
        empty = re.match(r"\([ \t]*\)", self.text[self.at :])
        if rest[0] == "(" and pending.words and empty:
            pending.words.clear()
            self.at += empty.end()
            return
        self._finish(pending)
        self.at += 2 if rest == "|&" else 1
        if rest[0] == "(":
            self._deeper(")")

    def _deeper(self, closing: str) -> None:
        if self.depth < _MAX_DEPTH:
            self.depth += 1
            self._list(closing)
            self.depth -= 1

    def _next_statement(self) -> None:
        if not self.nested:
            self.statement += 1

    def _newline(self) -> None:
        self.at += 1
        if self.after_documents is not None:
            self.at, self.after_documents = self.after_documents, None

    def _skip_blanks(self) -> None:
        while self.at < len(self.text):
            if self.text[self.at] in " \t":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at += 2
            elif self.text[self.at] == "#":
                self.at = self.text.index("\n", self.at)
            else:
                return

    def _redirected(self, pending: _Pending) -> bool:
        document = _HEREDOC.match(self.text, self.at)
        if document and not self.text.startswith("<<<", self.at):
            self._note(pending)
            self.at = document.end()
            pending.input.extend(self._document(document))
            return True
        match = _REDIRECTION.match(self.text, self.at)
        if not match:
            return False
        self._note(pending)
        self.at = match.end()
        self._skip_blanks()
        here, target = self.at, self._word()[0]
        if match["kind"] == "<<<":
            pending.input.append(Line(self._number(here), target))
        else:
            (pending.reads if match["kind"].startswith("<") else pending.writes).append(target)
        return True

    def _document(self, match: re.Match[str]) -> Iterator[Line]:
        """Take a here-document: it begins below this line, or below the one before it."""
        delimiter = re.sub(r"['\"\\]", "", match["word"])
        start = self.after_documents
        if start is None:
            end = re.compile(r"(?<!\\)\n").search(self.text, self.at)
            start = end.end() if end else len(self.text)
        row = bisect_right(self.starts, start) - 1
        for position, line in enumerate(self.lines[row:], row):
            self.after_documents = self.starts[position + 1]
            if (line.text.lstrip("\t") if match["dash"] else line.text) == delimiter:
                return
            yield line

    def _note(self, pending: _Pending) -> None:
        if not pending.line:
            pending.line = self._number(self.at)

    def _word_into(self, pending: _Pending) -> None:
        self._note(pending)
        before = self.at
        value, split = self._word()
        if self.at == before:
            self.at += 1
        split = split and not ASSIGNMENT.match(self.text[before : self.at])
        pending.words.extend(value.split() if split else [value])

    def _word(self) -> tuple[str, bool]:
        """Read a word; return it, and whether the shell would cut it at its blanks."""
        parts: list[str] = []
        split = False
        while self.at < len(self.text):
            c = self.text[self.at]
            if c in "<>" and self.text.startswith("(", self.at + 1):
                self.at += 1
                parts.append(c + self._substitution())
            elif c in _META:
                break
            elif c in "$`":
                value = self._dollar()
                split = split or not value.startswith("$(")
                parts.append(value)
            else:
                parts.append(self._plain(c))
        return "".join(parts)[:_MAX_VALUE], split

    def _plain(self, c: str) -> str:
        if c == "\\":
            self.at += 2
            following = self.text[self.at - 1 : self.at]
            return "" if following == "\n" else following
        if c == "'":
            end = self._index("'", self.at + 1)
            value, self.at = self.text[self.at + 1 : end], end + 1
            return value
        if c == '"':
            return self._quoted()
        self.at += 1
        return c

    def _quoted(self) -> str:
        self.at += 1
        parts: list[str] = []
        while self.at < len(self.text) and (c := self.text[self.at]) != '"':
            if c == "\\" and self.text[self.at + 1 : self.at + 2] in tuple('$`"\\\n'):
                parts.append(self.text[self.at + 1].strip("\n"))
                self.at += 2
            elif c in "$`":
                parts.append(self._dollar())
            else:
                parts.append(c)
                self.at += 1
        self.at += 1
        return "".join(parts)

    def _dollar(self) -> str:
        """Read what a dollar or a backtick begins: a variable or a substitution."""
        if match := _NAME.match(self.text, self.at):
            self.at = match.end()
            return self.variables.get(match[1] or match[2], match[0])
        if self.text[self.at] == "`":
            return self._backticks()
        if self.text.startswith("$((", self.at):
            return self._until("))")
        self.at += 1
        if self.text.startswith("(", self.at):
            return "$" + self._substitution()
        if self.text.startswith("{", self.at):
            return "$" + self._until("}")
        return "$"

    def _until(self, closing: str) -> str:
        end = self._index(closing, self.at) + len(closing)
        value, self.at = self.text[self.at : end], end
        return value

    def _backticks(self) -> str:
        end = self._index("`", self.at + 1)
        inner = self.text[self.at + 1 : end]
        self._inner([Line(self._number(self.at), inner)])
        self.at = end + 1
        return f"$({inner})"

    def _substitution(self) -> str:
        start = self.at
        self.at += 1
        nested, self.nested = self.nested, True
        self._deeper(")")
        self.nested = nested
        return self.text[start : self.at]

    def _index(self, closing: str, start: int) -> int:
        found = self.text.find(closing, start)
        return len(self.text) if found < 0 else found

    def _inner(self, lines: Iterable[Line]) -> None:
        """Read a script inside of this one, as part of this statement."""
        if self.depth < _MAX_DEPTH:
            cut = [Line(line.number, part) for line in lines for part in line.text.split("\n")]
            reader = _Reader(tuple(cut), self.variables, self.depth + 1, self.statement)
            self.found.extend(reader.read())

    def _finish(self, pending: _Pending) -> None:
        """Keep a command that is read to its end, and what it runs itself."""
        words = split_loop(pending.words, self.variables)
        settings, words = assignments(words)
        if not words:
            self.variables.update(settings)
            return
        words, own, appended = own_words(words)
        if words[:1] and words[0] in ("export", "readonly", "local", "declare", "typeset"):
            self.variables.update(assignments(words[1:])[0])
        if words:
            command = Command(
                words=tuple(words),
                line=pending.line,
                last=max(pending.line, self._number(max(0, self.at - 1))),
                statement=self.statement,
                input=tuple(pending.input),
                writes=tuple(pending.writes),
                reads=tuple(pending.reads),
                settings={**self.variables, **settings, **own},
                appended=appended,
            )
            self.found.append(command)
            self._inner(inner_script(command.words, command.line, command.input))
