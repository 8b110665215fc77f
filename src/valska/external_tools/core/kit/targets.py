"""What a kit can be made for: a bundle, a sweep, or a definition by its file or its tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from valska.external_tools.core.archive.places import SUFFIX as ARCHIVE_SUFFIX
from valska.external_tools.core.errors import PrerequisiteError, UsageError, VerificationError
from valska.external_tools.core.images.definition import SUFFIX, shipped_definitions
from valska.external_tools.core.images.record import ImageRecord, read_record
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.recipe import read_recipe
from valska.external_tools.core.manifest import (
    BorrowedEntry,
    InputEntry,
    Manifest,
    read_manifest,
)
from valska.external_tools.core.run_directory import Bundle, is_bundle
from valska.external_tools.core.seal import seal_of
from valska.external_tools.core.site import reference_places
from valska.external_tools.core.submission.preparation import site_image
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.sweep.document import read_common
from valska.external_tools.core.sweep.layout import is_sweep, open_sweep, open_unit, sweep_of
from valska.external_tools.core.tool import load_tool, tool_names
from valska.external_tools.core.utils import sha256_file

_RECORD_SUFFIX = ".image.json"
_EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetImage:
    """The image that runs need.

    Parameters
    ----------
    sha256
        Its digest.
    path
        Where it is; None where it is in the store or nowhere.
    record
        What is known of it.
    files
        Name to place of the definition and the lock that it was built from.
    """

    sha256: str
    path: Path | None = None
    record: ImageRecord | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a kit is for.

    Parameters
    ----------
    kind
        ``bundle``, ``sweep``, ``archive`` or ``definition``.
    name
        Of its directory, or of the definition.
    identity
        Bundle id, seal of what a sweep's points share, or SHA-256 of the definition.
    tool
        Name of the tool, if there is one.
    image
        What its runs need; None where they need none, or it is inside.
    inputs
        Files that lie outside, with where they are, as far as they are there.
    borrowed
        Directories that lie outside.
    definition, arguments
        What the image is built from.
    left_out
        Files of its own that an archive does not have.
    """

    kind: str
    name: str
    identity: str
    tool: str | None = None
    image: TargetImage | None = None
    inputs: tuple[tuple[InputEntry, Path | None], ...] = ()
    borrowed: tuple[BorrowedEntry, ...] = ()
    definition: Path | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """What the kit says of it."""
        return {"kind": self.kind, "name": self.name, "id": self.identity}


def find_target(text: str, images: Callable[[str | None], Path], scratch: Path) -> Target:
    """Return what a word on the command line means.

    Parameters
    ----------
    text
        A path of a bundle, a sweep, a point of one, an archive of one, or a definition; or the
        name of a tool or of a definition that comes with valska.
    images
        Gives the store's directory that holds for a tool.
    scratch
        An empty directory, for what is taken out of an archive; needed as long as the target.

    Raises
    ------
    UsageError
        If it means nothing.
    ManifestError
        If it is a bundle or a sweep that cannot be read.
    """
    path = Path(text)
    if path.is_file():
        return _of_file(path, images, scratch)
    return _of_directory(path) or _of_definition(_named(text), images)


def _of_directory(path: Path) -> Target | None:
    if is_sweep(path):
        sweep = open_sweep(path)
        common = read_common(sweep)
        return _of_run("sweep", sweep.bundle, common, seal_of(sweep.bundle))
    if is_bundle(path) or sweep_of(path):
        unit = open_unit(path)
        manifest = read_manifest(unit)
        return _of_run("bundle", unit, manifest, manifest.bundle_id)
    return None


def _of_run(kind: str, bundle: Bundle, manifest: Manifest, identity: str) -> Target:
    places = reference_places(bundle.site_env, manifest.outside())
    inputs = {e.path: e for e in manifest.inputs if e.mode == "reference"}
    definition = next(iter(sorted(bundle.containers.glob(f"*{SUFFIX}"))), None)
    facts = manifest.image or {}
    return Target(
        kind=kind,
        name=bundle.path.name,
        identity=identity,
        tool=manifest.tool,
        image=_image(bundle, facts) if facts and not facts.get(_EMBEDDED) else None,
        inputs=tuple((entry, _there(Path(places[place]))) for place, entry in inputs.items()),
        borrowed=manifest.borrowed,
        definition=definition,
        arguments=dict(facts.get("build_arguments") or {}),
    )


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _image(bundle: Bundle, facts: Mapping[str, object]) -> TargetImage:
    files = {path.name: path for path in sorted(bundle.containers.iterdir())}
    records = [path for name, path in files.items() if name.endswith(_RECORD_SUFFIX)]
    path = site_image(bundle.site_env)
    return TargetImage(
        sha256=str(facts["sha256"]),
        path=path if path is not None and path.is_file() else None,
        record=read_record(records[0]) if records else None,
        files={name: path for name, path in files.items() if path not in records},
    )


def _of_file(path: Path, images: Callable[[str | None], Path], scratch: Path) -> Target:
    if path.name.endswith(SUFFIX):
        return _of_definition(path, images)
    if not path.name.endswith(ARCHIVE_SUFFIX):
        raise UsageError(
            f"{path} is neither a bundle, a sweep, an archive nor a definition",
            f"An archive's name ends in {ARCHIVE_SUFFIX}, a definition's in {SUFFIX}.",
        )
    from valska.external_tools.core.kit.archived import take_out, without_packed

    place, document = take_out(path, scratch)
    found = _of_directory(place)
    if found is None:
        raise VerificationError(f"{path} has neither a bundle nor a sweep in it")
    return without_packed(found, document, path.name)


def _of_definition(path: Path, images: Callable[[str | None], Path]) -> Target:
    recipe = read_recipe(path)
    name, sha256 = path.name.removesuffix(SUFFIX), recipe.definition.sha256
    lock = recipe.lock_path
    tool = name if name in tool_names() else None
    digest = sha256_file(lock) if lock is not None and lock.is_file() else None
    record = ImageStore(images(tool)).newest(name, definition_sha256=sha256, lock_sha256=digest)
    return Target(
        kind="definition",
        name=name,
        identity=sha256,
        tool=tool,
        image=TargetImage(sha256=record.sha256, record=record) if record else None,
        definition=path.absolute(),
    )


def _named(text: str) -> Path:
    """Return the definition that a name means."""
    shipped, tools = shipped_definitions(), tool_names()
    name = load_tool(text).definition if text in tools else text
    found = shipped.get(name.removesuffix(SUFFIX))
    if found is not None and Path(text).parent.name in ("", "containers"):
        return found
    if text in tools:
        raise PrerequisiteError(
            f"the definition of {text}, {name}, does not come with valska",
            "Name its file, or a bundle.",
        )
    raise UsageError(
        f"there is no bundle, sweep, tool or definition {text!r}",
        did_you_mean(text, {*shipped, *tools})
        or f"Known names: {', '.join(sorted({*shipped, *tools}))}.",
    )
