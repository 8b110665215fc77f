"""What an archive says of itself: ``archive.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import valska
from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.schema import validate

SCHEMA = "archive-1"
SCHEMA_VERSION = "1.0"


class ArchiveKind(StrEnum):
    """What is in an archive."""

    BUNDLE = "bundle"
    SWEEP = "sweep"


class Inputs(StrEnum):
    """Which inputs are packed."""

    ALL = "all"
    COPIED = "copied"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedImage:
    """The image of a run.

    Parameters
    ----------
    sha256, size
        Of the SIF; size in bytes.
    path
        Where it is packed; None if it is left out.
    published
        References by digest at which registries have it.
    """

    sha256: str
    size: int
    path: str | None
    published: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A sealed file that is not packed."""

    path: str
    sha256: str
    size: int
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveDocument:
    """What is packed, and what is not.

    Parameters
    ----------
    kind
        A bundle, or a sweep.
    tool, run_id, created_utc
        From its manifest.
    bundle_id
        Of a bundle; None for a sweep.
    seal
        SHA-256 of its ``SHA256SUMS``.
    image
        The image; None without a container.
    inputs, outputs
        Which inputs are packed; whether outputs are.
    references
        Place in the bundle, of what lies outside of it, to the place in the archive or None.
    left_out
        Sealed files that are not packed.
    units
        Of a sweep: the points and the shared work that are packed, by their places; None for all.
    """

    kind: ArchiveKind
    tool: str
    run_id: str
    created_utc: str
    bundle_id: str | None
    seal: str
    image: PackedImage | None
    inputs: Inputs
    outputs: bool
    references: Mapping[str, str | None]
    left_out: tuple[LeftOut, ...] = ()
    units: tuple[str, ...] | None = None
    valska_version: str = valska.__version__

    def to_bytes(self) -> bytes:
        """Return the text of ``archive.json``, checked against its schema."""
        data = {"schema_version": SCHEMA_VERSION, **_listed(asdict(self))}
        validate(data, SCHEMA, "archive.json")
        return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(one) for key, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def parse_document(data: bytes) -> ArchiveDocument:
    """Read ``archive.json``.

    Raises
    ------
    VerificationError
        If it is not JSON, not valid, or of another major version.
    """
    found = parse_json(data)
    version = str(found.get("schema_version", SCHEMA_VERSION))
    writer = found.get("valska_version", "an unknown version")
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise VerificationError(
            f"it has schema version {version} (written by valska {writer}); "
            f"valska {valska.__version__} reads version {SCHEMA_VERSION}",
            f"Use valska {writer}.",
        )
    try:
        validate(found, SCHEMA, "it")
    except ValskaError as error:
        raise VerificationError(error.message) from error
    image = found["image"]
    return ArchiveDocument(
        kind=ArchiveKind(found["kind"]),
        image=PackedImage(
            sha256=image["sha256"],
            size=image["size"],
            path=image["path"],
            published=tuple(image["published"]),
        )
        if image
        else None,
        inputs=Inputs(found["inputs"]),
        left_out=tuple(
            LeftOut(**{name: one[name] for name in LeftOut.__dataclass_fields__})
            for one in found["left_out"]
        ),
        units=None if found["units"] is None else tuple(found["units"]),
        **{name: found[name] for name in _PLAIN},
    )


_PLAIN = (
    "tool",
    "run_id",
    "created_utc",
    "bundle_id",
    "seal",
    "outputs",
    "references",
    "valska_version",
)


def parse_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    VerificationError
        If it is none.
    """
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"it is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise VerificationError("it does not hold a JSON object")
    return found
