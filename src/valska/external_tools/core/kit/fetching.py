"""Making a kit: what is not here is fetched into the store, then all is packed into one file."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Protocol

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.images.registry.progress import advancing
from valska.external_tools.core.images.scratch import claim_directory
from valska.external_tools.core.kit.document import (
    DOCUMENT,
    SUMS,
    Kind,
    KitDocument,
    KitFile,
    sums_of,
)
from valska.external_tools.core.kit.downloading import Downloads
from valska.external_tools.core.kit.parts import KitPlan, KitRequest, Part, RemoteBase
from valska.external_tools.core.kit.supplies import Supplies, put
from valska.external_tools.core.kit.wheels import PackageFile
from valska.external_tools.core.tarring import write_end, write_member
from valska.external_tools.core.utils import fsync_directory, sha256_bytes, sha256_file


class Report(Protocol):
    """Told how far a long work is."""

    def start(self, what: str, size: int | None) -> None:
        """Begin something of so many bytes, if that is known."""

    def advance(self, count: int) -> None:
        """Count bytes more."""


class Silent:
    """Tells nobody."""

    def start(self, what: str, size: int | None) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Kit:
    """A kit that was made.

    Parameters
    ----------
    path
        The file.
    document
        What it says of itself.
    fetched
        Files that were not in the store before.
    """

    path: Path
    document: KitDocument
    fetched: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Digest of the document, which has those of all files."""
        return sha256_bytes(self.document.to_bytes())


def fetch(plan: KitPlan, output: Path, request: KitRequest, report: Report | None = None) -> Kit:
    """Fetch what is not here into the store, and pack a kit.

    Parameters
    ----------
    plan
        See `plan_kit`.
    output
        The kit; it is replaced at the end, if it is there.
    request
        That which was planned for.
    report
        Told how far it is.

    Raises
    ------
    UsageError
        If the kit's directory is not there.
    PrerequisiteError
        If something cannot be fetched. What was fetched before stays in the store.
    VerificationError
        If something does not have its digest.
    ValskaError
        If the kit cannot be written.
    """
    report = report or Silent()
    _check_output(output)
    wanting = [part for part in plan.parts if not part.is_here]
    parts = _fetch_all(plan, request, report) if wanting else plan.parts
    parts = tuple(_measured(part) for part in parts)
    document = KitDocument(
        purpose=plan.purpose.value,
        platform=plan.platform,
        targets=(plan.target.facts,),
        files=tuple(map(_entry, parts)),
    )
    _require_room(output.parent, document.size)
    _pack(document, parts, output, report)
    return Kit(output, document, tuple(part.path for part in wanting))


def _check_output(output: Path) -> None:
    if not output.parent.is_dir():
        raise UsageError(f"no such directory: {output.parent}", "Make it, or choose another.")
    if output.is_dir():
        raise PrerequisiteError(f"{output} is a directory", "Name a file with -o.")


def _fetch_all(plan: KitPlan, request: KitRequest, report: Report) -> tuple[Part, ...]:
    """Fetch what is wanting; only one process fetches for a target at a time."""
    downloads = Downloads(request.environ)
    with request.store.holding(f"fetch-{plan.target.identity}", f"fetching {plan.target.name}"):
        return tuple(_fetched(part, request, downloads, report) for part in plan.parts)


def _fetched(part: Part, request: KitRequest, downloads: Downloads, report: Report) -> Part:
    supplies = Supplies(request.store.root)
    if isinstance(part.source, RemoteBase):
        return _fetched_base(part, part.source, supplies, request.http, report)
    if isinstance(part.source, PackageFile):
        return _fetched_package(part, part.source, supplies, downloads, report)
    return part


def _fetched_base(
    part: Part, base: RemoteBase, supplies: Supplies, http: Http | None, report: Report
) -> Part:
    from valska.external_tools.core.images.registry.pulling import pull_base

    report.start(part.name, part.size)
    path = pull_base(
        base.reference,
        supplies.store.bases,
        platform=base.platform,
        http=http,
        progress=advancing(report.advance),
    )
    return replace(part, source=path)


def _fetched_package(
    part: Part, file: PackageFile, supplies: Supplies, downloads: Downloads, report: Report
) -> Part:
    place = supplies.wheel_place(file.sha256, file.name)
    if not place.is_file():
        with supplies.store.workspace() as work:
            report.start(file.name, file.size)
            try:
                downloads.get(file, work / "file", report.advance)
            except OSError as error:
                raise ValskaError(
                    f"cannot write below {supplies.root}: {error.strerror}",
                    "Check the disk's free space and permissions.",
                ) from error
            put(work / "file", place)
    return replace(part, source=place)


def _measured(part: Part) -> Part:
    """Return a part whose size and digest are known."""
    if not isinstance(part.source, Path):
        return part
    try:
        size = part.source.stat().st_size
        return replace(part, size=size, sha256=part.sha256 or sha256_file(part.source))
    except OSError as error:
        raise PrerequisiteError(f"cannot read {part.source}: {error.strerror}") from error


def _entry(part: Part) -> KitFile:
    assert part.sha256 is not None  # noqa: S101 - it was measured
    assert part.size is not None  # noqa: S101
    return KitFile(
        path=part.path, sha256=part.sha256, size=part.size, kind=part.kind, name=part.name
    )


def _require_room(directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size:
        raise ValskaError(
            f"{directory} has room for {free / 1e6:.0f} MB, and the kit has {size / 1e6:.0f} MB",
            "Free some space, or write it to another disk with -o.",
        )


def _pack(document: KitDocument, parts: tuple[Part, ...], output: Path, report: Report) -> None:
    try:
        work = claim_directory(output.absolute().parent, ".valska-fetch-")
        try:
            made = work / "kit"
            with made.open("wb") as out:
                _write(out, document, parts, report)
                out.flush()
                os.fsync(out.fileno())
            made.replace(output)
            fsync_directory(output.absolute().parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ValskaError(
            f"cannot write {output}: {error.strerror}",
            "Check the disk's free space and permissions.",
        ) from error


def _write(out: IO[bytes], document: KitDocument, parts: tuple[Part, ...], report: Report) -> None:
    data = document.to_bytes()
    report.start("packing", document.size)
    for name, text in ((DOCUMENT, data), (SUMS, sums_of(data, document.files))):
        write_member(out, name, len(text), BytesIO(text))
    for part, entry in zip(parts, document.files, strict=True):
        with _opened(part) as content:
            digest = write_member(out, part.path, entry.size, content, report.advance)
        if digest != entry.sha256:
            raise _altered(part)
    write_end(out)


def _opened(part: Part) -> IO[bytes]:
    assert isinstance(part.source, (Path, bytes))  # noqa: S101 - all was fetched
    return part.source.open("rb") if isinstance(part.source, Path) else BytesIO(part.source)


def _altered(part: Part) -> VerificationError:
    hints = {
        Kind.INPUT: "Restore it, or bundle again with what it is now.",
        Kind.IMAGE: "Remove it and its record, and build it again.",
    }
    return VerificationError(
        f"{part.source if isinstance(part.source, Path) else part.name} has been altered: it does "
        "not have the digest by which it is known",
        hints.get(part.kind, "Remove it; it is fetched anew."),
    )
