"""Inputs and directories outside a bundle: where they are now, or in the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.site import reference_places


@dataclass(frozen=True, slots=True)
class Outside:
    """What lies outside a bundle.

    Parameters
    ----------
    places
        Place in the bundle to real path; where it was when the bundle was made, if it is nowhere.
    missing
        What is nowhere, in words.
    """

    places: Mapping[str, str]
    missing: tuple[str, ...]


def find_outside(site_env: Path, manifest: Manifest, supplies: Supplies) -> Outside:
    """Find what lies outside a bundle: where ``site.env`` says, where it was, or in the store.

    Parameters
    ----------
    site_env
        The bundle's ``site.env``.
    manifest
        Says what there has to be.
    supplies
        The store, which has inputs by their digests.
    """
    places = reference_places(site_env, manifest.outside())
    places |= dict(_stored(manifest, places, supplies))
    missing = [
        f"the {what} ({places[place]})"
        for place, what in _names(manifest).items()
        if not os.path.exists(places[place])  # noqa: PTH110 - Path.exists fails where it may not look
    ]
    return Outside(places, tuple(missing))


def _stored(
    manifest: Manifest, places: Mapping[str, str], supplies: Supplies
) -> Iterator[tuple[str, str]]:
    for entry in manifest.inputs:
        if entry.path in places and not os.path.exists(places[entry.path]):  # noqa: PTH110
            path = supplies.input(entry.sha256)
            if path is not None:
                yield entry.path, os.fspath(path.absolute())


def _names(manifest: Manifest) -> dict[str, str]:
    outside = manifest.outside()
    inputs = {e.path: f"input {e.name}" for e in manifest.inputs if e.path in outside}
    return inputs | {e.path: f"directory of {e.path}" for e in manifest.borrowed}
