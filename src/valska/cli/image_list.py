"""``valska image list``: the images in the store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from valska.cli.image_options import images_option, open_store
from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.quantities import bytes_text
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.uses import read_uses

_HEADER = ("image", "name", "made", "bundles", "size")


@click.command("list")
@click.argument("name", required=False)
@images_option
@json_option
def command(name: str | None, images: Path | None, as_json: bool) -> None:
    """List the images in the store, the newest first.

    With NAME only those of the definition of that name. The column "bundles" counts the bundles
    and sweeps that were made with an image on this store and still lie where they were made.
    """
    store, _ = open_store(images)
    found = [record for record in store.list() if name in (None, record.name)]
    bundles = _bundles(store)
    if as_json:
        result_json([_as_json(store, record, bundles[record.sha256]) for record in found])
    elif found:
        result(table([_row(record, bundles[record.sha256]) for record in found], _HEADER))
    else:
        which = f"image of {plain(name)}" if name else "image"
        note(f"There is no {which} in {plain(store.root)}.")


def _bundles(store: ImageStore) -> Counter[str]:
    places = {(use.sha256, use.path) for use in read_uses(store)}
    return Counter(sha256 for sha256, path in places if path.exists())


def _row(record: ImageRecord, bundles: int) -> tuple[str, ...]:
    return (
        record.sha256[:12],
        plain(record.name),
        f"{record.created_utc[:10]} {'signed' if record.signature else record.origin}",
        str(bundles),
        bytes_text(record.size),
    )


def _as_json(store: ImageStore, record: ImageRecord, bundles: int) -> dict[str, Any]:
    return {
        "sha256": record.sha256,
        "name": record.name,
        "size": record.size,
        "created_utc": record.created_utc,
        "origin": record.origin,
        "signature": record.signature,
        "source": record.source,
        "bundles": bundles,
        "path": store.sif(record.sha256),
    }
