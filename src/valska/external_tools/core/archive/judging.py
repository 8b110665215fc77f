"""Whether what an archive holds agrees with itself: bag, seals, records, image, crate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from valska.external_tools.core.archive import bag, places
from valska.external_tools.core.archive.contents import Contents
from valska.external_tools.core.archive.document import (
    ArchiveDocument,
    ArchiveKind,
    parse_document,
)
from valska.external_tools.core.archive.findings import Findings
from valska.external_tools.core.archive.running import Judged, judge_bundle, judge_sweep
from valska.external_tools.core.archive.tar import Kind
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.seal import Finding, FindingKind


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found.

    Parameters
    ----------
    findings
        Sorted by path; empty if all agrees.
    document
        What the archive says of itself; None if that cannot be read.
    units
        How many bundles, points and shared work were looked at.
    outputs
        Stage to the number of outputs that were compared with a record.
    """

    findings: tuple[Finding, ...]
    document: ArchiveDocument | None = None
    units: int = 0
    outputs: Mapping[str, int] = field(default_factory=dict)


def judge_contents(
    contents: Contents, *, fast: bool = False, more: Iterable[Finding] = ()
) -> Judgement:
    """Compare everything in an archive with everything that is said of it.

    Parameters
    ----------
    contents
        What was read; digests are None in what was read fast.
    fast
        Compare presence and sizes only, not content.
    more
        What was found while reading.
    """
    found = Findings(contents, fast, more)
    document = _document(found)
    _check_tags(found)
    _check_payload(found)
    judged = Judged()
    if document is not None:
        judge = judge_bundle if document.kind is ArchiveKind.BUNDLE else judge_sweep
        judged = judge(found, document)
        _check_image(found, document)
    _check_crate(found)
    return Judgement(found.sorted(), document, judged.units, dict(judged.outputs))


def worth_telling(findings: Iterable[Finding], archive: str) -> tuple[Finding, ...]:
    """Leave out what is missing only because the archive could not be read to its end.

    Parameters
    ----------
    findings
        See `Judgement`.
    archive
        The file's name.
    """
    found = tuple(findings)
    broken = any(one.kind is FindingKind.UNREADABLE and one.path == archive for one in found)
    return tuple(one for one in found if not broken or one.kind is not FindingKind.MISSING)


def _check_tags(found: Findings) -> None:
    documents = found.contents.documents
    missing = [name for name in (*places.TAGS, places.TAG_MANIFEST) if name not in documents]
    for name in missing:
        found.add(FindingKind.MISSING, name)
    if documents.get(places.BAGIT, bag.DECLARATION) != bag.DECLARATION:
        found.altered(places.BAGIT, "it does not declare a bag of version 1.0 in UTF-8")
    listed = _manifest(found, places.TAG_MANIFEST)
    if listed is None:
        return
    for name in places.TAGS:
        if name not in listed:
            found.altered(places.TAG_MANIFEST, f"{name} is not in it")
    for name, digest in listed.items():
        found.compare(name, digest)


def _check_payload(found: Findings) -> None:
    listed = _manifest(found, places.MANIFEST)
    if listed is None:
        return
    for name, digest in listed.items():
        if bag.is_payload(name):
            found.compare(name, digest)
        else:
            found.altered(places.MANIFEST, f"{name} is not of the payload")
    known = {*listed, *places.TAGS, places.TAG_MANIFEST}
    for name, entry in found.contents.entries.items():
        if entry.kind is Kind.DIRECTORY:
            if name != places.DATA and not bag.is_payload(name):
                found.add(FindingKind.UNEXPECTED, name, "a directory beside the payload")
        elif name not in known:
            found.add(FindingKind.UNEXPECTED, name, f"{places.MANIFEST} does not name it")
    _check_oxum(found)


def _check_oxum(found: Findings) -> None:
    info = found.contents.documents.get(places.BAG_INFO)
    if info is None:
        return
    sizes = [entry.size for name, entry in found.contents.files() if bag.is_payload(name)]
    oxum = bag.payload_oxum(sizes)
    if (said := bag.said_oxum(info)) != oxum:
        found.altered(places.BAG_INFO, f"Payload-Oxum is {said}, the payload's is {oxum}")


def _manifest(found: Findings, name: str) -> dict[str, str] | None:
    data = found.contents.documents.get(name)
    if data is None:
        return None
    try:
        return bag.parse_manifest(data)
    except bag.BagError as error:
        found.altered(name, str(error))
        return None


def _document(found: Findings) -> ArchiveDocument | None:
    data = found.contents.documents.get(places.DOCUMENT)
    if data is None:
        return None
    try:
        return parse_document(data)
    except VerificationError as error:
        found.altered(places.DOCUMENT, error.message)
        return None


def _check_image(found: Findings, document: ArchiveDocument) -> None:
    image = document.image
    if image is None or image.path is None:
        return
    found.compare(image.path, image.sha256, image.size, "the image")


def _check_crate(found: Findings) -> None:
    """Compare the sizes and digests in the crate with those of the files."""
    if places.CRATE not in found.contents.documents:
        if places.CRATE not in found.contents.entries:
            found.add(FindingKind.MISSING, places.CRATE)
        return
    try:
        graph = found.contents.json(places.CRATE).get("@graph")
    except VerificationError as error:
        found.altered(places.CRATE, error.message)
        return
    if not isinstance(graph, list) or not all(isinstance(one, dict) for one in graph):
        found.altered(places.CRATE, "it has no list of entities")
        return
    for entity in graph:
        kinds = entity.get("@type")
        if "File" in (kinds if isinstance(kinds, list) else [kinds]):
            found.compare_described(entity)
