"""What a bundle needs before its stages are sent: an intact seal, its image, and this site."""

from __future__ import annotations

import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import (
    PrerequisiteError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images import digest_image
from valska.external_tools.core.images.store import ImageStore, receipt_line
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.scheduler import Scheduler, choose_scheduler
from valska.external_tools.core.seal import require_intact, seal_of
from valska.external_tools.core.site import Site, path_said
from valska.external_tools.core.site_settings import site_of
from valska.external_tools.core.slurm import Slurm
from valska.external_tools.core.submission.outside import find_outside
from valska.external_tools.core.utils import write_atomic

_NOWHERE = Path()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bundle that was found intact, and what its jobs have to know of this site."""

    seal: str
    site: Site


def scheduler_of(settings: Settings) -> Scheduler:
    """Return the scheduler that the settings ask for, with the site's own sbatch.

    Raises
    ------
    PrerequisiteError
        If Slurm is asked for and there is no sbatch.
    """
    return _chosen(settings, settings.scheduler)


def scheduler_here(settings: Settings) -> Scheduler:
    """Return the scheduler to ask about jobs: Slurm where the site's sbatch is, else the local."""
    return _chosen(settings, None)


def _chosen(settings: Settings, name: str | None) -> Scheduler:
    chosen = choose_scheduler(name, which=lambda _: shutil.which(settings.sbatch))
    return replace(chosen, sbatch=settings.sbatch) if isinstance(chosen, Slurm) else chosen


def prepare(
    bundle: Bundle,
    manifest: Manifest,
    settings: Settings,
    scheduler: Scheduler,
    image: str | None = None,
) -> Prepared:
    """Check a bundle and its image, and describe this site for its jobs; write nothing.

    Parameters
    ----------
    bundle
        The bundle.
    manifest
        Its manifest.
    settings
        What holds here for its tool.
    scheduler
        Where its stages will run.
    image
        Where the image is, if it is not in the store.

    Raises
    ------
    VerificationError
        If a sealed file, or the image, is not what the manifest says.
    PrerequisiteError
        If the image or a referenced input is not here (all that is missing is named), or the
        stages run on this machine and it has no Apptainer.
    ConfigError
        If the conda runner has no environment here.
    """
    site = describe_site(bundle, manifest, settings, scheduler, image)
    require_intact(bundle, site.references)
    return Prepared(seal_of(bundle), site)


def describe_site(
    bundle: Bundle,
    manifest: Manifest,
    settings: Settings,
    scheduler: Scheduler,
    image: str | None = None,
) -> Site:
    """Check the image, and describe this site for the jobs of a bundle or sweep.

    Parameters, and what is raised, are those of `prepare`; of a sweep, those of all its points.
    """
    runner = RunnerKind(manifest.runner)
    if runner is RunnerKind.CONTAINER and scheduler.name == "local":
        _require_apptainer(settings)
    outside = find_outside(bundle.site_env, manifest, Supplies(settings.images))
    place = _image(bundle, manifest, settings, image) if runner is RunnerKind.CONTAINER else None
    missing = [_no_image(manifest, settings)] if place == _NOWHERE else []
    if missing or outside.missing:
        raise _lacking(bundle, [*missing, *outside.missing], image=bool(missing))
    if place is not None and not _is_embedded(manifest, image):
        _check(place, _wanted(manifest))
    return replace(site_of(settings, runner), image=place, references=outside.places)


def write_receipt(bundle: Bundle, manifest: Manifest, image: Path | None) -> None:
    """Note that an image has been read and has its digest, so that array tasks need not read it.

    Parameters
    ----------
    bundle
        The sweep's common files.
    manifest
        What all its points have in common.
    image
        Where the image is; nothing is done without one, or where it cannot be written.
    """
    sha256 = str((manifest.image or {}).get("sha256", ""))
    if image is None or not sha256:
        return
    embedded = image.is_relative_to(bundle.path)
    folder = bundle.logs if embedded else image.parent
    with suppress(OSError, ValskaError):
        folder.mkdir(exist_ok=True)
        line = receipt_line(image, sha256)
        write_atomic(folder / f"{image.name}.receipt", line.encode())


def _require_apptainer(settings: Settings) -> None:
    """Refuse a machine without Apptainer, unless set-up lines may bring it."""
    if not settings.setup and shutil.which(settings.apptainer) is None:
        raise PrerequisiteError(
            f"no such program: {settings.apptainer}",
            "Install Apptainer, name it (apptainer) or load it (setup) in the configuration, "
            "or use --scheduler slurm.",
        )


def _image(bundle: Bundle, manifest: Manifest, settings: Settings, image: str | None) -> Path:
    """Return where the image is: as named, in the bundle, in the store, where it was, nowhere."""
    if image is not None:
        return Path(image).absolute()
    if _is_embedded(manifest, image):
        return bundle.path / str((manifest.image or {})["embedded"])
    stored = ImageStore(settings.images).sif(_wanted(manifest))
    candidates = [stored, site_image(bundle.site_env)]
    return next((path for path in candidates if path is not None and path.is_file()), _NOWHERE)


def _is_embedded(manifest: Manifest, image: str | None) -> bool:
    return image is None and bool((manifest.image or {}).get("embedded"))


def _wanted(manifest: Manifest) -> str:
    return str((manifest.image or {}).get("sha256", ""))


def _no_image(manifest: Manifest, settings: Settings) -> str:
    return (
        f"the image {_wanted(manifest)[:12]} is neither in the store {settings.images} "
        "nor where it was"
    )


def _lacking(bundle: Bundle, missing: list[str], *, image: bool) -> PrerequisiteError:
    """Return the error that names all that is not here, with what brings it."""
    name = shlex.quote(bundle.path.name)
    bring = (
        f"Where it was made: valska fetch {name} --for run -o kit.tar. Then, here: "
        "valska load kit.tar"
    )
    if len(missing) > image:
        text = "; ".join(missing if image else ["not here: " + missing[0], *missing[1:]])
        return PrerequisiteError(text, bring)
    definition = next(iter(sorted(bundle.containers.glob("*.def"))), "its definition")
    build = f"Name it with --image PATH, or build it: valska build {definition}"
    return PrerequisiteError(missing[0], f"{build}. {bring}")


def _check(path: Path, wanted: str) -> None:
    digest = digest_image(path)
    if digest != wanted:
        raise VerificationError(
            f"the image {path} is not the manifest's: its sha256 is {digest[:12]}…, "
            f"not {wanted[:12]}…",
            "Name the right one with --image PATH, or bundle again with this one.",
        )


def site_image(site_env: Path) -> Path | None:
    """Return where ``site.env`` says that the image is, or None."""
    prefix = "VALSKA_IMAGE="
    try:
        lines = site_env.read_text(encoding="utf-8").splitlines()
        texts = [
            shlex.split(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)
        ]
    except (OSError, ValueError):
        return None
    return path_said(site_env, texts[-1][0]) if texts and texts[-1] and texts[-1][0] else None
