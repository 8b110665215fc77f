"""SIFs in a registry, as ``apptainer push`` lays them out and ``apptainer pull`` takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.registry.client import (
    MANIFEST,
    Manifest,
    descriptor_of,
    objects,
)
from valska.external_tools.core.utils import sha256_bytes

SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
TITLE = "org.opencontainers.image.title"
EMPTY = b"{}"

_OLDER_LAYERS = (
    "appliciation/vnd.sylabs.sif.layer.tar",
    "application/vnd.sylabs.sif.layer.tar",
)


def sif_layer(manifest: Manifest) -> dict[str, Any]:
    """Return the descriptor of the SIF that a manifest names.

    Raises
    ------
    PrerequisiteError
        If it names none.
    """
    for layer in objects(manifest.content, "layers"):
        if layer.get("mediaType") in (SIF_LAYER, *_OLDER_LAYERS):
            return descriptor_of(layer, manifest.reference)
    raise PrerequisiteError(
        f"{manifest.reference} is not a SIF",
        f"An image that another tool built is docker://{manifest.reference}.",
    )


def sif_manifest(sha256: str, size: int, name: str, annotations: Mapping[str, str]) -> bytes:
    """Return the manifest of a SIF: the same bytes for the same image.

    Parameters
    ----------
    sha256, size
        Of the file.
    name
        What the file is to be called.
    annotations
        Further facts; none that change with the day.
    """
    layer = {**descriptor(SIF_LAYER, sha256, size), "annotations": {TITLE: name}}
    return document(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(SIF_CONFIG, sha256_bytes(EMPTY), len(EMPTY)),
            "layers": [layer],
            **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
        }
    )


def descriptor(media_type: str, sha256: str, size: int) -> dict[str, Any]:
    """Return what stands for a blob in a manifest."""
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size}


def document(content: Mapping[str, Any]) -> bytes:
    """Return a manifest as bytes."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
