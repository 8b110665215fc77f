"""``valska image list``: the images in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from valska.cli.image_options import images_option, open_store, size_text
from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore


@click.command("list")
@click.argument("name", required=False)
@images_option
@json_option
def command(name: str | None, images: Path | None, as_json: bool) -> None:
    """List the images in the store, the newest first.

    With NAME only those of the definition of that name.
    """
    store, _ = open_store(images)
    found = [record for record in store.list() if name in (None, record.name)]
    if as_json:
        result_json([_as_json(store, record) for record in found])
    elif found:
        result(table([_row(record) for record in found], ("image", "name", "made", "size")))
    else:
        note(f"There is no such image in {plain(store.root)}.")


def _row(record: ImageRecord) -> tuple[str, ...]:
    return (
        record.sha256[:12],
        plain(record.name),
        f"{record.created_utc[:10]} {record.origin}",
        size_text(record.size),
    )


def _as_json(store: ImageStore, record: ImageRecord) -> dict[str, Any]:
    return {
        "sha256": record.sha256,
        "name": record.name,
        "size": record.size,
        "created_utc": record.created_utc,
        "origin": record.origin,
        "path": store.sif(record.sha256),
    }
