"""From a sealed bundle to a verdict: make it again, run it, compare."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from valska.external_tools.core.comparison.document import FILE_NAME as DOCUMENT
from valska.external_tools.core.comparison.document import to_json
from valska.external_tools.core.comparison.page import FILE_NAME as PAGE
from valska.external_tools.core.comparison.page import render_page
from valska.external_tools.core.comparison.runs import Comparison, compare_runs
from valska.external_tools.core.comparison.verdict import Tolerances
from valska.external_tools.core.comparison.written import COMPLETED, read_written
from valska.external_tools.core.conda import CondaEnvironment, read_environment
from valska.external_tools.core.config import Settings
from valska.external_tools.core.errors import PrerequisiteError, VerificationError
from valska.external_tools.core.images import digest_image
from valska.external_tools.core.jobs import Submission, submit
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.records import RecordState, read_records
from valska.external_tools.core.reproduction.images import (
    ELSEWHERE,
    Found,
    Source,
    find_image,
    note_image,
    noted_image,
)
from valska.external_tools.core.reproduction.left_out import told_of
from valska.external_tools.core.reproduction.replay import Parent, check_made, has_ranks, recreate
from valska.external_tools.core.reproduction.software import software_notes
from valska.external_tools.core.run_directory import Bundle, TakenError, is_bundle
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.site import Site, write_site_env
from valska.external_tools.core.site_settings import site_of
from valska.external_tools.core.status import RunStatus, StageState, wait
from valska.external_tools.core.submission.preparation import prepare
from valska.external_tools.core.sweep.layout import Sweep, is_sweep
from valska.external_tools.core.utils import write_atomic, write_json_atomic

OTHER_PLACE = "Choose another directory with -o DIR."
Anew = TypeVar("Anew")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The files of a reproduction by name.

    Parameters
    ----------
    path
        Its directory.
    """

    path: Path

    @property
    def bundle(self) -> Bundle:
        """The new bundle."""
        return Bundle(self.path / "bundle")

    @property
    def sweep(self) -> Sweep:
        """The new sweep, where it is one."""
        return Sweep(self.path / "sweep")

    @property
    def reference(self) -> Path:
        """Where an archive was unpacked."""
        return self.path / "reference"

    @property
    def image_note(self) -> Path:
        """How the image was come by."""
        return self.path / "image.json"

    @property
    def document(self) -> Path:
        """The comparison, for programs."""
        return self.path / DOCUMENT

    @property
    def packages(self) -> Path:
        """The packages of the reference's conda environment, where the new one has others."""
        return self.path / "environment.txt"

    @property
    def page(self) -> Path:
        """The comparison, for a person."""
        return self.path / PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of a reproduction.

    Parameters
    ----------
    parent
        What to reproduce.
    place
        Where to.
    settings
        What holds here for its tool.
    scheduler
        Where to run it.
    image
        The image that the user names.
    ranks
        Stage to another number of MPI ranks than the parent's.
    extra
        Options of sbatch for all stages.
    sources
        Further ways to an image, see `find_image`.
    """

    parent: Parent
    place: Reproduction
    settings: Settings
    scheduler: Scheduler
    image: Path | None = None
    ranks: Mapping[str, int] | None = None
    extra: Sequence[str] = ()
    sources: tuple[Source, ...] = ELSEWHERE


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle that reproduces another, and where its image was found; None without one."""

    bundle: Parent
    image: Found | None


def require_outputs(parent: Parent) -> None:
    """Refuse a reference that has nothing to compare with.

    Raises
    ------
    PrerequisiteError
        If none of its stages has completed.
    """
    states = read_written(parent.bundle, parent.manifest, fast=True).states
    if COMPLETED not in states.values():
        told = ", ".join(f"{name} is {state}" for name, state in states.items())
        raise PrerequisiteError(
            f"{parent.bundle.path} has no outputs to compare with: {told}",
            what_to_run(parent, states.values()),
        )


def what_to_run(parent: Parent, states: Iterable[str]) -> str:
    """Return the hint for a reference that has no outputs, by how far its stages came."""
    if parent.packed:
        return "Its archive was made too early: have the run finished, and packed again."
    if RecordState.RUNNING in states:
        return "It runs, or was killed: `valska status` says which; reproduce it when it has ended."
    return "Run it first: `valska submit`."


def make(wish: Wish) -> Made:
    """Make the new bundle, or take the one that an earlier call has made.

    Raises
    ------
    TakenError
        If something else lies there.
    PrerequisiteError
        If there is no image or environment.
    ValskaError
        If it cannot be made.
    """
    there = earlier(wish)
    if there is not None:
        return Made(there, None)
    return Made(*make_anew(wish, partial(recreate, wish.parent, wish.place.bundle.path)))


def make_anew(wish: Wish, recreate: Callable[..., Anew]) -> tuple[Anew, Found | None]:
    """Make a new bundle or sweep with the software that is found for it.

    Parameters
    ----------
    wish
        What is asked for.
    recreate
        Makes it, from what `valska.external_tools.core.reproduction.replay.recreate` has after its
        ``*``.

    Returns
    -------
    tuple
        What was made, and where its image was found; None without one.

    Raises
    ------
    ValskaError
        See `make`.
    """
    found = image_of(wish)
    site = site_of(wish.settings, RunnerKind(wish.parent.manifest.runner))
    try:
        made = recreate(
            site=site,
            image=found.image if found else None,
            environment=environment_of(site, wish.parent.manifest),
            ranks=wish.ranks,
        )
    except TakenError as error:
        raise TakenError(error.message, OTHER_PLACE) from error
    if found is not None:
        note_image(wish.place.image_note, found)
    return made, found


def image_of(wish: Wish) -> Found | None:
    """Return the image to run with; None for another runner.

    Raises
    ------
    PrerequisiteError
        If none is found.
    """
    if RunnerKind(wish.parent.manifest.runner) is not RunnerKind.CONTAINER:
        return None
    return find_image(wish.parent, wish.settings, wish.image, wish.sources)


def run(wish: Wish, made: Made) -> Submission:
    """Send what has neither completed nor waits or runs.

    Raises
    ------
    ValskaError
        If a sealed file or the image is not as it was, or the scheduler takes no job.
    """
    bundle, manifest = made.bundle.bundle, made.bundle.manifest
    named = str(wish.image) if wish.image else None
    if named is None and made.image is not None:
        named = str(made.image.image.path)
    with whose(bundle.path):
        prepared = prepare(bundle, manifest, wish.settings, wish.scheduler, named)
    return submit(
        bundle,
        manifest,
        wish.scheduler,
        seal=prepared.seal,
        resume=_was_begun(made.bundle),
        extra=wish.extra,
        ready=lambda: write_site_env(bundle.site_env, prepared.site),
    )


def _was_begun(made: Parent) -> bool:
    """Return whether stages were sent; one that was run by hand has a record alone."""
    records = read_records(made.bundle)
    return made.bundle.jobs.is_file() or any(records.of(one.name) for one in made.manifest.stages)


@contextmanager
def whose(made: Path) -> Iterator[None]:
    """Say of what is not as it was made that it is of the new run, and what to do about it."""
    try:
        yield
    except VerificationError as error:
        raise VerificationError(
            f"the new run {made} is not as it was made: {error.message}",
            f"Put back what it was made with; or remove {made}, and it is made again.",
        ) from error


def follow(
    wish: Wish,
    made: Made,
    on_change: Callable[[RunStatus], None],
    sleep: Callable[[float], None],
) -> RunStatus:
    """Wait until no stage of the new bundle waits or runs."""
    return wait(
        made.bundle.bundle,
        made.bundle.manifest,
        wish.scheduler,
        on_change=on_change,
        sleep=sleep,
        longest_poll=2.0 if wish.scheduler.name == "local" else 30.0,
    )


def conclude(
    place: Reproduction,
    parent: Parent,
    made: Made,
    status: RunStatus,
    tolerances: Tolerances,
) -> Comparison:
    """Compare the new run with its parent, and write down what was found.

    Raises
    ------
    ValskaError
        If one of them cannot be read, or the files cannot be written.
    """
    found = compare_runs(
        parent.bundle, made.bundle.bundle, tolerances, reasons=dict(_reasons(status))
    )
    how = noted_image(place.image_note, made.bundle.manifest)
    notes = software_notes(parent, made.bundle, place.packages, how)
    found = told_of(parent, replace(found, notes=(*found.notes, *notes)))
    write_comparison(found, place.document, place.page)
    return found


def write_comparison(comparison: Comparison, document: Path, page: Path) -> None:
    """Write ``comparison.json`` and the page."""
    write_json_atomic(document, to_json(comparison))
    write_atomic(page, render_page(comparison).encode())


def _reasons(status: RunStatus) -> list[tuple[str, str]]:
    bad = [one for one in status.stages if one.state is not StageState.COMPLETED]
    return [(one.stage, one.reason or one.state.value) for one in bad]


def earlier(wish: Wish) -> Parent | None:
    """Return the bundle that an earlier call has made there; None if there is none.

    Raises
    ------
    TakenError
        If something else lies there.
    """
    bundle, sweep = wish.place.bundle, wish.place.sweep.path
    if is_sweep(sweep):
        raise TakenError(f"{sweep} is there, of another reproduction", OTHER_PLACE)
    if not is_bundle(bundle.path):
        return None
    manifest = read_manifest(bundle)
    if manifest.parent != wish.parent.manifest.bundle_id:
        raise TakenError(
            f"{bundle.path} is there, and does not reproduce {wish.parent.bundle.path}",
            OTHER_PLACE,
        )
    require_image(bundle.path, manifest, wish.image)
    if not has_ranks(wish.parent.manifest, manifest, wish.ranks):
        raise TakenError(f"{bundle.path} is there, with other numbers of MPI ranks", OTHER_PLACE)
    made = Parent(bundle, manifest)
    check_made(wish.parent, made, wish.ranks)
    return made


def require_image(made: Path, manifest: Manifest, named: Path | None) -> None:
    """Refuse what an earlier call has made with another image than the one that is named.

    Raises
    ------
    TakenError
        If it was.
    PrerequisiteError
        If there is no such image.
    """
    if named is None or manifest.image is None:
        return
    if digest_image(named.expanduser()) != manifest.image["sha256"]:
        raise TakenError(
            f"{made} is there, made with another image than {named}",
            OTHER_PLACE,
        )


def environment_of(site: Site, manifest: Manifest) -> CondaEnvironment | None:
    """Return the conda environment of this site; None without one.

    Parameters
    ----------
    site
        This site.
    manifest
        Of what is reproduced; it is told if its environment has other packages.

    Raises
    ------
    PrerequisiteError
        If the environment cannot be listed.
    """
    if site.conda is None:
        return None
    found = read_environment(site.conda)
    if found.explicit_sha256 != (manifest.environment or {}).get("explicit_sha256"):
        log.warning("the conda environment %s has other packages than the bundle's", found.name)
    return found
