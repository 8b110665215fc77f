"""Building an image again, to see whether it comes out the same."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.building.draft import BuildDraft, BuildRequest, draft_build
from valska.external_tools.core.images.building.make import make_image
from valska.external_tools.core.images.building.transcript import Progress
from valska.external_tools.core.images.contents import Contents, find_contents
from valska.external_tools.core.images.difference import IDENTICAL, Difference, compare
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.process import Run, run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuild:
    """An image built again, and compared.

    Parameters
    ----------
    against
        What it is compared with.
    record
        Of the rebuilt image, which is not kept.
    difference
        How it differs.
    log
        What the build printed.
    """

    against: str
    record: ImageRecord
    difference: Difference
    log: Path

    @property
    def is_identical(self) -> bool:
        """Whether it is the same to the last bit."""
        return self.difference.level == IDENTICAL

    @property
    def same(self) -> bool:
        """Whether all files and their modes are the same."""
        return self.difference.same


def check_build(
    request: BuildRequest,
    against: str | None = None,
    *,
    run: Run = run,
    progress: Progress | None = None,
) -> Rebuild:
    """Build an image again, aside from the store, and compare it with what was built.

    Build arguments of the record are given again, unless the request has others.

    Parameters
    ----------
    request
        What to build.
    against
        Image or record to compare with, as `find_contents` takes it. None: the store's image of
        the same parts, or else its newest one of the definition's name.
    run
        Runs programs.
    progress
        Told every line that the build prints.

    Raises
    ------
    PrerequisiteError
        If there is nothing to compare with, or it cannot be built here.
    ValskaError
        If the build fails.
    """
    draft = draft_build(request, run=run)
    built = _built(draft, against)
    draft = _with_arguments(draft, built, run)
    _note_base(draft, built)
    with request.store.workspace() as out:
        packed, record, log = make_image(draft, out, run=run, progress=progress)
        rebuilt = Contents("the rebuild", record=record, sif=packed.sif)
        rebuilt.listing = packed.listing
        difference = compare(built, rebuilt)
    return Rebuild(built.title, record, difference, log)


def _built(draft: BuildDraft, against: str | None) -> Contents:
    store, name = draft.request.store, draft.definition.path.stem
    if against is not None:
        return find_contents(against, store)
    record = draft.existing or store.newest(name)
    if record is None:
        raise PrerequisiteError(
            f"the store {store.root} has no image of {name} to compare with",
            f"Build it: valska build {draft.definition.path}. Or name one: --against IMAGE|RECORD.",
        )
    return find_contents(f"sha256:{record.sha256}", store)


def _note_base(draft: BuildDraft, built: Contents) -> None:
    base = built.record.base if built.record else None
    if base and base["sha256"] != draft.base.sha256:
        log.warning(
            "%s was built on another base, %s; name that one with --base to build on it again",
            built.title,
            base["reference"],
        )


def _with_arguments(draft: BuildDraft, built: Contents, run: Run) -> BuildDraft:
    recorded = dict(built.record.build_arguments) if built.record else {}
    arguments = {**recorded, **draft.request.build_arguments}
    if arguments == dict(draft.request.build_arguments):
        return draft
    return draft_build(replace(draft.request, build_arguments=arguments), run=run)
