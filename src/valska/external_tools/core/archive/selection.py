"""What of a bundle or a sweep goes into its archive, and from where."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.archive import places
from valska.external_tools.core.archive.document import (
    ArchiveDocument,
    ArchiveKind,
    Inputs,
    LeftOut,
    PackedImage,
)
from valska.external_tools.core.archive.errors import LeftOutError
from valska.external_tools.core.archive.members import (
    Member,
    directory,
    file_member,
    made,
    walk,
)
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import seal_of
from valska.external_tools.core.site import reference_places
from valska.external_tools.core.sweep.document import read_common, read_sweep_manifest
from valska.external_tools.core.sweep.layout import Sweep

_PASSED_OVER = re.compile(
    r"\.submit\.lock|(?:.*/)?\.nfs[^/]*|logs/[^/]+\.receipt|(?:.*/)?\.[^/]+\.[0-9a-f]{12}\.tmp"
)
_MESSAGES = re.compile(r"logs/local-[0-9a-f]+\.err")
"""What went wrong in running jobs here: gone at the end if that is nothing."""
_OUTPUTS = re.compile(r"(?:(?:points|shared)/[^/]+/)?outputs(?:\.\d+)?/.*")
_UNIT = re.compile(r"((?:points|shared)/[^/]+)(?:/.*)?")
_FROM_THE_SITE = ("VALSKA_SRUN_MPI=",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is wanted of a run in its archive.

    Parameters
    ----------
    image
        Pack the image or not; None: if it is in no registry.
    inputs
        Which inputs.
    outputs
        Pack the outputs.
    find_image
        Says where the image with a digest is, and the references by digest at which registries
        have it.
    """

    image: bool | None = None
    inputs: Inputs = Inputs.ALL
    outputs: bool = True
    find_image: Callable[[str], tuple[Path | None, tuple[str, ...]]] = lambda sha256: (None, ())


@dataclass(frozen=True, slots=True)
class Selection:
    """What is packed.

    Parameters
    ----------
    document
        What the archive says of itself.
    manifest
        The bundle's; of a sweep what all points share.
    members
        The payload, without what describes it, sorted bytewise.
    path
        The bundle, or the sweep.
    """

    document: ArchiveDocument
    manifest: Manifest
    members: list[Member]
    path: Path


def select_bundle(bundle: Bundle, choice: Choice) -> Selection:
    """Return what of a bundle is packed.

    Raises
    ------
    LeftOutError
        If the image or an input is to be packed and is not there.
    UsageError
        If the image is to be packed of a run that has none.
    ArchiveError
        If something in it cannot be packed.
    """
    manifest = read_manifest(bundle)
    return _select(bundle, manifest, choice, ArchiveKind.BUNDLE, None)


def select_sweep(sweep: Sweep, choice: Choice, label: str | None = None) -> Selection:
    """Return what of a sweep is packed; of one point of it, if its label is given.

    Raises
    ------
    LeftOutError, ArchiveError
        See `select_bundle`.
    """
    units = None
    if label is not None:
        whole = read_sweep_manifest(sweep)
        shared = {entry.label: entry for entry in whole.shared}
        point = shared.get(label) or whole.point(label)
        used = getattr(point, "shared", {}).values()
        units = (point.place, *sorted({shared[one].place for one in used}))
    return _select(sweep.bundle, read_common(sweep), choice, ArchiveKind.SWEEP, units)


def _select(
    bundle: Bundle,
    manifest: Manifest,
    choice: Choice,
    kind: ArchiveKind,
    units: tuple[str, ...] | None,
) -> Selection:
    image, sif = _image(manifest, choice)
    outside = _references(bundle, manifest, choice)
    references = {place: places.packed_reference(place) for place in outside}
    left_out = tuple(_left_out(manifest, choice, image))
    document = ArchiveDocument(
        kind=kind,
        tool=manifest.tool,
        run_id=manifest.run_id,
        created_utc=manifest.created_utc,
        bundle_id=manifest.bundle_id or None,
        seal=seal_of(bundle),
        image=image,
        inputs=choice.inputs,
        outputs=choice.outputs,
        references={place: references.get(place) for place in sorted(manifest.outside())},
        left_out=left_out,
        units=units,
    )
    wanted = _wanted(bundle.path, {entry.path for entry in left_out}, choice, units)
    members = [
        directory(places.BUNDLE),
        *_with_site(bundle, walk(os.fspath(bundle.path), places.BUNDLE, wanted), document),
        *_image_members(image, sif),
        *_reference_members(outside),
    ]
    return Selection(document, manifest, members, bundle.path)


def _wanted(
    root: Path, left_out: set[str], choice: Choice, units: tuple[str, ...] | None
) -> Callable[[str], bool]:
    def wanted(path: str) -> bool:
        if path in left_out or _PASSED_OVER.fullmatch(path):
            return False
        if not choice.outputs and _OUTPUTS.fullmatch(path):
            return False
        if _MESSAGES.fullmatch(path) and _is_empty_or_gone(root / path):
            return False
        unit = None if units is None else _UNIT.fullmatch(path)
        return unit is None or unit[1] in (units or ())

    return wanted


def _is_empty_or_gone(path: Path) -> bool:
    try:
        return path.lstat().st_size == 0
    except FileNotFoundError:
        return True


def _left_out(manifest: Manifest, choice: Choice, image: PackedImage | None) -> Iterator[LeftOut]:
    for entry in manifest.files:
        unwanted = (entry.role == "input" and choice.inputs is Inputs.NONE) or (
            entry.role == "image" and image is not None and image.path is None
        )
        if unwanted:
            yield LeftOut(path=entry.path, sha256=entry.sha256, size=entry.size, role=entry.role)


def _image(manifest: Manifest, choice: Choice) -> tuple[PackedImage | None, Path | None]:
    """Return what is said of the image, and the file to pack besides the bundle's own."""
    facts = manifest.image
    if facts is None:
        if choice.image:
            raise UsageError(
                "there is no image to pack: the run has none", "Leave --with-image out."
            )
        return None, None
    sha256, size, embedded = str(facts["sha256"]), int(facts["size"]), facts.get("embedded")
    path, published = choice.find_image(sha256)
    wanted = not published if choice.image is None else choice.image
    if not wanted:
        return PackedImage(sha256=sha256, size=size, path=None, published=published), None
    if embedded:
        place = f"{places.BUNDLE}/{embedded}"
        return PackedImage(sha256=sha256, size=size, path=place, published=published), None
    if path is None:
        raise LeftOutError(
            f"the image {sha256[:12]} is neither in the store nor where the bundle says",
            "Build or import it, or leave it out: --without-image.",
        )
    place = places.packed_image(sha256)
    return PackedImage(sha256=sha256, size=size, path=place, published=published), path


def _image_members(image: PackedImage | None, sif: Path | None) -> Iterator[Member]:
    if image is None or image.path is None or sif is None:
        return
    yield directory(places.IMAGES)
    try:
        member = file_member(image.path, os.fspath(sif))
    except OSError as error:
        raise LeftOutError(f"cannot read the image {sif}: {error.strerror}") from error
    member.mode = 0o644
    yield member


def _references(bundle: Bundle, manifest: Manifest, choice: Choice) -> dict[str, str]:
    """Return what lies outside and is to be packed: its place in the bundle to where it is."""
    if choice.inputs is not Inputs.ALL:
        return {}
    outside = reference_places(bundle.site_env, manifest.outside())
    for place, path in outside.items():
        if not os.access(path, os.R_OK):
            raise LeftOutError(
                f"{place} is referenced from {path}, which is not there or cannot be read",
                "Say in site.env where it is, or leave it out: --inputs copied.",
            )
    return dict(sorted(outside.items(), key=lambda item: item[0].encode()))


def _reference_members(outside: dict[str, str]) -> Iterator[Member]:
    made_already: set[str] = set()
    for place, path in outside.items():
        name = places.packed_reference(place)
        yield from _parents(name, made_already)
        if Path(path).is_dir():
            yield directory(name)
            yield from walk(path, name)
        else:
            member = file_member(name, path)
            member.mode = 0o644
            yield member


def _parents(name: str, made_already: set[str]) -> Iterator[Member]:
    parts = name.split("/")[:-1]
    for count in range(2, len(parts) + 1):
        parent = "/".join(parts[:count])
        if parent not in made_already:
            made_already.add(parent)
            yield directory(parent)


def _with_site(
    bundle: Bundle, members: Iterable[Member], document: ArchiveDocument
) -> Iterator[Member]:
    """Put a ``site.env`` that suits every site in the place of this site's."""
    place = f"{places.BUNDLE}/{bundle.site_env.name}"
    for member in members:
        yield made(place, site_text(bundle.site_env, document)) if member.name == place else member


def site_text(site_env: Path, document: ArchiveDocument) -> bytes:
    """Return the ``site.env`` that is packed: it leads to what is packed, wherever that lies.

    Set-up lines stay where the run has no container, since it needs them.

    Parameters
    ----------
    site_env
        This site's.
    document
        What is packed.
    """
    image = document.image.path if document.image else None
    beside = [
        f"[{shlex.quote(place)}]={_beside(path)}"
        for place, path in document.references.items()
        if path is not None
    ]
    lines = [
        "# What depends on the site. Packed with the archive: it leads to what is packed with it.",
        f"VALSKA_IMAGE={_beside(image) if image else ''}",
        "VALSKA_APPTAINER=apptainer",
        "VALSKA_SCRATCH=",
        *(_lines_of(site_env, _FROM_THE_SITE) or ["VALSKA_SRUN_MPI="]),
        "VALSKA_MOUNTS=()",
        f"VALSKA_REFERENCES=({' '.join(beside)})",
        *_functions(site_env, keep=document.image is None),
    ]
    return ("\n".join(lines) + "\n").encode()


def _beside(path: str) -> str:
    """Return, for bash, the place of what is packed, from that of the bundle."""
    inside = path.removeprefix(f"{places.BUNDLE}/")
    if inside != path:
        return f'"$common"/{shlex.quote(inside)}'
    return f'"$common"/../{shlex.quote(path.removeprefix(f"{places.DATA}/"))}'


def _lines_of(site_env: Path, starts: tuple[str, ...]) -> list[str]:
    return [line for line in _text(site_env).splitlines() if line.startswith(starts)]


def _functions(site_env: Path, *, keep: bool) -> list[str]:
    """Return the lines of the functions, or an empty function."""
    lines = _text(site_env).splitlines()
    starts = [i for i, line in enumerate(lines) if line == "site_setup() {"]
    if keep and starts:
        return lines[starts[0] :]
    return ["site_setup() {", "    :", "}"]


def _text(site_env: Path) -> str:
    try:
        return site_env.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{site_env} cannot be read", "Check it.") from error
