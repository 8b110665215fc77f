"""``valska image import``: images from a file or a registry into the store."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.build_log import log_follower
from valska.cli.image_options import ca_bundle_option, images_option, no_https_option, open_store
from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, result, result_json
from valska.cli.transfer import Transfer
from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.registry.options import Http, http_options
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.importing import (
    Imported,
    import_images,
    rehearse_import,
)

_SCHEMES = ("oras", "docker")


@click.command("import")
@click.argument("source", metavar="FILE|DIR|URI")
@no_https_option
@ca_bundle_option
@images_option
@dry_run_option
@json_option
def command(
    source: str,
    no_https: bool,
    ca_bundle: Path | None,
    images: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take images from elsewhere into the store.

    FILE is a SIF, with or without its record beside it, or a tar file that `valska image export`
    made; DIR is such a directory. URI is oras://… (a SIF) or docker://… (an image of another
    tool, of which a SIF is made), by digest or by tag: the record says which digest the tag named.
    The images' paths are printed.
    """
    store, settings = open_store(images)
    if "://" in source:
        http = _registry_options(source, no_https, ca_bundle or settings.ca_bundle)
        if dry_run:
            _print_pinned(source, http, as_json)
            return
        found = [_from_registry(source, store, settings, http)]
    else:
        take = rehearse_import if dry_run else import_images
        found = take(Path(source), store, apptainer=settings.apptainer)
    _print(store, found, dry_run, as_json)


def _registry_options(uri: str, no_https: bool, ca_bundle: Path | None) -> Http:
    scheme = uri.partition("://")[0]
    if scheme not in _SCHEMES:
        raise UsageError(
            f"images do not come from {scheme}://", "Name a file, oras://… or docker://…."
        )
    return http_options(no_https=no_https, ca_bundle=ca_bundle)


def _print_pinned(uri: str, http: Http, as_json: bool) -> None:
    """Print what a reference to a registry stands for now; the registry is asked for that."""
    from valska.external_tools.core.images.registry.client import connect, fetch_manifest

    connection = connect(uri, http)
    pinned = fetch_manifest(connection, connection.reference).reference
    shown = f"{uri.partition('://')[0]}://{pinned}"
    if as_json:
        result_json([{"dry_run": True, "source": shown}])
        return
    note("Nothing was imported. It would be:")
    result(shown)


def _from_registry(uri: str, store: ImageStore, settings: Settings, http: Http) -> Imported:
    from valska.external_tools.core.images.registry.pulling import import_docker, import_oras

    before = {path.stem for path in store.records()}
    if uri.startswith("oras:"):
        with Transfer("Fetching") as transfer:
            record = import_oras(
                uri, store, http=http, apptainer=settings.apptainer, progress=transfer.reach
            )
    else:
        record = import_docker(
            uri, store, http=http, apptainer=settings.apptainer, progress=log_follower()
        )
    return Imported(record, record.sha256 not in before)


def _print(store: ImageStore, found: list[Imported], dry_run: bool, as_json: bool) -> None:
    if as_json:
        result_json(
            [
                {
                    "dry_run": dry_run,
                    "sha256": one.record.sha256,
                    "name": one.record.name,
                    "new": one.new,
                    "path": store.sif(one.record.sha256),
                }
                for one in found
            ]
        )
        return
    taken = "Would import" if dry_run else "Imported"
    for one in found:
        how = taken if one.new else "The store has it already:"
        note(f"{how} {one.record.name} {one.record.sha256[:12]}.")
        result(str(store.sif(one.record.sha256)))
