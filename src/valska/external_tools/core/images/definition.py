"""Apptainer definition files: found, read, checked, and put on another base.

The only module that knows spython. Its reader of definition files is used for the sections; what it
does wrong for us (it takes docker bases alone, lower-cases them, trips over comments, prints and
exits) is made up for here. It is imported late: most commands never read a definition.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.tool import read_file
from valska.external_tools.core.utils import package_directory, sha256_bytes

SUFFIX = ".def"
SECTIONS = frozenset(
    (
        *("help", "setup", "files", "labels", "environment", "pre", "post"),
        *("runscript", "startscript", "test", "arguments"),
        *(
            "appinstall",
            "appfiles",
            "applabels",
            "appenv",
            "apprun",
            "appstart",
            "apphelp",
            "apptest",
        ),
    )
)

_HEADER = re.compile(r"^\s*(?P<key>[A-Za-z]+)\s*:\s*(?P<value>.*?)\s*(?:#.*)?$")
_SECTION = re.compile(r"^\s*%(?P<name>\S+)")
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
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

        return _VARIABLE.sub(value, text)

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
        If it has no base, more than one stage, or a section that Apptainer does not know.
    """
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not text in UTF-8") from error
    sections = _read_sections(text)
    _check_sections(path, [name for name, _, _ in sections])
    arguments = _lines(sections, "arguments")
    return Definition(
        path=path,
        text=text,
        header=_read_header(path, text),
        arguments=dict(_argument(path, line) for line in arguments),
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
        if name not in definition.arguments and name not in _VARIABLE.findall(definition.text):
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


def _read_sections(text: str) -> list[tuple[str, str | None, list[str]]]:
    from spython.main.parse.parsers.singularity import SingularityParser

    found: list[tuple[str, str | None, list[str]]] = []

    class Reader(SingularityParser):  # type: ignore[misc]
        """Keeps sections as they are; the header is read elsewhere."""

        def _check_bootstrap(self, line: str) -> None:
            pass

        def _load_from(self, line: str) -> None:
            pass

        def _get_mapping(self, section: str) -> object:
            return lambda lines, layer=None: found.append((section.lower(), layer, lines))

    reader = Reader(filename=None, load=False)
    reader.lines = list(_spaced(_uncommented(text).splitlines()))
    reader.load_recipe()
    return found


def _spaced(lines: Iterable[str]) -> Iterator[str]:
    """Put an empty line after each section's name: spython takes the next line for a header."""
    for line in lines:
        yield line
        if _SECTION.match(line):
            yield ""


def _uncommented(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _lines(sections: list[tuple[str, str | None, list[str]]], name: str) -> list[str]:
    own = (lines for found, layer, lines in sections if found == name and not layer)
    return [line for lines in own for line in lines]


def _is_header(line: str) -> bool:
    return not line.lstrip().startswith("#") and _HEADER.match(line) is not None


def _read_header(path: Path, text: str) -> dict[str, str]:
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    matches = [_HEADER.match(line) for line in lines[:start] if _is_header(line)]
    header = {match["key"].lower(): match["value"] for match in matches if match}
    if not header.get("bootstrap"):
        raise DefinitionError(
            f"{path} is not a definition: it has no Bootstrap: line",
            "See containers/ for definitions that build.",
        )
    if sum(1 for line in lines if re.match(r"(?i)\s*bootstrap\s*:", line)) > 1:
        raise DefinitionError(
            f"{path} has more than one stage, and valska builds definitions of one stage",
            "Build it with `apptainer build`, and name the image with --image.",
        )
    return header


def _check_sections(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if name not in SECTIONS:
            raise DefinitionError(
                f"{path} has a section %{name}, which Apptainer does not know",
                did_you_mean(name, SECTIONS),
            )


def _argument(path: Path, line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not equals or not name.strip():
        raise DefinitionError(f"{path}: {line!r} in %arguments is not of the form NAME=VALUE")
    return name.strip(), value.strip()


def _relabel(line: str, labels: Mapping[str, str]) -> str | None:
    match = _BASE_LABEL.match(line)
    if match is None:
        return line
    value = labels.get(match["what"])
    return f"{match[0].rstrip()} {value}" if value else None
