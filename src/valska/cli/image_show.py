"""``valska image show``: what an image is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from valska.cli.image_options import image_argument, images_option, open_store, stored_record
from valska.cli.options import json_option
from valska.cli.output import plain, result, result_json, table
from valska.cli.quantities import bytes_text
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.adding import files_of
from valska.external_tools.core.images.store.uses import read_uses


@click.command("show")
@image_argument
@images_option
@json_option
def command(image: str, images: Path | None, as_json: bool) -> None:
    """Print what IMAGE is made of, where it lies, and which bundles were made with it.

    IMAGE is a digest or the start of it, or the name of a definition: its newest image. --json
    gives the whole record, with every package.
    """
    store, _ = open_store(images)
    record = stored_record(image, store)
    data = record.to_json()
    bundles = dict.fromkeys(use.path for use in read_uses(store) if use.sha256 == record.sha256)
    if as_json:
        result_json(
            {
                "path": store.sif(record.sha256),
                "files": files_of(store, record.sha256),
                "bundles": list(bundles),
                "unchanged": store.is_unchanged(record.sha256),
                "record": data,
            }
        )
        return
    rows = [*_rows(store, record), *(("bundle", str(path)) for path in bundles)]
    result(table([(name, plain(value)) for name, value in rows]))


def _rows(store: ImageStore, record: ImageRecord) -> Iterator[tuple[str, str]]:
    yield "image", record.sha256
    yield "name", record.name
    yield "file", f"{store.sif(record.sha256)} ({bytes_text(record.size)})"
    yield "made", f"{record.created_utc}, {record.origin}"
    for name, entry in (("definition", record.definition), ("lock", record.lock)):
        if entry is not None:
            yield name, f"{entry['name']} {entry['sha256']}"
    if record.base is not None:
        yield "base", f"{record.base['reference']}{' (replaced)' * bool(record.base['replaced'])}"
    for name, value in record.build_arguments.items():
        yield "argument", f"{name}={value}"
    if record.source is not None:
        yield "source", _pairs(record.source)
    if record.signature is not None:
        yield "signed by", str(record.signature["fingerprint"])
    if record.tree_sha256 is not None:
        yield "root file system", record.tree_sha256
    if record.apptainer_version is not None:
        yield "apptainer", record.apptainer_version
    if counts := _counts(record.packages):
        yield "packages", counts
    for name, value in record.labels.items():
        yield "label", f"{name}={value}"


def _counts(packages: Mapping[str, Any]) -> str:
    system = packages.get("system") or {}
    found = {
        "python": packages.get("python") or {},
        str(system.get("manager")): system.get("packages") or {},
        "conda": packages.get("conda") or {},
    }
    return ", ".join(f"{len(of)} {name}" for name, of in found.items() if of)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value)
