"""Packages of conda: what each prefix has under ``conda-meta``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from valska.external_tools.core.images.packages.model import CONDA, Package
from valska.external_tools.core.images.tree import FILE, Node, Tree

CONDA_META = re.compile(rb"(?:(?P<prefix>.*)/)?conda-meta/[^/]+\.json")


def read_conda(tree: Tree, nodes: Sequence[Node]) -> list[Package]:
    """Return the packages of every conda prefix."""
    found = []
    for node in nodes:
        match = CONDA_META.fullmatch(node.path) if node.kind == FILE else None
        if match is None:
            continue
        fields = load_object(tree.read(node.path))
        if fields.get("name") and fields.get("version"):
            place = (match["prefix"] or b"").decode(errors="replace")
            found.append(_package(fields, place, node.path))
    return found


def load_object(data: bytes) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one for what is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def text_of(value: object) -> str:
    """Return a value as text that can be written; JSON may have halves of characters."""
    return str(value).encode(errors="replace").decode()


def _package(fields: Mapping[str, Any], place: str, metadata: bytes) -> Package:
    def text(name: str) -> str | None:
        value = fields.get(name)
        return text_of(value) if value else None

    channel = text("channel")
    licence = text("license")
    return Package(
        CONDA,
        text_of(fields["name"]),
        text_of(fields["version"]),
        place,
        architecture=text("subdir"),
        licences=(licence,) if licence else (),
        build=text("build"),
        channel=channel.rstrip("/").removesuffix(f"/{text('subdir')}") if channel else None,
        sha256=text("sha256"),
        metadata=metadata,
    )
