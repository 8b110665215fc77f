"""``valska image export``: images, with all that is known of them, out of the store."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.image_options import images_option, open_store, stored_record
from valska.cli.options import dry_run_option, json_option, require_parent
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.quantities import bytes_text
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store.exporting import export_images, refuse_taken


@click.command("export")
@click.argument("image", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory to make; a tar file, if the name ends in .tar.",
)
@images_option
@dry_run_option
@json_option
def command(
    image: tuple[str, ...], output: Path, images: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Copy every IMAGE, with its record, definition, lock and SBOM, out of the store.

    What is made has a SHA256SUMS, and is a store of its own: `valska image import` takes it, and
    VALSKA_IMAGES may name the directory.
    """
    store, _ = open_store(images)
    records = [stored_record(one, store) for one in dict.fromkeys(image)]
    refuse_taken(output)
    if output.suffix == ".tar":
        require_parent(output)
    if not dry_run:
        export_images(store, records, output)
    _print(records, output, dry_run, as_json)


def _print(records: list[ImageRecord], output: Path, dry_run: bool, as_json: bool) -> None:
    if as_json:
        digests = [record.sha256 for record in records]
        result_json({"dry_run": dry_run, "output": output.absolute(), "images": digests})
        return
    rows = [(one.sha256[:12], plain(one.name), bytes_text(one.size)) for one in records]
    if dry_run:
        result(table(rows))
        note("Nothing was written.")
    else:
        result(str(output))
