"""``valska image sign``: a signed copy of an image, in the store."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.image_options import image_argument, images_option, open_store, stored_record
from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, result, result_json
from valska.external_tools.core.images.store.signing import sign_image


@click.command("sign")
@image_argument
@click.option(
    "--keyidx",
    "key",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="Key to sign with, as `apptainer key list --secret` numbers them.",
)
@click.option("--ask-passphrase", is_flag=True, help="Ask for the passphrase of the key.")
@images_option
@dry_run_option
@json_option
def command(
    image: str,
    key: int | None,
    ask_passphrase: bool,
    images: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Sign IMAGE with a key of Apptainer's keyring.

    A signature changes the digest: the signed image is put into the store beside IMAGE, which
    stays as it is. The signed one's path is printed last.
    """
    store, settings = open_store(images)
    record = stored_record(image, store)
    if dry_run:
        if as_json:
            result_json({"dry_run": True, "unsigned_sha256": record.sha256})
        note(f"Would sign {record.name} {record.sha256[:12]}. Nothing was done.")
        return
    passphrase = click.prompt("Passphrase", hide_input=True, err=True) if ask_passphrase else None
    signed = sign_image(store, record, key=key, passphrase=passphrase, apptainer=settings.apptainer)
    if as_json:
        result_json(
            {
                "dry_run": False,
                "sha256": signed.sha256,
                "unsigned_sha256": record.sha256,
                "fingerprint": (signed.signature or {}).get("fingerprint"),
                "path": store.sif(signed.sha256),
            }
        )
        return
    note(f"Signed with {(signed.signature or {}).get('fingerprint')}: {signed.sha256}.")
    result(str(store.sif(signed.sha256)))
