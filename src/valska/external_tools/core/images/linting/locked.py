"""Whether a definition and its lock still agree."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.finding import Finding
from valska.external_tools.core.images.linting.facts import Facts
from valska.external_tools.core.images.locking.document import SUFFIX, Lock, read_lock
from valska.external_tools.core.images.sections import read_header
from valska.external_tools.core.utils import sha256_file


def check_lock(facts: Facts) -> Iterator[Finding]:
    """Find where a lock was made for another base, other requirements or another time."""
    path = facts.path.parent / (facts.values.get("lock") or f"{facts.path.stem}{SUFFIX}")
    if not path.is_file():
        return
    line = facts.declared.get("lock", 1)
    hint = f"Bring it up to date: valska lock {shlex.quote(str(facts.path))}"
    try:
        lock = read_lock(path)
    except UsageError as error:
        yield Finding(line, "error", "lock", error.message, error.hint)
        return
    for found, message in _differences(facts, path, lock):
        yield Finding(found or line, "warning", "lock", message, hint)


def _differences(facts: Facts, path: Path, lock: Lock) -> Iterator[tuple[int, str]]:
    for entry in read_header(facts.text):
        digest = entry.value.partition("@")[2]
        if entry.key == "from" and digest and lock.base_digest not in (None, digest):
            yield entry.line, f"{path.name} was made for another base"
    if lock.requirements is not None:
        source = path.with_name(lock.requirements[0])
        if source.is_file() and sha256_file(source) != lock.requirements[1]:
            yield 0, f"{source.name} has changed since {path.name} was made"
    epoch = facts.values.get("source_date_epoch", "")
    if lock.source_date_epoch is not None and epoch not in ("", str(lock.source_date_epoch)):
        number = facts.declared.get("source_date_epoch", 0)
        yield number, f"{path.name} has another source-date-epoch: {lock.source_date_epoch}"
