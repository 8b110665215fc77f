"""``valska image verify``: images against their digests, records and signatures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from valska.cli.image_options import images_option, open_store, stored_record
from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.layout import DIGEST
from valska.external_tools.core.images.store.signing import require_signer, signers
from valska.external_tools.core.images.store.verification import (
    Verified,
    unrecorded,
    verify_image,
)


@click.command("verify")
@click.argument("image", nargs=-1, metavar="[IMAGE]...")
@click.option("--signature", is_flag=True, help="Check the signatures as well.")
@click.option("--signer", metavar="FINGERPRINT", help="Require the signature of this key.")
@images_option
@json_option
def command(
    image: tuple[str, ...],
    signature: bool,
    signer: str | None,
    images: Path | None,
    as_json: bool,
) -> None:
    """Read every IMAGE again, and check it and what lies beside it against its record.

    Without IMAGE: all in the store; a SIF that has no record, and is older than a day, does not
    hold. Signatures are checked with the keys in Apptainer's keyring alone. The exit code is 5 if
    something does not hold.
    """
    store, settings = open_store(images)
    if signer is not None and not image:
        raise UsageError("--signer is for certain images", "Name them.")
    records = [_place(one, store) for one in image] or [
        *store.records(),
        *unrecorded(store),
    ]
    found = [verify_image(store, record) for record in records]
    altered = [one for one in found if one.faults]
    if signature or signer is not None:
        found = [_signature(store, one, signer, settings.apptainer) for one in found]
    _print(store, found, as_json)
    _require(found, altered)


def _place(image: str, store: ImageStore) -> Path:
    """Return the place of a record, which need not be readable where the digest is given."""
    digest = image.removeprefix("sha256:")
    if DIGEST.fullmatch(digest) and store.records(digest):
        return store.record(digest)
    return store.record(stored_record(image, store).sha256)


def _signature(
    store: ImageStore, verified: Verified, signer: str | None, apptainer: str
) -> Verified:
    """Check the signature of an image, if it is otherwise as it should be."""
    if verified.faults:
        return verified
    sif = store.sif(verified.sha256)
    try:
        by = signers(sif, apptainer=apptainer)
        if signer is not None:
            require_signer(sif, by, signer)
    except VerificationError as error:
        return replace(verified, faults=(error.message.removeprefix(f"{sif} "),))
    return replace(verified, signers=by)


def _print(store: ImageStore, found: Sequence[Verified], as_json: bool) -> None:
    if as_json:
        result_json(
            [
                {
                    "sha256": one.sha256,
                    "name": one.name,
                    "ok": not one.faults,
                    "faults": list(one.faults),
                    "missing": list(one.missing),
                    "signers": list(one.signers),
                }
                for one in found
            ]
        )
    elif found:
        result(table(list(_rows(found))))
    else:
        note(f"There is no image in {plain(store.root)}.")


def _require(found: Sequence[Verified], altered: Sequence[Verified]) -> None:
    """End with exit code 5 if an image has been altered, or is not signed as it should be."""
    bad = [one for one in found if one.faults]
    if not bad:
        return
    number = "1 image is" if len(bad) == 1 else f"{len(bad)} images are"
    fault, hint = (
        ("not as recorded", "What is altered is replaced when it is built or imported again.")
        if altered
        else (
            "not signed as wanted",
            "`valska image sign` signs; `apptainer key import` takes the key of a signer.",
        )
    )
    raise VerificationError(f"{number} {fault}: {', '.join(one.sha256[:12] for one in bad)}", hint)


def _rows(found: Iterable[Verified]) -> Iterable[tuple[str, str, str]]:
    for one in found:
        signed = f", signed by {', '.join(one.signers)}" if one.signers else ""
        missing = f" (without {', '.join(one.missing)})" if one.missing else ""
        told = "; ".join(one.faults) or f"ok{signed}{missing}"
        yield one.sha256[:12], plain(one.name), plain(told)
