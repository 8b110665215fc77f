"""The base that a definition is pinned to: kept, or what its tag names now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.images.definition import Definition
from valska.external_tools.core.images.registry.client import config, environment, resolve
from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.images.registry.reference import DEFAULT_TAG, Reference, parse
from valska.external_tools.core.images.sections import VARIABLE, read_sections

NAME_LABEL = "org.opencontainers.image.base.name"
DIGEST_LABEL = "org.opencontainers.image.base.digest"

_REGISTRY_AGENTS = frozenset(("docker", "oras"))


@dataclass(frozen=True, slots=True)
class BasePin:
    """A base in a registry.

    Parameters
    ----------
    name
        Its name with the tag that is followed, if one is known.
    pinned
        Its name by digest.
    source
        What ``From:`` is to say.
    """

    name: str
    pinned: Reference
    source: str

    @property
    def digest(self) -> str:
        """``sha256:<64 digits>``."""
        return self.pinned.digest or ""

    @property
    def labels(self) -> dict[str, str]:
        """What the definition's labels are to say of it."""
        return {NAME_LABEL: self.name, DIGEST_LABEL: self.digest}


def pin_base(
    definition: Definition, known: str | None, *, upgrade: bool, platform: str, http: Http
) -> BasePin | None:
    """Return the base of a definition by its digest, or None where it is in no registry.

    A digest that is in the definition already is kept, without asking the registry, unless
    `upgrade` asks for what the tag names now.

    Parameters
    ----------
    definition
        The definition.
    known
        Name of the base as the lock has it.
    upgrade
        Ask what the tag names now.
    platform
        That the base has to have.
    http
        How to ask.

    Raises
    ------
    UsageError
        If the base is named by a build argument, or is not a name; or nothing says which tag is
        to be followed.
    PrerequisiteError, VerificationError
        See `registry.client.resolve`.
    """
    agent, source = definition.header["bootstrap"].lower(), definition.header.get("from", "")
    if agent not in _REGISTRY_AGENTS:
        return None
    if VARIABLE.search(source):
        raise UsageError(
            f"{definition.path.name} takes its base from a build argument: {source}",
            "Write the base into From: itself; a site that needs another builds with --base.",
        )
    reference = parse(source.removeprefix("//"))
    if reference.digest is None or upgrade:
        followed = _followed(definition, reference, known)
        pinned = followed.at(resolve(followed, platform=platform, http=http))
    else:
        pinned = reference.at(reference.digest)
        followed = _tagged(definition, reference, known) or _without_digest(reference)
    keep = reference.tag is None and pinned == reference
    return BasePin(_spelled(definition, followed), pinned, source if keep else str(pinned))


def base_python(pin: BasePin, platform: str, http: Http) -> str | None:
    """Return the version of Python that a base says it has, as ``3.11``, or None.

    Raises
    ------
    PrerequisiteError, VerificationError
        See `registry.client.resolve`.
    """
    version = environment(config(pin.pinned, platform=platform, http=http)).get("PYTHON_VERSION")
    match = re.match(r"\d+\.\d+", version or "")
    return match[0] if match else None


def read_labels(text: str) -> Mapping[str, str]:
    """Return the labels of a definition."""
    lines = (s.said() for s in read_sections(text) if s.name == "labels")
    pairs = (line.text.strip().partition(" ") for found in lines for line in found)
    return {key: value.strip() for key, _, value in pairs}


def _spelled(definition: Definition, reference: Reference) -> str:
    """Return a base's name as the definition's label has it, if that means the same."""
    text = read_labels(definition.text).get(NAME_LABEL, "")
    return text if _named(text) == reference else str(reference)


def _named(text: str | None) -> Reference | None:
    """Return what a label or a lock names, or None if it is not a name."""
    with suppress(UsageError):
        return parse(text) if text and not VARIABLE.search(text) else None
    return None


def _without_digest(reference: Reference) -> Reference:
    return Reference(reference.registry, reference.repository, reference.tag)


def _tagged(definition: Definition, reference: Reference, known: str | None) -> Reference | None:
    """Return the name with its tag that belongs to a pinned base: the label's, or the lock's."""
    for text in (str(reference), read_labels(definition.text).get(NAME_LABEL), known):
        found = _named(text)
        if found and found.tag and found.name == reference.name:
            return found
    return None


def _followed(definition: Definition, reference: Reference, known: str | None) -> Reference:
    """Return the name whose tag is to be asked for."""
    if reference.digest is None:
        tag = reference.tag or DEFAULT_TAG
        return Reference(reference.registry, reference.repository, tag)
    tagged = _tagged(definition, reference, known)
    if tagged is None:
        raise PrerequisiteError(
            f"nothing says which tag of {reference.name} {definition.path.name} follows",
            f"Write it into the label {NAME_LABEL}: {reference.name}:TAG",
        )
    return _without_digest(tagged)
