"""What Apptainer would refuse in a definition, or silently take otherwise than it is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.sections import (
    VARIABLE,
    Entry,
    Line,
    Section,
    read_header,
    read_sections,
    read_stages,
    split_lines,
)
from valska.external_tools.core.suggest import did_you_mean

SECTIONS = frozenset((
    "help", "setup", "files", "labels", "environment", "pre", "post", "runscript", "startscript",
    "test", "arguments", "appinstall", "appfiles", "applabels", "appenv", "apprun", "appstart",
    "apphelp", "apptest",
))  # fmt: skip
HEADERS = frozenset((
    "bootstrap", "from", "includecmd", "mirrorurl", "updateurl", "osversion", "include", "library",
    "registry", "namespace", "stage", "product", "user", "regcode", "productpgp", "registerurl",
    "modules", "otherurl", "fingerprints", "confurl", "setopt",
))  # fmt: skip
WITHOUT_FROM = frozenset(("scratch", "debootstrap", "yum", "dnf", "zypper", "arch", "busybox"))
"""Bootstrap agents that make a file system from packages, or none."""
AGENTS = frozenset((
    "docker", "docker-archive", "docker-daemon", "library", "oci", "oci-archive", "oras", "shub",
))  # fmt: skip
"""Bootstrap agents whose base a URI can name."""

LOCAL = "localimage"
"""Bootstrap agent of a file or a directory of this machine."""

SYNTAX_CODES = frozenset((
    "byte-order-mark", "no-bootstrap", "agent", "no-from", "header", "header-twice", "stages",
    "section", "argument-form", "argument-twice", "braces",
))  # fmt: skip

_FIRST = ("byte-order-mark", "no-bootstrap")
_OPEN = re.compile(r"\{\{\s*[A-Za-z_]\w*(?!.*\}\})", re.ASCII)
_MARK = "\ufeff"
_EXAMPLES = "See containers/ for definitions that build."


def check_syntax(text: str) -> tuple[Finding, ...]:
    """Return the errors of form in a definition, sorted by line."""
    marked, text = text.startswith(_MARK), text.removeprefix(_MARK)
    header, sections = read_header(text), read_sections(text)
    found = [
        *(_check_mark() if marked else ()),
        *_check_header(header),
        *_check_stages(text),
        *(finding for section in sections for finding in _check_name(section)),
        *_check_arguments(sections),
        *_check_braces(text),
    ]
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.code not in _FIRST)))


def _check_mark() -> Iterator[Finding]:
    yield _error(
        1,
        "byte-order-mark",
        "it begins with a byte-order mark, which Apptainer refuses",
        "Save it as UTF-8 without one.",
    )


def _check_header(header: tuple[Entry, ...]) -> Iterator[Finding]:
    seen: dict[str, Entry] = {}
    for entry in header:
        yield from _check_entry(entry)
        if entry.key in seen and entry.key != "bootstrap":
            yield _error(
                entry.line,
                "header-twice",
                f"{entry.key.capitalize()}: is there already, in line {seen[entry.key].line}",
                "Keep one of them: Apptainer would take the last.",
            )
        seen.setdefault(entry.key, entry)
    if "bootstrap" not in seen or not seen["bootstrap"].value:
        line = seen["bootstrap"].line if "bootstrap" in seen else 1
        yield _error(
            line, "no-bootstrap", "it is not a definition: it has no Bootstrap: line", _EXAMPLES
        )
        return
    yield from _check_agent(seen["bootstrap"])
    if seen["bootstrap"].value.lower() not in WITHOUT_FROM and not _value(seen, "from"):
        line = (seen.get("from") or seen["bootstrap"]).line
        yield _error(line, "no-from", "it names no base: it has no From: line", _EXAMPLES)


def _check_agent(entry: Entry) -> Iterator[Finding]:
    known = AGENTS | WITHOUT_FROM | {LOCAL}
    if entry.value.lower() in known or "{{" in entry.value:
        return
    message = f"Apptainer does not know Bootstrap: {entry.value}"
    hint = did_you_mean(entry.value.lower(), known) or f"Known: {', '.join(sorted(known))}."
    yield _error(entry.line, "agent", message, hint)


def _value(seen: dict[str, Entry], key: str) -> str:
    return seen[key].value if key in seen else ""


def _check_entry(entry: Entry) -> Iterator[Finding]:
    key = re.sub(r"(?<=otherurl)\d+$", "", entry.key)
    if key not in HEADERS:
        yield _error(
            entry.line,
            "header",
            f"{entry.key!r} is nothing that a header has",
            did_you_mean(key, HEADERS) or "A header's lines have the form `Key: value`.",
        )


def _check_stages(text: str) -> Iterator[Finding]:
    stages = read_stages(text)
    header = {entry.line for entry in read_header(text)}
    for line in stages[1:]:
        if line in header:
            message = f"Bootstrap: is there already, in line {stages[0]}"
            yield _error(line, "header-twice", message, "Keep one of them.")
        else:
            message = "another stage begins here, and valska builds definitions of one stage"
            hint = "Build it with `apptainer build`, and name the image with --image."
            yield _error(line, "stages", message, hint)


def _check_name(section: Section) -> Iterator[Finding]:
    if section.name.startswith("%"):
        message = f"blanks stand before {section.name}, and Apptainer refuses that"
        hint = "A section's name begins its line; nothing else may begin with %."
        yield _error(section.line, "section", message, hint)
    elif section.name not in SECTIONS:
        yield _error(
            section.line,
            "section",
            f"it has a section %{section.name}, which Apptainer does not know",
            did_you_mean(section.name, SECTIONS)
            or "Every line that begins with % begins a section, in a here-document too.",
        )
    elif section.name.startswith("app") and not section.rest:
        message = f"%{section.name} does not say of which application"
        yield _error(section.line, "section", message, f"Write %{section.name} NAME.")


def _check_arguments(sections: tuple[Section, ...]) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    lines = (line for section in sections if section.name == "arguments" for line in section.said())
    for line in lines:
        name, equals, _ = (part.strip() for part in line.text.partition("="))
        if not equals or not re.fullmatch(r"\w+", name, re.ASCII):
            message = f"{line.text.strip()!r} in %arguments is not of the form NAME=VALUE"
            yield _error(line.number, "argument-form", message, "NAME is letters, digits and _.")
        elif name in seen:
            message = f"build argument {name} is declared already, in line {seen[name]}"
            yield _error(line.number, "argument-twice", message, "Keep one of them.")
        seen.setdefault(name, line.number)


def _check_braces(text: str) -> Iterator[Finding]:
    for line in split_lines(text):
        if not line.is_comment and _OPEN.search(VARIABLE.sub("", line.text)):
            yield _error(
                line.number,
                "braces",
                f"{_shown(line)!r} opens {{{{ and does not close it",
                "Write {{ name }}: Apptainer leaves anything else as it is.",
            )


def _shown(line: Line) -> str:
    return line.text.strip()[:60]


def _error(line: int, code: str, message: str, hint: str | None) -> Finding:
    return Finding(line, "error", code, message, hint)
