"""``valska image push``: an image into a registry."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.image_options import ca_bundle_option, images_option, no_https_option, open_store
from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json
from valska.cli.quantities import bytes_text
from valska.cli.transfer import Transfer
from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.images import resolve_image
from valska.external_tools.core.images.registry.options import http_options
from valska.external_tools.core.images.registry.pushing import (
    Pushed,
    note_published,
    push_image,
    read_target,
    stored_extras,
)
from valska.external_tools.core.images.registry.reference import Reference


@click.command("push")
@click.argument("image")
@click.argument("target", metavar="URI")
@images_option
@no_https_option
@ca_bundle_option
@click.option("--no-record", is_flag=True, help="Push the SIF alone, and nothing known of it.")
@dry_run_option
@json_option
def command(
    image: str,
    target: str,
    images: Path | None,
    no_https: bool,
    ca_bundle: Path | None,
    no_record: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push IMAGE to an OCI registry, at URI: oras://HOST/REPOSITORY[:TAG].

    IMAGE is a digest or its start, the name of a definition, or a path. The image's record, its
    definition, lock and SBOM are attached to it. What others pull, by digest, is printed last:
    `apptainer pull` and `valska image import` take it.
    """
    reference = read_target(target)
    store, settings = open_store(images)
    found = resolve_image(image, store, apptainer=settings.apptainer)
    if dry_run:
        _tell_dry_run(found, reference, as_json)
        return
    http = http_options(no_https=no_https, ca_bundle=ca_bundle or settings.ca_bundle)
    note(f"Pushing {bytes_text(found.size)} to {reference}.")
    with Transfer("Pushing") as transfer:
        pushed = push_image(
            found,
            reference,
            extras=stored_extras(store, found.sha256),
            with_record=not no_record,
            http=http,
            progress=transfer.reach,
        )
    _tell(pushed, note_published(store, pushed), as_json)


def _tell_dry_run(image: BundledImage, target: Reference, as_json: bool) -> None:
    if as_json:
        result_json({"dry_run": True, "sha256": image.sha256, "target": target.uri})
        return
    result(f"{plain(image.path)} ({bytes_text(image.size)}) to {target.uri}")
    note("Nothing was pushed.")


def _tell(pushed: Pushed, noted: Path | None, as_json: bool) -> None:
    if as_json:
        result_json(
            {
                "dry_run": False,
                "sha256": pushed.sha256,
                "uri": pushed.uri,
                "tag": pushed.tag,
                "digest": pushed.reference.digest,
                "uploaded": pushed.uploaded,
                "attached": list(pushed.attached),
                "noted": noted,
            }
        )
        return
    how = "Pushed the image" if pushed.uploaded else "The registry has the image already:"
    note(f"{how} {pushed.sha256[:12]}; {pushed.tag} names it now.")
    result(pushed.uri)
