"""The bill of materials of an image: CycloneDX 1.6 as JSON, the same bytes for the same image."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.packages import (
    APK,
    CONDA,
    DEB,
    PYTHON,
    RPM,
    Package,
    Packages,
)
from valska.external_tools.core.images.packages.model import normalised
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.utils import sha256_bytes

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, Pedigree
    from cyclonedx.model.license import License
    from packageurl import PackageURL

SUFFIX = ".cdx.json"
"""Of a bill of materials that lies beside its image."""

FORMAT = "CycloneDX 1.6"
PLACE = "valska:place"
"""Property of a component: where it is below the image's root."""

_REGISTRY = re.compile(r"(?:[\w-]+:(?://)?)?(?P<name>[\w./:-]+?)(?::[\w.-]+)?(?:@(?P<digest>.+))?")


def make_sbom(record: ImageRecord, packages: Packages) -> bytes:
    """Return an image's bill of materials, checked by CycloneDX's own validator.

    Parameters
    ----------
    record
        The image: its name, digest, base, labels and ``source_date_epoch`` go into it. What the
        record says of a bill of materials does not matter.
    packages
        What is in it.

    Raises
    ------
    ValskaError
        If it would not be valid.
    """
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    outputter = make_outputter(_bom(record, packages), OutputFormat.JSON, SchemaVersion.V1_6)
    text = json.dumps(json.loads(outputter.output_as_string()), indent=1, ensure_ascii=False)
    faults = sbom_faults(text)
    if faults:
        raise ValskaError(f"the bill of materials of {record.name} is not valid: {faults[0]}")
    return f"{text}\n".encode()


def describe_sbom(name: str, data: bytes) -> dict[str, str]:
    """Return what the image record says of a bill of materials."""
    return {"name": name, "sha256": sha256_bytes(data), "format": FORMAT}


def sbom_faults(text: str) -> tuple[str, ...]:
    """Return what CycloneDX's own validator has against a text; nothing if it is valid."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return () if fault is None else (str(fault),)


def _bom(record: ImageRecord, packages: Packages) -> Bom:
    from cyclonedx.model.bom import Bom

    image = _image(record)
    components = [
        *_distribution(packages),
        *(_component(package, packages.distribution) for package in packages.all),
        *_interpreters(packages),
    ]
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"urn:valska:image:{record.sha256}"),
        metadata=_metadata(record, image),
        components={component.bom_ref.value: component for component in components}.values(),
    )
    bom.register_dependency(image, bom.components)
    return bom


def _metadata(record: ImageRecord, image: Component) -> BomMetaData:
    from cyclonedx.model.bom import BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    tool = Component(
        name="valska",
        type=ComponentType.APPLICATION,
        version=record.valska_version,
        bom_ref="valska",
    )
    return BomMetaData(
        component=image, timestamp=_time(record), tools=ToolRepository(components=[tool])
    )


def _time(record: ImageRecord) -> datetime:
    if record.source_date_epoch is not None:
        return datetime.fromtimestamp(record.source_date_epoch, UTC)
    return datetime.fromisoformat(record.created_utc)


def _image(record: ImageRecord) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=record.name,
        type=ComponentType.CONTAINER,
        version=record.labels.get("org.opencontainers.image.version") or f"sha256:{record.sha256}",
        bom_ref=f"image:{record.sha256}",
        description=record.labels.get("org.opencontainers.image.description"),
        licenses=_licences((record.labels.get("org.opencontainers.image.licenses"),)),
        hashes=_hashes(record.sha256),
        pedigree=_pedigree(record.base),
        properties=_properties(
            {"valska:tree_sha256": record.tree_sha256, "valska:recipe_sha256": record.recipe_sha256}
        ),
    )


def _pedigree(base: Mapping[str, Any] | None) -> Pedigree | None:
    """Return the base image as what the image descends from."""
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    if base is None:
        return None
    digest = base.get("sha256")
    ancestor = Component(
        name=base["reference"],
        type=ComponentType.CONTAINER,
        version=f"sha256:{digest}" if digest else None,
        bom_ref=f"base:{digest or base['reference']}",
        hashes=_hashes(digest),
        purl=_oci(base["reference"], digest) if base.get("kind") == "docker" else None,
    )
    return Pedigree(ancestors=[ancestor])


def _oci(reference: str, digest: str | None) -> PackageURL | None:
    from packageurl import PackageURL

    match = _REGISTRY.fullmatch(reference)
    if match is None or digest is None:
        return None
    place = match["name"].strip("/")
    qualifiers = {"repository_url": place} if "/" in place else {}
    return PackageURL("oci", None, place.split("/")[-1], f"sha256:{digest}", qualifiers)


def _component(package: Package, distribution: str | None) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    purl = _purl(package, distribution)
    return Component(
        name=package.name,
        type=ComponentType.LIBRARY,
        version=package.version,
        bom_ref=f"{purl}#{package.place}" if package.place else str(purl),
        purl=purl,
        licenses=_licences(package.licences),
        hashes=_hashes(package.sha256),
        properties=_properties({PLACE: package.place, "valska:source": package.source}),
    )


def _purl(package: Package, distribution: str | None) -> PackageURL:
    from packageurl import PackageURL

    vendor = (distribution or "").partition("-")[0] or None
    name, version = package.name, package.version
    if package.ecosystem == PYTHON:
        return PackageURL("pypi", None, normalised(PYTHON, name), version)
    if package.ecosystem == CONDA:
        origin = {
            "build": package.build,
            "channel": package.channel,
            "subdir": package.architecture,
        }
        return PackageURL(CONDA, None, name, version, _given(origin))
    facts = {"arch": package.architecture, "distro": distribution}
    if package.ecosystem == RPM and ":" in version:
        facts["epoch"], _, version = version.partition(":")
    vendor = vendor or {DEB: "debian", APK: "alpine"}.get(package.ecosystem)
    return PackageURL(package.ecosystem, vendor, name, version, _given(facts))


def _given(facts: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}


def _distribution(packages: Packages) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType

    if packages.distribution:
        name, _, version = packages.distribution.partition("-")
        yield Component(
            name=name,
            type=ComponentType.OPERATING_SYSTEM,
            version=version or None,
            bom_ref=f"distribution:{packages.distribution}",
        )


def _interpreters(packages: Packages) -> Iterator[Component]:
    """Yield each Python that no package manager has brought."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    packaged = {
        re.split(r"[-+]", package.version)[0]
        for package in packages.of(DEB, CONDA, RPM, APK)
        if re.fullmatch(r"python3?(\.\d+)?(-minimal)?", package.name)
    }
    for version in sorted(set((packages.interpreters or {}).values()) - packaged):
        purl = PackageURL("generic", None, "python", version)
        yield Component(
            name="Python",
            type=ComponentType.PLATFORM,
            version=version,
            bom_ref=str(purl),
            purl=purl,
        )


def _hashes(sha256: str | None) -> list[HashType]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []


def _properties(facts: Mapping[str, str | None]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=name, value=value) for name, value in facts.items() if value]


def _licences(names: Iterable[str | None]) -> list[License]:
    """Return licences; one alone may be an expression, several are named one by one."""
    given = [name for name in names if name]
    if len(given) == 1:
        return [_licence(given[0], expression=True)]
    return [_licence(name, expression=False) for name in given]


@lru_cache(None)
def _licence(name: str, *, expression: bool) -> License:
    """Return a licence by its SPDX identifier or expression if it is one, else by its name."""
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from cyclonedx.spdx import fixup_id, is_expression

    identifier = fixup_id(name)
    if identifier:
        return DisjunctiveLicense(id=identifier)
    if expression and is_expression(name):
        return LicenseExpression(name)
    return DisjunctiveLicense(name=name)
