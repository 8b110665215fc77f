"""The scripts that a build runs, and the files that they find there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from valska.external_tools.core.images.linting.shell import Command, read_script
from valska.external_tools.core.images.sections import Section

BUILD_SECTIONS = ("pre", "setup", "post", "appinstall")


@dataclass(frozen=True, slots=True)
class Script:
    """A script that runs while an image is built.

    Parameters
    ----------
    commands
        What it runs, in its order.
    copied
        Path in the image to file on the host, for what ``%files`` copies.
    """

    commands: tuple[Command, ...]
    copied: Mapping[str, Path]

    def source(self, name: str) -> Path | None:
        """Return the file on the host that is in the image under a name, or None."""
        if name in self.copied:
            return self.copied[name]
        same = [p for n, p in self.copied.items() if basename(n) == basename(name)]
        return same[0] if same and not name.startswith("$") else None

    def content(self, name: str) -> str | None:
        """Return the text of a file that came by ``%files``, or None."""
        path = self.source(name)
        try:
            return path.read_text("utf-8", "replace") if path else None
        except OSError:
            return None

    def statement(self, number: int) -> tuple[Command, ...]:
        """Return the commands of a statement."""
        return tuple(command for command in self.commands if command.statement == number)


def build_scripts(sections: tuple[Section, ...], directory: Path) -> tuple[Script, ...]:
    """Return the scripts of a definition, each with what is copied into the image."""
    copied = dict(_copied(sections, directory))
    scripts = (section for section in sections if section.name in BUILD_SECTIONS)
    return tuple(Script(_commands(section), copied) for section in scripts)


def _commands(section: Section) -> tuple[Command, ...]:
    """Return the commands of a section; ``%post -c /bin/python3`` is one of Python alone."""
    words = section.rest.split()
    if words[:1] == ["-c"] and any("python" in word for word in words[1:2]):
        line = section.line
        return (Command(("python3",), line, line, 0, input=section.lines),)
    return read_script(section.lines)


def basename(name: str) -> str:
    """Return the last part of a path or of an address."""
    return name.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2]


def copied_lines(sections: tuple[Section, ...]) -> Iterator[tuple[int, str, str]]:
    """Return line, source and destination of all that ``%files`` copies from the host."""
    for section in sections:
        for line in section.said() if section.name == "files" and not section.rest else ():
            try:
                source, destination = (shlex.split(line.text) * 2)[:2]
            except ValueError:
                continue
            yield line.number, source, destination


def _copied(sections: tuple[Section, ...], directory: Path) -> Iterator[tuple[str, Path]]:
    for _, source, destination in copied_lines(sections):
        path = directory / source
        if destination.endswith("/") or path.is_dir():
            yield f"{destination.rstrip('/')}/{PurePosixPath(source).name}", path
        yield destination, path
