"""Findings about an archive, each file's once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from valska.external_tools.core.archive.contents import Contents
from valska.external_tools.core.archive.places import CRATE, DATA
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.seal import Finding, FindingKind


class Findings:
    """Collects what is wrong with an archive.

    Parameters
    ----------
    contents
        What the archive holds.
    fast
        Digests are not known, and not compared.
    more
        What is known to be wrong already.
    """

    def __init__(self, contents: Contents, fast: bool, more: Iterable[Finding] = ()) -> None:
        self.contents = contents
        self.fast = fast
        self._found: dict[tuple[str, FindingKind], Finding] = {}
        for finding in more:
            self._found.setdefault((finding.path, finding.kind), finding)

    def add(self, kind: FindingKind, path: str, detail: str = "") -> None:
        """Note what is wrong with a file; the first of a kind stays."""
        self._found.setdefault((path, kind), Finding(kind, path, detail))

    def altered(self, path: str, detail: str) -> None:
        """Note that a file is not what it should be."""
        self.add(FindingKind.ALTERED, path, detail)

    def sorted(self) -> tuple[Finding, ...]:
        """Return all findings, sorted by path."""
        return tuple(self._found[key] for key in sorted(self._found))

    def compare(
        self, name: str, sha256: str | None, size: int | None = None, what: str = ""
    ) -> bool:
        """Compare a file with what is said of it; return whether it agrees.

        Parameters
        ----------
        name
            Its path in the archive.
        sha256, size
            What is said, as far as it is.
        what
            What the file is, for a person.
        """
        entry = self.contents.file(name)
        if entry is None:
            self._absent(name, what)
            return False
        if size is not None and entry.size != size:
            self.altered(name, _joined(what, f"{entry.size} bytes, not {size}"))
            return False
        if self.fast or sha256 is None or entry.sha256 == sha256:
            return True
        got = f"sha256 {str(entry.sha256)[:12]}…, not {sha256[:12]}…"
        self.altered(name, _joined(what, got))
        return False

    def _absent(self, name: str, what: str) -> None:
        entry = self.contents.entries.get(name)
        if entry is None:
            self.add(FindingKind.MISSING, name, what)
        elif entry.kind is Kind.LINK:
            self.altered(name, f"a link to {entry.link}, which is no file in the archive")
        else:
            self.altered(name, "not a regular file")

    def compare_described(self, entity: Mapping[str, Any]) -> None:
        """Compare a file with what the crate says of it."""
        name = f"{DATA}/{unquote(str(entity.get('@id')))}"
        entry = self.contents.file(name)
        said = entity.get("contentSize"), entity.get("sha256")
        if entry is None:
            self.altered(CRATE, f"it describes {name}, which is not there")
        elif said[0] != str(entry.size) or (not self.fast and said[1] != entry.sha256):
            self.altered(CRATE, f"it describes another {name}")


def _joined(what: str, detail: str) -> str:
    return f"{what}: {detail}" if what else detail
