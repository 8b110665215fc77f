"""A bundle of the same intent, made from a sealed bundle alone: no configuration is rendered anew.

Configurations, inputs and commands are those that the seal covers, and the new bundle id is worked
out from what was written: with the same software it has to be the parent's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from valska.external_tools.core.bundling import BundledImage, BundleRequest, Draft, create
from valska.external_tools.core.comparison.runs import software_of
from valska.external_tools.core.conda import CondaEnvironment
from valska.external_tools.core.errors import PrerequisiteError, UsageError, VerificationError
from valska.external_tools.core.manifest import Manifest, StageEntry, bundle_id, read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.site import Site
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.tool import Input, Read, RunPlan, RunSpec, Stage

_LOG_OF_SWEEPS = "logs/%x-%A.log"
"""Where scripts of sweeps write their log; a bundle's scripts have another place."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A sealed bundle, or a point of a sweep, that is to be reproduced.

    Parameters
    ----------
    bundle
        The bundle.
    manifest
        Its manifest.
    outside
        Place in the bundle to where it is now, of referenced inputs and borrowed directories.
    image
        Where its image lies beside it, if an archive had it.
    published
        References at which registries have its image.
    packed, has_outputs
        Whether it was unpacked from an archive; and whether that has the outputs.
    """

    bundle: Bundle
    manifest: Manifest
    outside: Mapping[str, str] = field(default_factory=dict)
    image: Path | None = None
    published: tuple[str, ...] = ()
    packed: bool = False
    has_outputs: bool = True


@dataclass(slots=True)
class Replayed:
    """Plans what a bundle has planned already (a `Tool`)."""

    name: str
    inputs: tuple[Input, ...]
    planned: RunPlan
    summary: str = ""
    definition: str = ""
    templates_dir: Path = Path()
    stages: tuple[str, ...] = ()
    directives: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def discover(self, spec: RunSpec, read: Read) -> tuple[Input, ...]:
        """Return the inputs that the bundle has."""
        return self.inputs

    def plan(self, spec: RunSpec, inputs: tuple[Input, ...], read: Read) -> RunPlan:
        """Return the plan that the bundle has."""
        return self.planned


def check_science(parent: Parent) -> None:
    """Refuse a bundle whose id is not that of its content.

    Raises
    ------
    VerificationError
        If it is not.
    """
    if _science(parent) != parent.manifest.bundle_id:
        raise VerificationError(
            f"{parent.bundle.path} is not what its bundle id "
            f"{parent.manifest.bundle_id[:12]} stands for",
            "Its manifest contradicts itself; take the bundle from its origin.",
        )


def recreate(
    parent: Parent,
    place: Path,
    *,
    site: Site,
    image: BundledImage | None = None,
    environment: CondaEnvironment | None = None,
    ranks: Mapping[str, int] | None = None,
) -> Parent:
    """Make a bundle of the same intent, with the parent's bundle id as its ``parent``.

    Parameters
    ----------
    parent
        What to reproduce.
    place
        Directory of the new bundle.
    site
        What its jobs have to know of this site.
    image, environment
        The software, for the container and the conda runner.
    ranks
        Stage to another number of MPI ranks than the parent's.

    Raises
    ------
    RunDirectoryError
        If the place is taken or cannot be made.
    UsageError
        If a stage cannot have so many ranks.
    VerificationError
        If the same software did not give the same bundle id.
    """
    request, replayed = request_again(parent, place, site, image, environment, ranks or {})
    bundle = create(Draft(request, replayed.inputs, replayed.planned, place.absolute()))
    made = Parent(bundle, read_manifest(bundle))
    check_made(parent, made, ranks)
    return made


def must_agree(parent: Manifest, made: Manifest, ranks: Mapping[str, int] | None) -> bool:
    """Return whether what was made has to have the bundle ids of what it reproduces."""
    return software_of(parent) == software_of(made) and not ranks


def has_ranks(parent: Manifest, made: Manifest, ranks: Mapping[str, int] | None) -> bool:
    """Return whether what was made has the parent's MPI ranks, but for those that are asked for."""
    wanted = {one.name: (ranks or {}).get(one.name, one.ranks) for one in parent.stages}
    return wanted == {one.name: one.ranks for one in made.stages}


def check_made(parent: Parent, made: Parent, ranks: Mapping[str, int] | None) -> None:
    """Refuse what was made with the same software and has not the parent's bundle id.

    Raises
    ------
    VerificationError
        If it has not.
    """
    same = made.manifest.bundle_id == parent.manifest.bundle_id
    if not same and must_agree(parent.manifest, made.manifest, ranks):
        raise VerificationError(
            f"{made.bundle.path} has the bundle id {made.manifest.bundle_id[:12]}, not the "
            f"parent's {parent.manifest.bundle_id[:12]}",
            "Something changed while it was made; remove it and try again.",
        )


def request_again(
    parent: Parent,
    place: Path,
    site: Site,
    image: BundledImage | None,
    environment: CondaEnvironment | None,
    ranks: Mapping[str, int],
) -> tuple[BundleRequest, Replayed]:
    """Return the request for a bundle of the same intent, and what plans it; see `recreate`."""
    manifest = parent.manifest
    stages = tuple(_stage(entry, ranks.get(entry.name)) for entry in manifest.stages)
    for name in ranks:
        manifest.stage(name)
    spec = manifest.spec
    replayed = Replayed(
        manifest.tool,
        tuple(_inputs(parent)),
        RunPlan(
            stages,
            _configs(parent),
            spec["taxonomy"],
            manifest.section,
            borrowed=_borrowed(parent),
        ),
    )
    request = BundleRequest(
        tool=replayed,
        spec=RunSpec(
            tool=manifest.tool,
            run_id=manifest.run_id,
            source=Path(spec["source"]),
            taxonomy=spec["taxonomy"],
            overrides=spec["overrides"],
            perturbations=spec.get("perturbations", {}),
            options=spec.get("options", {}),
            directives={
                entry.name: _directives(entry, ranks.get(entry.name)) for entry in manifest.stages
            },
        ),
        runner=RunnerKind(manifest.runner),
        image=image,
        environment=environment,
        site=site,
        output=place,
        staging=StagingMode.REFERENCE,
        embed_image=bool((manifest.image or {}).get("embedded")),
        parent=manifest.bundle_id,
    )
    return request, replayed


def _stage(entry: StageEntry, ranks: int | None) -> Stage:
    stage = Stage(**{one.name: getattr(entry, one.name) for one in fields(Stage)})
    if ranks is None or ranks == stage.ranks:
        return stage
    if not stage.probe:
        raise UsageError(
            f"stage {stage.name} takes {stage.ranks} MPI rank only", "Leave its ranks as they are."
        )
    return replace(stage, ranks=ranks)


def _directives(entry: StageEntry, ranks: int | None) -> dict[str, str]:
    found = {
        name: value
        for name, value in entry.directives.items()
        if (name, value) != ("output", _LOG_OF_SWEEPS)
    }
    return found if ranks is None else {**found, "ntasks": str(ranks)}


def _inputs(parent: Parent) -> Iterator[Input]:
    """Yield the inputs: copied from the parent, but for those that lie outside of it too."""
    for entry in parent.manifest.inputs:
        target = entry.path.removeprefix(f"{parent.bundle.inputs.name}/")
        if entry.mode == StagingMode.REFERENCE:
            yield Input(entry.name, Path(parent.outside[entry.path]), target)
        else:
            there = parent.outside.get(entry.path, parent.bundle.inputs / target)
            yield Input(entry.name, Path(there), target, own=True)


def _configs(parent: Parent) -> dict[str, bytes]:
    folder = parent.bundle.config
    places = [entry.path for entry in parent.manifest.files if entry.role == "config"]
    names = [place.removeprefix(f"{folder.name}/") for place in places]
    return {name: (folder / name).read_bytes() for name in names}


def _borrowed(parent: Parent) -> dict[str, Path]:
    return {
        entry.path.removeprefix(f"{parent.bundle.outputs.name}/"): Path(parent.outside[entry.path])
        for entry in parent.manifest.borrowed
    }


def _science(parent: Parent) -> str:
    manifest = parent.manifest
    return bundle_id(
        manifest.tool,
        _configs(parent),
        manifest.stages,
        {
            **{entry.name: entry.sha256 for entry in manifest.inputs},
            **{entry.path: entry.sha256 for entry in manifest.borrowed},
        },
        software_of(manifest),
    )


def image_files(parent: Parent) -> dict[str, tuple[str, bytes]]:
    """Return definition, lock and image record that the parent holds: name to role and content."""
    folder = parent.bundle.containers
    roles = ("definition", "lock", "image-record")
    entries = [entry for entry in parent.manifest.files if entry.role in roles]
    return {
        Path(entry.path).name: (entry.role, (folder / Path(entry.path).name).read_bytes())
        for entry in entries
    }


def parent_image(parent: Parent, path: Path) -> BundledImage:
    """Return the parent's own image, found at a path.

    Raises
    ------
    PrerequisiteError
        If the parent has none.
    """
    facts = dict(parent.manifest.image or {})
    if not facts:
        raise PrerequisiteError(f"{parent.bundle.path} runs without an image")
    sha256, size = str(facts.pop("sha256")), int(facts.pop("size"))
    facts.pop("embedded", None)
    return BundledImage(path, sha256, size, facts, image_files(parent))
