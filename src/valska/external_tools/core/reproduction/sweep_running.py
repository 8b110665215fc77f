"""From a sealed sweep to a verdict on each of its points: make it again, run it, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from valska.external_tools.core.comparison.document import to_json
from valska.external_tools.core.comparison.sweep_page import render_sweep_page
from valska.external_tools.core.comparison.sweeps import (
    SweepComparison,
    SweepSide,
    compare_sweeps,
    read_side,
)
from valska.external_tools.core.comparison.verdict import Tolerances
from valska.external_tools.core.comparison.written import COMPLETED, read_written
from valska.external_tools.core.errors import PrerequisiteError, SubmissionError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.reproduction.images import Found, noted_image
from valska.external_tools.core.reproduction.left_out import told_of_sweep
from valska.external_tools.core.reproduction.replay import Parent, has_ranks, must_agree
from valska.external_tools.core.reproduction.running import (
    OTHER_PLACE,
    Wish,
    make_anew,
    require_image,
    what_to_run,
    whose,
)
from valska.external_tools.core.reproduction.software import software_notes
from valska.external_tools.core.reproduction.sweep_reference import SweepParent
from valska.external_tools.core.reproduction.sweep_replay import other_units, recreate_sweep
from valska.external_tools.core.run_directory import TakenError, is_bundle
from valska.external_tools.core.site import write_site_env
from valska.external_tools.core.status import StageState
from valska.external_tools.core.submission.preparation import describe_site, write_receipt
from valska.external_tools.core.sweep.dispatch.intact import require_common_intact
from valska.external_tools.core.sweep.dispatch.slices import Kind
from valska.external_tools.core.sweep.dispatch.submission import SweepSubmission, submit_sweep
from valska.external_tools.core.sweep.following.status import SweepStatus, wait_sweep
from valska.external_tools.core.sweep.layout import is_sweep
from valska.external_tools.core.utils import write_atomic, write_json_atomic

_LABELS = 5
_AGAIN_S = 300.0
"""Seconds after which what there was no room for is tried again."""


@dataclass(frozen=True, slots=True)
class SweepWish:
    """What is asked of the reproduction of a sweep.

    Parameters
    ----------
    parent
        What to reproduce.
    whole
        All else; its parent is what the points share.
    """

    parent: SweepParent
    whole: Wish


@dataclass(frozen=True, slots=True)
class MadeSweep:
    """A sweep that reproduces another, and where its image was found; None without one."""

    side: SweepSide
    image: Found | None


def require_any_outputs(parent: SweepParent) -> None:
    """Refuse a reference that has nothing to compare with.

    Raises
    ------
    PrerequisiteError
        If no stage of any point has completed.
    """
    states: set[str] = set()
    for point in parent.points:
        unit = parent.sweep.unit(point.place)
        states.update(read_written(unit, read_manifest(unit), fast=True).states.values())
        if COMPLETED in states:
            return
    raise PrerequisiteError(
        f"{parent.sweep.path} has no outputs to compare with: nothing in it has completed",
        what_to_run(parent.common, states),
    )


def make_sweep(wish: SweepWish) -> MadeSweep:
    """Make the new sweep, or take the one that an earlier call has made.

    Raises
    ------
    TakenError
        If something else lies there, or a sweep of other points.
    PrerequisiteError
        If there is no image or environment.
    ValskaError
        If it cannot be made.
    """
    whole = wish.whole
    there = earlier_sweep(wish)
    if there is not None:
        return MadeSweep(there, None)
    return MadeSweep(
        *make_anew(whole, partial(recreate_sweep, wish.parent, whole.place.sweep.path))
    )


def send(wish: SweepWish, made: MadeSweep, *, again: bool = True) -> SweepSubmission:
    """Send what has neither completed nor waits or runs, as far as there is room for it.

    Parameters
    ----------
    wish, made
        What is reproduced.
    again
        Send also what has been sent and has ended without success.

    Raises
    ------
    ValskaError
        If a sealed file or the image is not as it was, or the scheduler takes no job.
    """
    whole, side = wish.whole, made.side
    sweep, common = side.sweep, side.common
    named = str(whole.image) if whole.image else None
    if named is None and made.image is not None:
        named = str(made.image.image.path)
    with whose(sweep.path):
        site = describe_site(sweep.bundle, common, whole.settings, whole.scheduler, named)
        require_common_intact(sweep, side.manifest, common, site.references)

    def ready() -> None:
        write_site_env(sweep.bundle.site_env, site)
        embedded = (common.image or {}).get("embedded")
        write_receipt(sweep.bundle, common, sweep.path / str(embedded) if embedded else site.image)

    return submit_sweep(
        sweep,
        side.manifest,
        whole.scheduler,
        only=() if again else (Kind.MISSING.value,),
        resume=sweep.bundle.jobs.is_file(),
        extra=whole.extra,
        ready=ready,
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of the new sweep.

    Parameters
    ----------
    status
        Of its points.
    blocked
        Place and stage to why it could not be sent.
    """

    status: SweepStatus
    blocked: Mapping[tuple[str, str], str]


def follow_sweep(
    wish: SweepWish,
    made: MadeSweep,
    sent: SweepSubmission,
    on_change: Callable[[SweepStatus], None],
    sleep: Callable[[float], None],
) -> Ended:
    """Wait until nothing of the new sweep waits or runs, sending the rest as there is room.

    Parameters
    ----------
    wish, made
        What is reproduced.
    sent
        What was sent last.
    on_change, sleep
        See `wait_sweep`.

    Raises
    ------
    ValskaError
        See `send`.
    """
    rest = _Rest(wish, made, sent, sleep)
    longest = 2.0 if wish.whole.scheduler.name == "local" else 60.0
    while True:
        status = wait_sweep(
            made.side.sweep,
            made.side.manifest,
            wish.whole.scheduler,
            on_change=on_change,
            sleep=rest.sleep,
            longest_poll=longest,
        )
        if not rest.is_left:
            return Ended(status, rest.blocked)
        if not rest.send():
            sleep(longest / 2)


class _Rest:
    """What there was no room for: it is sent later, and now and then while the others run."""

    def __init__(
        self,
        wish: SweepWish,
        made: MadeSweep,
        sent: SweepSubmission,
        sleep: Callable[[float], None],
    ) -> None:
        self._wish, self._made, self._sleep = wish, made, sleep
        self._slept = 0.0
        self.is_left = bool(sent.unsent)
        self.blocked = dict(sent.blocked)

    def sleep(self, seconds: float) -> None:
        """Let some seconds pass, and send what there is room for by then."""
        self._sleep(seconds)
        self._slept += seconds
        if self.is_left and self._slept >= _AGAIN_S:
            self.send()

    def send(self) -> bool:
        """Send what there is room for; return False if there still is none."""
        self._slept = 0.0
        try:
            sent = send(self._wish, self._made, again=False)
        except SubmissionError as error:
            if type(error) is not SubmissionError:
                raise
            # What is left waits for work that has failed.
            self.is_left = False
            return True
        self.is_left = bool(sent.unsent)
        self.blocked |= sent.blocked
        return bool(sent.arrays)


def conclude_sweep(
    wish: SweepWish,
    made: MadeSweep,
    ended: Ended,
    tolerances: Tolerances,
) -> SweepComparison:
    """Compare the new sweep with its parent, and write down what was found.

    Raises
    ------
    ValskaError
        If one of them cannot be read, or the files cannot be written.
    """
    found = compare_sweeps(
        wish.parent.side,
        made.side,
        tolerances,
        labels=wish.parent.labels,
        missing=wish.parent.missing,
        reasons=_reasons(ended),
    )
    side, place = made.side, wish.whole.place
    whole = Parent(side.sweep.bundle, side.common)
    how = noted_image(place.image_note, side.common)
    notes = software_notes(wish.parent.common, whole, place.packages, how)
    found = replace(found, notes=(*found.notes, *notes))
    found = told_of_sweep(wish.parent.common, found)
    write_json_atomic(place.document, to_json(found))
    write_atomic(place.page, render_sweep_page(found).encode())
    return found


def _reasons(ended: Ended) -> Mapping[str, Mapping[str, str]]:
    """Return why stages have not completed: place of a unit to stage to reason."""
    found: dict[str, dict[str, str]] = {}
    for label, row in ended.status.points.items():
        for one in row.values():
            if one.state is not StageState.COMPLETED:
                reason = one.reason or one.state.value
                found.setdefault(f"points/{label}", {})[one.stage] = reason
    for label, one in ended.status.shared.items():
        if one.state is not StageState.COMPLETED:
            found[f"shared/{label}"] = {one.stage: one.reason or one.state.value}
    for (place, stage), reason in ended.blocked.items():
        found.setdefault(place, {})[stage] = reason
    return found


def earlier_sweep(wish: SweepWish) -> SweepSide | None:
    """Return the sweep that an earlier call has made there; None if there is none.

    Raises
    ------
    TakenError
        If something else lies there, or a sweep of other points.
    """
    place = wish.whole.place
    path = place.sweep.path
    if is_bundle(place.bundle.path):
        raise TakenError(f"{place.bundle.path} is there, of another reproduction", OTHER_PLACE)
    if not is_sweep(path):
        return None
    side = read_side(place.sweep)
    if side.common.parent != wish.parent.side.manifest.common_seal:
        raise TakenError(
            f"{path} is there, and does not reproduce {wish.parent.sweep.path}", OTHER_PLACE
        )
    labels = [point.label for point in side.manifest.points]
    if labels != [point.label for point in wish.parent.points]:
        more = f" and {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
        raise TakenError(
            f"{path} is there, with other points: {', '.join(labels[:_LABELS])}{more}", OTHER_PLACE
        )
    ranks, common = wish.whole.ranks, wish.parent.side.common
    require_image(path, side.common, wish.whole.image)
    if not has_ranks(common, side.common, ranks):
        raise TakenError(f"{path} is there, with other numbers of MPI ranks", OTHER_PLACE)
    other = next(other_units(wish.parent, side), None)
    if other is not None and must_agree(common, side.common, ranks):
        raise TakenError(
            f"{path} is there, and its {other.place} has another bundle id than the reference's",
            OTHER_PLACE,
        )
    return side
