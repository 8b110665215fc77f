"""``valska image``: the images in the store. A subcommand is a module ``image_<name>``."""

from __future__ import annotations

import click

from valska.cli.lazy import LazyGroup

_IMAGE_VERBS = {
    "list": "List the images in the store.",
    "show": "Print what an image is made of, and who uses it.",
    "verify": "Check images against their digests and records, and their signatures.",
    "export": "Copy images, with all that is known of them, out of the store.",
    "import": "Take images from elsewhere into the store.",
    "sign": "Sign an image; the signed one is an image of its own.",
    "gc": "Clear away images that nothing uses.",
    "diff": "Say how two images differ, by package and by file.",
    "push": "Push an image to a container registry.",
}


class ImageVerbs(LazyGroup):
    """The group of what can be done with images."""

    verbs = _IMAGE_VERBS


@click.group("image", cls=ImageVerbs, no_args_is_help=True)
def command() -> None:
    """List, check, move and clear away the container images in the store.

    The store is a directory of images, each named by its digest: $VALSKA_IMAGES, or images in the
    configuration.
    """
