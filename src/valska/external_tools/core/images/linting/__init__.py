"""Findings about a definition before it is built: all at once, with line numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.linting.downloads import check_downloads
from valska.external_tools.core.images.linting.excuses import apply_excuses
from valska.external_tools.core.images.linting.facts import Facts, check_facts
from valska.external_tools.core.images.linting.locked import check_lock
from valska.external_tools.core.images.linting.python_packages import check_python_packages
from valska.external_tools.core.images.linting.script import Script, build_scripts
from valska.external_tools.core.images.linting.sources import check_sources
from valska.external_tools.core.images.linting.system_packages import check_system_packages
from valska.external_tools.core.images.sections import VARIABLE, Section, read_sections
from valska.external_tools.core.images.syntax import SYNTAX_CODES, check_syntax
from valska.external_tools.core.tool import read_file

__all__ = ["CODES", "Finding", "lint"]

CODES = {
    "base-tag": "The base is not named by its digest.",
    "base-both": "The base is named by tag and digest; some versions of Apptainer refuse that.",
    "base-local": "The base is a file of this machine.",
    "base-packages": "The base is made from whatever packages are newest.",
    "base-labels": "The labels tell of another base than the one in the header.",
    "labels": "An OCI label is missing.",
    "test": "There is no `%test`.",
    "files": "A file that `%files` copies in is not there.",
    "files-mode": "A file comes into the image with the mode that it has on this machine.",
    "lock": "The lock is of another base, other requirements or another time.",
    "argument-undeclared": "A build argument is used and not declared in `%arguments`.",
    "argument-unused": "A build argument is declared and not used.",
    "argument-unknown": "A build argument is given that the definition does not have.",
    "pip-hashes": "pip or uv installs from a list, and does not check a hash of everything.",
    "pip-name": "pip or uv installs by name, or what something depends on.",
    "conda": "conda, mamba or micromamba installs otherwise than from an explicit list.",
    "packages": "apt, apk, dnf or the like installs without an exact version.",
    "fetch-unchecked": "Something is downloaded and not compared with a checksum or a commit.",
    "fetch-python": "Python code downloads something and seems not to check it.",
    "fetch-other": "Another program takes something from elsewhere.",
    "excuse": "A comment that allows a finding has no reason, an unknown code, or no use.",
}
"""What is found, by its code. Errors of form have codes of their own and cannot be allowed."""

_SCRIPT_CHECKS = (check_downloads, check_sources, check_python_packages, check_system_packages)


def lint(path: Path, arguments: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Return what keeps the image of a definition from being made again, sorted by line.

    Parameters
    ----------
    path
        The definition.
    arguments
        Build arguments as they will be given.

    Raises
    ------
    UsageError
        If there is no such file, or it cannot be read.
    """
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return (Finding(line, "error", "text", "this is not text in UTF-8"),)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        return (Finding(line, "error", "text", "this is not text"),)
    facts = _facts(path, text, arguments or {})
    scripts = build_scripts(facts.sections, path.parent)
    found = [*check_syntax(text), *check_facts(facts), *check_lock(facts)]
    for script in scripts:
        found.extend(finding for check in _SCRIPT_CHECKS for finding in check(script))
    codes = frozenset(CODES) - {"excuse"} - SYNTAX_CODES
    kept = apply_excuses(text, found, codes, _ends(scripts))
    return tuple(sorted(set(kept), key=lambda finding: (finding.line, finding.code)))


def _facts(path: Path, text: str, given: Mapping[str, str]) -> Facts:
    declared, values = _declared(read_sections(text))
    values.update(given)
    filled = VARIABLE.sub(lambda m: values.get(m[1], m[0]) + "\n" * m[0].count("\n"), text)
    return Facts(path, text, filled, read_sections(filled), declared, given, values)


def _declared(sections: tuple[Section, ...]) -> tuple[dict[str, int], dict[str, str]]:
    """Return the build arguments: name to line, and name to default."""
    lines: dict[str, int] = {}
    values: dict[str, str] = {}
    for section in sections:
        for line in section.said() if section.name == "arguments" else ():
            name, equals, value = line.text.partition("=")
            if equals:
                lines.setdefault(name.strip(), line.number)
                values[name.strip()] = value.strip()
    return lines, values


def _ends(scripts: tuple[Script, ...]) -> dict[int, int]:
    """Return where commands end that go over several lines."""
    commands = (command for script in scripts for command in script.commands)
    return {command.line: command.last for command in commands if command.last > command.line}
