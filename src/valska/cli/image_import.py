"""``valska image import``: images from a file or a registry into the store."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.build_log import log_follower
from valska.cli.image_options import ca_bundle_option, images_option, no_https_option, open_store
from valska.cli.options import json_option
from valska.cli.output import note, result, result_json
from valska.cli.transfer import Transfer
from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.registry.options import http_options
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.importing import Imported, import_images

_SCHEMES = ("oras", "docker")


@click.command("import")
@click.argument("source", metavar="FILE|DIR|URI")
@no_https_option
@ca_bundle_option
@images_option
@json_option
def command(
    source: str, no_https: bool, ca_bundle: Path | None, images: Path | None, as_json: bool
) -> None:
    """Take images from elsewhere into the store.

    FILE is a SIF, with or without its record beside it, or a tar file that `valska image export`
    made; DIR is such a directory. URI is oras://… (a SIF) or docker://… (an image of another
    tool, of which a SIF is made), by digest or by tag: the record says which digest the tag named.
    The images' paths are printed.
    """
    store, settings = open_store(images)
    if "://" in source:
        found = [_from_registry(source, store, settings, no_https, ca_bundle)]
    else:
        found = import_images(Path(source), store, apptainer=settings.apptainer)
    _print(store, found, as_json)


def _from_registry(
    uri: str, store: ImageStore, settings: Settings, no_https: bool, ca_bundle: Path | None
) -> Imported:
    from valska.external_tools.core.images.registry.pulling import import_docker, import_oras

    scheme = uri.partition("://")[0]
    if scheme not in _SCHEMES:
        raise UsageError(
            f"images do not come from {scheme}://", "Name a file, oras://… or docker://…."
        )
    http = http_options(no_https=no_https, ca_bundle=ca_bundle or settings.ca_bundle)
    before = {path.stem for path in store.records()}
    if scheme == "oras":
        with Transfer("Fetching") as transfer:
            record = import_oras(
                uri, store, http=http, apptainer=settings.apptainer, progress=transfer.reach
            )
    else:
        record = import_docker(
            uri, store, http=http, apptainer=settings.apptainer, progress=log_follower()
        )
    return Imported(record, record.sha256 not in before)


def _print(store: ImageStore, found: list[Imported], as_json: bool) -> None:
    if as_json:
        result_json(
            [
                {
                    "sha256": one.record.sha256,
                    "name": one.record.name,
                    "new": one.new,
                    "path": store.sif(one.record.sha256),
                }
                for one in found
            ]
        )
        return
    for one in found:
        how = "Imported" if one.new else "The store has it already:"
        note(f"{how} {one.record.name} {one.record.sha256[:12]}.")
        result(str(store.sif(one.record.sha256)))
