"""The lock of a definition: hashed requirements that pip reads, below a header in comments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.tool import read_file

SUFFIX = ".lock"

_TITLE = re.compile(r"# Locked by valska (?P<version>\S+): (?P<command>.+)")
_FIELD = re.compile(r"# (?P<key>[a-z][a-z-]*): (?P<value>\S.*?)\s*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REQUIREMENTS = re.compile(r"(?P<name>\S.*) sha256:(?P<sha256>[0-9a-f]{64})")


class LockError(UsageError):
    """A lock cannot be read, or says what no lock says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a lock says. A field is None where the file does not have it.

    Parameters
    ----------
    version
        Of the valska that wrote it.
    command
        That writes it anew.
    base
        Name of the base, with its tag: what `--upgrade` resolves.
    base_digest
        Digest of the base, ``sha256:<digits>``.
    platform
        As OCI writes it: ``linux/amd64``.
    python
        Version that the requirements are for: ``3.11``.
    source_date_epoch
        Seconds since 1970; no file of the image is newer.
    requirements
        Name and SHA-256 of the file that the pins are made from.
    resolver
        Program that made the pins, with its version.
    pins_sha256
        Digest of the pins as they were made: tells whether they have been edited since.
    pins
        Requirements with hashes, as pip reads them; empty where an image has none.
    """

    version: str | None = None
    command: str | None = None
    base: str | None = None
    base_digest: str | None = None
    platform: str | None = None
    python: str | None = None
    source_date_epoch: int | None = None
    requirements: tuple[str, str] | None = None
    resolver: str | None = None
    pins_sha256: str | None = None
    pins: str = ""

    @property
    def header(self) -> dict[str, str]:
        """The fields of the header, as written, in their order."""
        values = {
            "base": self.base,
            "base-digest": self.base_digest,
            "platform": self.platform,
            "python": self.python,
            "source-date-epoch": self.source_date_epoch,
            "requirements": " sha256:".join(self.requirements) if self.requirements else None,
            "resolver": self.resolver,
            "pins": f"sha256:{self.pins_sha256}" if self.pins_sha256 else None,
        }
        return {key: str(value) for key, value in values.items() if value is not None}

    def to_text(self) -> str:
        """Return the text of the file."""
        lines = [f"# {key}: {value}" for key, value in self.header.items()]
        if self.version and self.command:
            lines.insert(0, f"# Locked by valska {self.version}: {self.command}")
        return "\n".join([*lines, self.pins])


def read_lock(path: Path) -> Lock:
    """Read a lock. A file of requirements without our header is one whose fields are None.

    Raises
    ------
    UsageError
        If it cannot be read.
    LockError
        If it is not text, or a field of its header has no meaning.
    """
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError as error:
        raise LockError(f"{path} is not text in UTF-8") from error
    return parse_lock(text, path.name)


def parse_lock(text: str, name: str) -> Lock:
    """Read the text of a lock; `name` is for messages.

    Raises
    ------
    LockError
        If a field of its header has no meaning.
    """
    lines = text.splitlines(keepends=True)
    title = _TITLE.fullmatch(lines[0].rstrip("\n")) if lines else None
    if title is None:
        return Lock(pins=text)
    fields: dict[str, str] = {}
    end = 1
    while end < len(lines) and (match := _FIELD.fullmatch(lines[end].rstrip("\n"))):
        fields[match["key"]] = match["value"]
        end += 1
    return Lock(
        version=title["version"],
        command=title["command"],
        base=fields.get("base"),
        base_digest=_digest(fields, "base-digest", name),
        platform=fields.get("platform"),
        python=fields.get("python"),
        source_date_epoch=_epoch(fields, name),
        requirements=_requirements(fields, name),
        resolver=fields.get("resolver"),
        pins_sha256=(_digest(fields, "pins", name) or "").removeprefix("sha256:") or None,
        pins="".join(lines[end:]),
    )


def _digest(fields: Mapping[str, str], key: str, name: str) -> str | None:
    value = fields.get(key)
    if value is not None and not _DIGEST.fullmatch(value):
        raise _refused(name, key, value, "sha256:<64 digits>")
    return value


def _epoch(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get("source-date-epoch")
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,11}", value):
        raise _refused(name, "source-date-epoch", value, "seconds since 1970")
    return int(value)


def _requirements(fields: Mapping[str, str], name: str) -> tuple[str, str] | None:
    value = fields.get("requirements")
    if value is None:
        return None
    match = _REQUIREMENTS.fullmatch(value)
    if match is None:
        raise _refused(name, "requirements", value, "a file's name and sha256:<64 digits>")
    return match["name"], match["sha256"]


def _refused(name: str, key: str, value: str, form: str) -> LockError:
    return LockError(
        f"{name} says {key}: {value}, which is not of the form {form}",
        "Write it anew with `valska lock`, or take the last one that was committed.",
    )
