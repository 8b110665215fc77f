"""``valska archive``: one file of a bundle or a sweep."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.image_options import images_option, open_store
from valska.cli.options import dry_run_option, json_option, require_parent
from valska.cli.output import note, result, result_json
from valska.cli.places import RUN
from valska.cli.quantities import bytes_text, count_text
from valska.cli.transfer import Transfer
from valska.external_tools.core.errors import UsageError

if TYPE_CHECKING:
    from valska.external_tools.core.archive.contents import Amount
    from valska.external_tools.core.archive.people import Description
    from valska.external_tools.core.archive.selection import Selection

_PLACE = re.compile(r".+:[1-9][0-9]*", re.DOTALL)
_OTHER_FORMATS = (
    *(".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tlz", ".gz", ".bz2", ".xz", ".lz", ".lzma"),
    *(".lz4", ".br", ".zip", ".7z", ".rar", ".sif", ".iso"),
)


def _check_place(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    for place in value:
        if not _PLACE.fullmatch(place):
            raise UsageError(
                f"--allow-secret {place!r} is not a file and a line",
                "Write FILE:LINE as `valska archive` names it, such as config/run.yaml:3.",
            )
    return value


@click.command("archive")
@click.argument("path", type=RUN)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The archive.  [NAME.tar.zst here, for the directory NAME]",
)
@click.option(
    "--with-image/--without-image",
    "image",
    default=None,
    help="Pack the image, or not.  [pack it if it is in no registry]",
)
@click.option("--without-outputs", is_flag=True, help="Leave the outputs out.")
@click.option(
    "--inputs",
    type=click.Choice(["all", "copied", "none"]),
    default="all",
    show_default=True,
    help="Pack all inputs, only those in the bundle, or none.",
)
@click.option("--title", metavar="TEXT", help="Title of the archive.")
@click.option(
    "--author",
    "authors",
    multiple=True,
    metavar="'NAME <ORCID>, AFFILIATION'",
    help="Who made it; ORCID and affiliation can be left out. Repeatable.",
)
@click.option("--license", "license_", metavar="SPDX", help="Licence, such as CC-BY-4.0, or a URL.")
@click.option("--publisher", metavar="NAME", help="Who publishes it, such as a repository.")
@click.option(
    "--citation",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A CITATION.cff, packed as it is: title, authors, licence and DOI are taken from it.",
)
@click.option(
    "--allow-secret",
    "allowed",
    multiple=True,
    metavar="FILE:LINE",
    callback=_check_place,
    help="Pack this line though it looks like a secret. Repeatable.",
)
@images_option
@dry_run_option
@json_option
def command(
    path: Path,
    output: Path | None,
    image: bool | None,
    without_outputs: bool,
    inputs: str,
    title: str | None,
    authors: tuple[str, ...],
    license_: str | None,
    publisher: str | None,
    citation: Path | None,
    allowed: tuple[str, ...],
    images: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Pack a bundle, a sweep or a point of one into one file that can be checked and run anywhere.

    The same bundle gives the same bytes. Everything is compared with its seal and the jobs'
    records on the way; what is not as it was made is not packed. What looks like a secret stops
    it.
    """
    from valska.external_tools.core.archive.document import Inputs
    from valska.external_tools.core.archive.selection import Choice
    from valska.external_tools.core.archive.source import (
        ImageFinder,
        archive_name,
        select,
        unfinished,
    )
    from valska.external_tools.core.archive.writing import write_archive
    from valska.external_tools.core.run_directory import refuse_inside

    if output is not None:
        _check_name(output)
        require_parent(output)
    description = _description(title, authors, license_, publisher, citation)
    store, _ = open_store(images)
    finder = ImageFinder(path, store)
    choice = Choice(
        image=image, inputs=Inputs(inputs), outputs=not without_outputs, find_image=finder
    )
    selection = select(path, choice)
    if images is not None and selection.document.image is None:
        raise UsageError("--images is of no use: the run has no image", "Leave it out.")
    file = output or Path(archive_name(path))
    refuse_inside(file)
    if dry_run:
        from valska.external_tools.core.archive.amounts import amount_to_write

        amount = amount_to_write(selection, description, allowed)
        _plan(selection, file, amount, unfinished(path, selection), as_json)
        return
    with Transfer("Packing") as transfer:
        written = write_archive(
            selection, file, description, allowed_secrets=allowed, progress=transfer.reach
        )
    undone = unfinished(path, selection)
    facts: dict[str, Any] = {"archive": file.absolute(), "size": written.size}
    facts |= {**_counted(written.amount), "unfinished": undone}
    if as_json:
        result_json({**facts, "document": asdict(written.document)})
        return
    result(str(file.absolute()))
    note(f"{_amount_text(written.amount)}, in {bytes_text(written.size)}.")
    _tell_absent(selection)
    _tell_unfinished(undone)


def _description(
    title: str | None,
    authors: tuple[str, ...],
    license_: str | None,
    publisher: str | None,
    citation: Path | None,
) -> Description:
    from valska.external_tools.core.archive.people import (
        Description,
        check_license,
        merged,
        parse_author,
        parse_organisation,
        read_citation,
    )

    asked = Description(
        title=title or "",
        authors=tuple(map(parse_author, authors)),
        license=check_license(license_) if license_ else None,
        publisher=parse_organisation(publisher) if publisher else None,
    )
    return merged(read_citation(citation), asked) if citation else asked


def _check_name(output: Path) -> None:
    """Refuse a name that says something else than what is written."""
    if output.name == "-":
        raise UsageError(
            "an archive is not written to stdout: it is there whole, or not at all",
            "Name a file: -o NAME.tar.zst.",
        )
    if output.name.lower().endswith(_OTHER_FORMATS):
        raise UsageError(
            f"{output} is named as another kind of file: an archive is a tar file, compressed "
            "with Zstandard",
            "Name it NAME.tar.zst.",
        )


def _counted(amount: Amount) -> dict[str, int]:
    return {"files": amount.files, "unpacked_size": amount.bytes}


def _amount_text(amount: Amount) -> str:
    return f"{count_text(amount.files, 'file')}, {bytes_text(amount.bytes)}"


def _plan(
    selection: Selection,
    file: Path,
    amount: Amount,
    undone: Mapping[str, Mapping[str, int]],
    as_json: bool,
) -> None:
    if as_json:
        facts: dict[str, Any] = {"archive": file.absolute(), **_counted(amount)}
        facts["dry_run"] = True
        facts["unfinished"] = undone
        result_json({**facts, "document": asdict(selection.document)})
        return
    result(f"Would pack {_amount_text(amount)}, into {file.absolute()}.")
    _tell_absent(selection)
    _tell_unfinished(undone)
    if os.path.lexists(file):
        note(f"{file} exists already: choose another name with -o, or remove it.")


def _tell_unfinished(undone: Mapping[str, Mapping[str, int]]) -> None:
    parts = [
        f"{stage} {state}" + (f" ({count} times)" if count > 1 else "")
        for stage, states in undone.items()
        for state, count in states.items()
    ]
    if parts:
        note(f"Not completed: {', '.join(parts)}. A reproduction cannot be compared with that.")


def _tell_absent(selection: Selection) -> None:
    document = selection.document
    if document.image and document.image.path is None:
        where = ", ".join(document.image.published) or "no registry that is known"
        note(f"Without the image; it is in {where}.")
    if not document.outputs:
        note("Without the outputs.")
    absent = [place for place, packed in document.references.items() if packed is None]
    absent += [one.path for one in document.left_out if one.role == "input"]
    if absent:
        note(f"Without {len(absent)} inputs: {', '.join(absent[:5])}.")
