"""Apptainer definition files: found, read, checked, and put on another base.

The only module that knows spython, whose reader is used for what sections hold. What it does
wrong for us (it takes docker bases alone, lower-cases them, trips over comments, prints and exits)
is made up for here. It refuses next to nothing and knows no line numbers: what is wrong in a file,
and where, our own reader finds (`sections`, `syntax`). It is imported late: most commands never
read a definition.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.sections import VARIABLE, Line, Section, read_header
from valska.external_tools.core.images.syntax import check_syntax
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.tool import read_file
from valska.external_tools.core.utils import package_directory, sha256_bytes

SUFFIX = ".def"
_NAME_ONE = "Name a definition file; containers/ has some."
_SECTION = re.compile(r"^\s*%\S+")
_HEADER = re.compile(r"^\s*[A-Za-z]+\s*:")
_BASE_LABEL = re.compile(r"^\s*org\.opencontainers\.image\.base\.(?P<what>name|digest)\s")


class DefinitionError(UsageError):
    """A definition file cannot be built as it is."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition file as read.

    Parameters
    ----------
    path
        The file.
    text
        Its content.
    header
        ``bootstrap``, ``from`` and the like, keys in lower case.
    arguments
        Build arguments with their defaults.
    files
        The lines of ``%files`` that copy from the host.
    """

    path: Path
    text: str
    header: Mapping[str, str]
    arguments: Mapping[str, str]
    files: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return sha256_bytes(self.text.encode())

    def fill(self, text: str, given: Mapping[str, str]) -> str:
        """Put build arguments in the place of ``{{ name }}``.

        Raises
        ------
        DefinitionError
            If a name has no value.
        """
        values = {**self.arguments, **given}

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise DefinitionError(
                    f"{self.path.name} uses {{{{ {match[1]} }}}}, which has no value",
                    f"Give one with --build-arg {match[1]}=VALUE, or a default in %arguments.",
                )
            return values[match[1]]

        return VARIABLE.sub(value, text)

    def pairs(self, given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return source and destination of each file that is copied from the host.

        Raises
        ------
        DefinitionError
            If a line is not of that form.
        """
        return tuple(self._pair(self.fill(line, given)) for line in self.files)

    def _pair(self, line: str) -> tuple[str, str]:
        try:
            source, destination = (shlex.split(line) * 2)[:2]
        except ValueError as error:
            raise DefinitionError(f"{self.path}: {line!r} in %files is not usable") from error
        return source, destination


def shipped_definitions() -> dict[str, Path]:
    """Return the definitions that come with valska: name without suffix to file."""
    directory = package_directory("valska.containers")
    return {path.stem: path for path in sorted(directory.glob(f"*{SUFFIX}"))}


def find_definition(reference: str) -> Path:
    """Return the file of a definition, named by path or by the name of a shipped one.

    Raises
    ------
    UsageError
        If there is neither.
    """
    path, shipped = Path(reference), shipped_definitions()
    if path.is_file():
        return path
    name = path.name.removesuffix(SUFFIX)
    if name in shipped and path.parent.name in ("", "containers"):
        return shipped[name]
    if path.is_dir():
        raise UsageError(f"{reference} is a directory, not a definition", _NAME_ONE)
    raise UsageError(
        f"no such definition: {reference}",
        did_you_mean(name, shipped) or f"valska comes with: {', '.join(shipped) or 'none'}.",
    )


def read_definition(path: Path) -> Definition:
    """Read a definition file and check what can be checked without building it.

    Raises
    ------
    UsageError
        If it cannot be read.
    DefinitionError
        If it has no base, more than one stage, or anything else that Apptainer would refuse.
    """
    data = read_file(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not text in UTF-8", _NAME_ONE) from error
    if "\0" in text:
        raise DefinitionError(f"{path} is not text", _NAME_ONE)
    wrong = check_syntax(text)
    if wrong:
        raise _refuse(path, wrong)
    sections = spython_sections(text)
    return Definition(
        path=path,
        text=text,
        header={entry.key: entry.value for entry in read_header(text)},
        arguments=dict(_argument(line) for line in _lines(sections, "arguments")),
        files=tuple(_lines(sections, "files")),
    )


def check_arguments(definition: Definition, given: Mapping[str, str]) -> None:
    """Check that a definition knows the build arguments it is given, and that none is missing.

    Raises
    ------
    UsageError
        If it does not, with a near miss.
    """
    for name in given:
        if name not in definition.arguments and name not in VARIABLE.findall(definition.text):
            known = ", ".join(definition.arguments) or "none"
            raise UsageError(
                f"{definition.path.name} has no build argument {name!r}",
                did_you_mean(name, definition.arguments) or f"It has: {known}.",
            )
    definition.fill(_uncommented(definition.text), given)


def rebase(definition: Definition, bootstrap: str, source: str, labels: Mapping[str, str]) -> str:
    """Return the text of a definition on another base.

    Parameters
    ----------
    definition
        The definition.
    bootstrap, source
        What ``Bootstrap:`` and ``From:`` are to say.
    labels
        ``name`` and ``digest`` of the base, for the labels that tell of it; a label whose fact is
        not known is dropped.
    """
    lines = definition.text.splitlines()
    start = next((i for i, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    header = [line for line in lines[:start] if not _is_header(line)]
    body = (kept for line in lines[start:] if (kept := _relabel(line, labels)) is not None)
    return "\n".join([f"Bootstrap: {bootstrap}", f"From: {source}", *header, *body]) + "\n"


def replace_source(definition: Definition, source: str) -> str:
    """Return the text of a definition with another ``From:``, and nothing else changed."""
    number = next(entry.line for entry in read_header(definition.text) if entry.key == "from")
    lines = definition.text.split("\n")
    end = number
    while lines[end - 1].partition("#")[0].rstrip().endswith("\\"):
        end += 1
    return "\n".join([*lines[: number - 1], f"From: {source}", *lines[end:]])


def spython_sections(text: str) -> tuple[Section, ...]:
    """Return the sections of a definition as spython reads them: a `sections.Reader`."""
    from spython.main.parse.parsers.singularity import SingularityParser

    found: list[Section] = []

    class Reader(SingularityParser):  # type: ignore[misc]
        """Keeps sections as they are; the header is read elsewhere."""

        def _check_bootstrap(self, line: str) -> None:
            pass

        def _load_from(self, line: str) -> None:
            pass

        def _get_mapping(self, section: str) -> object:
            return lambda lines, layer=None: found.append(_section(section, layer, lines))

    reader = Reader(filename=None, load=False)
    reader.lines = list(_spaced(_uncommented(text).split("\n")))
    reader.load_recipe()
    return tuple(found)


def _section(name: str, layer: str | None, lines: list[str]) -> Section:
    return Section(name.lower(), layer or "", tuple(Line(0, line) for line in lines))


def _spaced(lines: Iterable[str]) -> Iterator[str]:
    """Put an empty line after each section's name: spython takes the next line for a header."""
    for line in lines:
        yield line
        if _SECTION.match(line):
            yield ""


def _uncommented(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))


def _lines(sections: Iterable[Section], name: str) -> list[str]:
    own = (section for section in sections if section.name == name and not section.rest)
    return [line.text for section in own for line in section.lines]


def _is_header(line: str) -> bool:
    return not line.lstrip().startswith("#") and _HEADER.match(line) is not None


def _argument(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name.strip(), value.strip()


def _refuse(path: Path, wrong: Sequence[Finding]) -> DefinitionError:
    first = wrong[0]
    count = "is 1 more error" if len(wrong) == 2 else f"are {len(wrong) - 1} more errors"
    more = f" There {count}: valska build --check-only lists all."
    hint = (first.hint or "") + (more if len(wrong) > 1 else "")
    return DefinitionError(f"{path}, line {first.line}: {first.message}", hint.strip() or None)


def _relabel(line: str, labels: Mapping[str, str]) -> str | None:
    match = _BASE_LABEL.match(line)
    if match is None:
        return line
    value = labels.get(match["what"])
    return f"{match[0].rstrip()} {value}" if value else None
