"""What the subcommands of ``valska image`` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from valska.cli.state import state

if TYPE_CHECKING:
    from valska.external_tools.core.config import Settings
    from valska.external_tools.core.images.record import ImageRecord
    from valska.external_tools.core.images.store import ImageStore


def _without_dots(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Return a path as it is to be printed, which `..` makes hard to read."""
    return path.resolve() if path is not None and ".." in path.parts else path


images_option = click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_without_dots,
    help="Image store.  [$VALSKA_IMAGES, or the configuration]",
)
ca_bundle_option = click.option(
    "--ca-bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificates (PEM) to trust.  [the configuration's, or the system's]",
)
no_https_option = click.option(
    "--no-https",
    is_flag=True,
    help="Ask the registry over plain HTTP; one on this machine is always asked so.",
)
image_argument = click.argument("image", metavar="IMAGE")
"""A digest or the start of it, or the name of a definition: its newest image."""


def open_store(images: Path | None) -> tuple[ImageStore, Settings]:
    """Return the store that was named, or that of the settings; and the settings."""
    from valska.external_tools.core.config import resolve
    from valska.external_tools.core.images.store import ImageStore

    settings = resolve(flags={"images": images}, path=state().config)
    return ImageStore(settings.images), settings


def stored_record(image: str, store: ImageStore) -> ImageRecord:
    """Return the record of an image in the store.

    Raises
    ------
    UsageError
        If a file is named.
    PrerequisiteError
        If there is none, or several.
    """
    from valska.external_tools.core.errors import UsageError
    from valska.external_tools.core.images import find_record

    if image.endswith(".sif") and Path(image).is_file():
        raise UsageError(
            f"{image} is a file, not an image of the store",
            f"Take it in first: valska image import {image}",
        )
    return find_record(image, store)
