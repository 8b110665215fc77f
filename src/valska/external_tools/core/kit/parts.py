"""What a kit consists of before it is made: its files, and where each is now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.document import Kind
from valska.external_tools.core.kit.targets import Target
from valska.external_tools.core.kit.wheels import PackageFile
from valska.external_tools.core.utils import sha256_bytes

STORE = "the store"
"""Where a part is that is in the store, in words."""


class Purpose(StrEnum):
    """What a kit is to make possible."""

    RUN = "run"
    BUILD = "build"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBase:
    """A base that a registry has: its reference with a digest, and the platform."""

    reference: str
    digest: str
    platform: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file that a kit will hold.

    Parameters
    ----------
    kind
        What it is.
    name
        What people call it.
    path
        Its place in the kit.
    origin
        Where it is now, in words.
    source
        Where it is now: a file, bytes, or something that has to be fetched.
    sha256, size
        As far as they are known.
    """

    kind: Kind
    name: str
    path: str
    origin: str
    source: Path | bytes | PackageFile | RemoteBase
    sha256: str | None = None
    size: int | None = None

    @property
    def is_here(self) -> bool:
        """Whether nothing has to be fetched for it."""
        return isinstance(self.source, (Path, bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class KitPlan:
    """All that a kit will hold.

    Parameters
    ----------
    target, purpose, platform
        What it is for.
    parts
        The files, in their order in the kit.
    notes
        What it will not hold, and why.
    """

    target: Target
    purpose: Purpose
    platform: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KitRequest:
    """What to make a kit for, and with what.

    Parameters
    ----------
    target
        See `find_target`.
    purpose
        What it is to make possible.
    store
        Where images are, and where what is fetched is kept.
    platform
        As ``linux/amd64``; the lock's, if not given.
    http
        How registries are asked; from the environment if None.
    environ
        The caller's environment.
    """

    target: Target
    purpose: Purpose
    store: ImageStore
    platform: str | None = None
    http: Http | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def small_part(kind: Kind, name: str, path: str, data: bytes, origin: str) -> Part:
    """Return a part whose content is here."""
    return Part(
        kind=kind,
        name=name,
        path=path,
        origin=origin,
        source=data,
        sha256=sha256_bytes(data),
        size=len(data),
    )


def total_size(parts: Iterable[Part]) -> tuple[int, bool]:
    """Return the bytes of parts, as far as they are known, and whether all are known."""
    sizes = [part.size for part in parts]
    return sum(size or 0 for size in sizes), None not in sizes
