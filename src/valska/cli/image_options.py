"""What the subcommands of ``valska image`` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from valska.cli.state import state

if TYPE_CHECKING:
    from valska.external_tools.core.config import Settings
    from valska.external_tools.core.images.store import ImageStore

Function = TypeVar("Function", bound=Callable[..., Any])

images_option = click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Image store.  [$VALSKA_IMAGES, or the configuration]",
)
image_argument = click.argument("image", metavar="IMAGE")
"""A digest or the start of it, or the name of a definition: its newest image."""


def open_store(images: Path | None) -> tuple[ImageStore, Settings]:
    """Return the store that was named, or that of the settings; and the settings."""
    from valska.external_tools.core.config import resolve
    from valska.external_tools.core.images.store import ImageStore

    settings = resolve(flags={"images": images}, path=state().config)
    return ImageStore(settings.images), settings
