"""What a definition says of its base, itself and its build arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.linting.script import copied_lines
from valska.external_tools.core.images.sections import (
    VARIABLE,
    Section,
    read_header,
    split_lines,
)
from valska.external_tools.core.suggest import did_you_mean

OCI = "org.opencontainers.image."
LABELS = ("title", "description", "source", "version", "licenses")

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOCAL = frozenset(("localimage", "docker-archive", "docker-daemon", "oci", "oci-archive"))
_FROM_PACKAGES = frozenset(("debootstrap", "yum", "dnf", "zypper", "arch", "busybox", "shub"))


@dataclass(frozen=True, slots=True)
class Facts:
    """A definition with its build arguments filled in.

    Parameters
    ----------
    path
        Its file.
    raw
        Its text as it is.
    text
        With the build arguments' values.
    sections
        Of that text.
    declared
        Build arguments in ``%arguments``: name to number of the line.
    given
        Build arguments as they will be given.
    values
        All of them, with their values.
    """

    path: Path
    raw: str
    text: str
    sections: tuple[Section, ...]
    declared: Mapping[str, int]
    given: Mapping[str, str]
    values: Mapping[str, str]

    def named(self, name: str) -> list[Section]:
        """Return the sections of a name."""
        return [section for section in self.sections if section.name == name]


def check_facts(facts: Facts) -> Iterator[Finding]:
    """Find what is missing or does not agree outside of the scripts."""
    yield from _check_base(facts)
    yield from _check_labels(facts)
    yield from _check_test(facts)
    yield from _check_declared(facts)
    yield from _check_files(facts)
    yield from _check_modes(facts)


def _header(facts: Facts) -> dict[str, tuple[int, str]]:
    return {entry.key: (entry.line, entry.value) for entry in read_header(facts.text)}


def _check_base(facts: Facts) -> Iterator[Finding]:
    header = _header(facts)
    start, agent = header.get("bootstrap", (1, ""))
    line, base = header.get("from", (start, ""))
    agent = agent.lower()
    if agent in ("docker", "oras") and base:
        yield from _check_pin(facts.path, line, base)
    elif agent == "library" and not re.search(r"sha256\.[0-9a-f]{64}$", base):
        hint = "Name it by its digest: FROM:sha256.<64 digits>."
        yield _error(line, "base-tag", f"the base {base} is named by a tag, which can move", hint)
    elif agent in _LOCAL:
        message = f"the base is {base}, which is on this machine alone"
        hint = "Name one in a registry, by its digest, and build on yours with --base."
        yield Finding(line, "warning", "base-local", message, hint)
    elif agent in _FROM_PACKAGES:
        message = f"a base made by {agent} has whatever is newest"
        yield _error(start, "base-packages", message, "Take a base from a registry, by its digest.")


def _check_pin(path: Path, line: int, base: str) -> Iterator[Finding]:
    name, at, digest = base.partition("@")
    command = f"valska lock {shlex.quote(str(path))}"
    if not at:
        message = f"the base {base} is named by a tag, which can move"
        yield _error(line, "base-tag", message, f"Pin it by its digest: {command}")
    elif not _DIGEST.fullmatch(digest):
        message = f"{digest} is not a digest"
        yield _error(line, "base-tag", message, "A digest is sha256: and 64 digits.")
    elif ":" in name.rpartition("/")[2]:
        message = "some versions of Apptainer refuse a base with a tag and a digest"
        hint = f"Keep the digest here, and the tag in the label {OCI}base.name."
        yield Finding(line, "warning", "base-both", message, hint)


def _labels(facts: Facts) -> dict[str, tuple[int, str]]:
    found = {}
    for section in facts.named("labels"):
        for line in section.said():
            key, _, value = line.text.strip().partition(" ")
            found[key] = (line.number, value.strip())
    return found


def _check_labels(facts: Facts) -> Iterator[Finding]:
    labels, header = _labels(facts), _header(facts)
    sections = facts.named("labels")
    line = sections[0].line if sections else 1
    base = header.get("from", (0, ""))[1]
    pinned = "@" in base
    wanted = [*LABELS, *(("base.name", "base.digest") if pinned else ())]
    missing = [OCI + name for name in wanted if not labels.get(OCI + name, (0, ""))[1]]
    if missing:
        where = "%labels" if sections else "it has no %labels, which"
        message = f"{where} should say {', '.join(missing)}"
        yield _error(line, "labels", message, f"Write lines as: {missing[0]} VALUE")
    if pinned:
        yield from _compare_base(labels, base)


def _compare_base(labels: Mapping[str, tuple[int, str]], base: str) -> Iterator[Finding]:
    name, _, digest = base.partition("@")
    line, said = labels.get(f"{OCI}base.digest", (0, ""))
    if said and said != digest:
        message = f"the label {OCI}base.digest is not the digest that From: names"
        yield _error(line, "base-labels", message, f"Write {digest}, or run `valska lock`.")
    line, said = labels.get(f"{OCI}base.name", (0, ""))
    if said and _repository(said) != _repository(name):
        message = f"the label {OCI}base.name is {said}, and From: is of {_repository(name)}"
        yield _error(line, "base-labels", message, "Let both name the same repository.")


def _repository(reference: str) -> str:
    """Return host and repository, as Docker fills them in, without tag and digest."""
    name = reference.removeprefix("docker://").removeprefix("oras://").removeprefix("//")
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost"):
        first, rest = "docker.io", name
    if first in ("docker.io", "index.docker.io"):
        first, rest = "docker.io", rest if "/" in rest else f"library/{rest}"
    return f"{first}/{rest}".lower()


def _check_test(facts: Facts) -> Iterator[Finding]:
    if not any(section.said() for section in facts.named("test")):
        sections = facts.named("test")
        message = "it has no %test that would show that the image works"
        hint = "Write %test: Apptainer runs it at the end of the build."
        yield _error(sections[0].line if sections else 1, "test", message, hint)


def _check_declared(facts: Facts) -> Iterator[Finding]:
    used = _used(facts.raw)
    for name, number in used.items():
        if name not in facts.declared:
            message = f"build argument {name} is not declared in %arguments"
            hint = did_you_mean(name, facts.declared) or f"Give it a default there: {name}=VALUE."
            yield _error(number, "argument-undeclared", message, hint)
    for name, number in facts.declared.items():
        if name not in used:
            message = f"build argument {name} is declared and not used"
            near = did_you_mean(name, used.keys() - facts.declared.keys())
            hint = near or f"Remove it, or write {{{{ {name} }}}} where it belongs."
            yield Finding(number, "warning", "argument-unused", message, hint)
    first = min(facts.declared.values(), default=1)
    for name in facts.given:
        if name not in facts.declared and name not in used:
            message = f"it has no build argument {name!r}"
            yield _error(first, "argument-unknown", message, did_you_mean(name, facts.declared))


def _used(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in split_lines(text):
        for name in () if line.is_comment else VARIABLE.findall(line.text):
            found.setdefault(name, line.number)
    return found


def _check_files(facts: Facts) -> Iterator[Finding]:
    for number, source, _ in copied_lines(facts.sections):
        if set(source) & set("*?[") or VARIABLE.search(source):
            continue
        if not (facts.path.parent / source).exists():
            lock = source.endswith(".lock")
            command = f"valska lock {shlex.quote(str(facts.path))}"
            hint = f"Make it: {command}" if lock else "It is looked for beside the definition."
            message = f"{source}, which %files copies in, is not there"
            yield _error(number, "files", message, hint)


def _check_modes(facts: Facts) -> Iterator[Finding]:
    """Find what a build does not copy by itself, and so leaves to Apptainer with its mode."""
    on_host = next((name for name in ("setup", "pre") if facts.named(name)), None)
    for number, source, _ in copied_lines(facts.sections):
        below = dropwhile(lambda part: part == "..", Path(source).parts)
        if Path(source).is_absolute():
            why = "it is named by its whole path"
        elif on_host:
            why = f"there is a %{on_host}"
        elif ".." in below:
            why = "its path goes down and up again"
        else:
            continue
        message = f"{source} is copied with the mode that it has on this machine: {why}"
        hint = "Put it beside the definition, or set its mode in %post."
        yield Finding(number, "warning", "files-mode", message, hint)


def _error(line: int, code: str, message: str, hint: str | None) -> Finding:
    return Finding(line, "error", code, message, hint)
