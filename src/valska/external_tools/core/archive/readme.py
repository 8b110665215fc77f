"""The README of an archive: how a stranger checks it and runs it with bash alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Template

from valska.external_tools.core.archive.document import ArchiveDocument, ArchiveKind, Inputs
from valska.external_tools.core.archive.places import CITATION, SUFFIX
from valska.external_tools.core.manifest import Manifest


def readme_text(
    document: ArchiveDocument, manifest: Manifest, title: str, *, citation: bool
) -> bytes:
    """Return the README of an archive in Markdown.

    Parameters
    ----------
    document
        What the archive says of itself.
    manifest
        The bundle's; of a sweep what all points share.
    title
        Of the archive.
    citation
        Whether a ``CITATION.cff`` is packed.
    """
    template = Path(__file__).with_name("archive_readme.md").read_text(encoding="utf-8")
    text = Template(template).substitute(
        title=" ".join(title.split()),
        valska_version=document.valska_version,
        what=_what(document),
        and_apptainer=", and Apptainer to run it" if document.image else "",
        suffix=SUFFIX,
        run="\n".join(_run(document, manifest)),
        table="\n".join(_table(document, citation)),
        absent="\n".join(_absent(document)),
    )
    return (text.rstrip() + "\n").encode()


def _what(document: ArchiveDocument) -> str:
    if document.kind is ArchiveKind.BUNDLE:
        return f"the run {document.run_id} of {document.tool} (bundle id `{document.bundle_id}`)"
    return f"the sweep {document.run_id} of {document.tool}"


def _run(document: ArchiveDocument, manifest: Manifest) -> Iterator[str]:
    image = document.image
    if image and image.path is None:
        yield f"The image is not packed; it must have the SHA-256 `{image.sha256}`."
        for reference in image.published:
            yield f"Get it: `apptainer pull image.sif {reference}`"
        yield "Then `export VALSKA_IMAGE=/path/to/image.sif`."
        yield ""
    if document.inputs is Inputs.NONE or document.left_out:
        yield "Put back first what is not packed: see the end."
        yield ""
    yield "    cd data/bundle"
    point = " points/LABEL" if document.kind is ArchiveKind.SWEEP else ""
    for stage in manifest.stages:
        yield f"    bash {stage.script}{point}"
    yield ""
    if point:
        yield "LABEL is a point's name. How to send all points to Slurm: `data/bundle/README.md`."
    else:
        yield "On Slurm the same with `sbatch`, chained with `--dependency=afterok:ID`."


def _table(document: ArchiveDocument, citation: bool) -> Iterator[str]:
    yield f"| `data/bundle/` | the {document.kind}, with its own README |"
    if document.image and document.image.path:
        yield f"| `{document.image.path}` | the image |"
    if any(document.references.values()):
        yield "| `data/references/` | inputs that lay outside of the bundle |"
    if citation:
        yield f"| `{CITATION}` | how to cite this |"
    yield "| `data/ro-crate-metadata.json` | what ran, with what, by whom: RO-Crate 1.1 |"
    yield "| `archive.json` | what is packed, and what is not |"
    yield "| `manifest-sha256.txt` | the SHA-256 of every file in `data/` |"


def _absent(document: ArchiveDocument) -> Iterator[str]:
    lines = [f"- `data/bundle/{one.path}`, SHA-256 `{one.sha256}`" for one in document.left_out]
    if not document.outputs:
        lines.append("- the outputs; the records in `records/` have their digests")
    lines += [
        f"- `{place}`, which lay outside of the bundle; `manifest.json` has its digest, and "
        "`VALSKA_REFERENCES` in `site.env` says where it is"
        for place, path in document.references.items()
        if path is None
    ]
    if lines:
        yield "Not packed:"
        yield ""
        yield from lines
