"""Sends the slices of a sweep, as many as there is room for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.scheduler import FullError, JobRequest, OutcomeUnknownError
from valska.external_tools.core.sweep.dispatch.ledger import SweepLedger
from valska.external_tools.core.sweep.dispatch.limits import Limits
from valska.external_tools.core.sweep.dispatch.requests import Draft, Drafter
from valska.external_tools.core.sweep.dispatch.slices import Slice, Work, cut_slices, fit

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Unsent:
    """What was not sent.

    Parameters
    ----------
    stages
        What does not fit: stage to number of units.
    why
        Whose limit that is.
    refused
        Place and stage of what was refused, and why.
    """

    stages: Counter[str] = field(default_factory=Counter)
    why: str | None = None
    refused: dict[tuple[str, str], str] = field(default_factory=dict)

    def leave(self, stages: Sequence[str], works: Sequence[Work]) -> None:
        """Count what does not fit."""
        for stage in stages:
            self.stages[stage] += len(works)

    def refuse(self, stages: Sequence[str], works: Sequence[Work], reason: str) -> None:
        """Note what was refused."""
        self.refused |= {(work.place, stage): reason for work in works for stage in stages}


@dataclass(slots=True, kw_only=True)
class Sender:
    """Sends slices one after the other.

    Parameters
    ----------
    ledger
        Writes down what is sent.
    drafter
        Makes lists and arrays of slices.
    limits
        Of the scheduler.
    dry_run
        Whether nothing is sent.
    """

    ledger: SweepLedger
    drafter: Drafter
    limits: Limits
    dry_run: bool
    commands: tuple[tuple[str, ...], ...] = ()
    unsent: Unsent = field(default_factory=Unsent)
    _room: int | None = None
    _probing: bool = False
    _together: list[Draft] = field(default_factory=list)

    @property
    def planned(self) -> dict[str, tuple[int, int]]:
        """In a dry run: stage to how many tasks in how many arrays would be sent."""
        found: dict[str, tuple[int, int]] = {}
        for draft in self._together if self.dry_run else ():
            for request in draft.requests:
                tasks, arrays = found.get(request.stage, (0, 0))
                found[request.stage] = tasks + len(request.tasks), arrays + 1
        return found

    def send(self, works: Sequence[Work]) -> None:
        """Send units in order; `unsent` then says what was not.

        Raises
        ------
        OutcomeUnknownError
            If it is not known whether the scheduler took an array.
        """
        self._room, self.unsent.why = self.limits.room, self.limits.why
        if works and not self.dry_run:
            self.ledger.sweep.bundle.logs.mkdir(exist_ok=True)
        for piece in cut_slices(works, self.limits.largest_array):
            rest: Slice | None = piece
            while rest is not None:
                rest = self._next(rest)
        self._send_together()

    def _next(self, piece: Slice) -> Slice | None:
        """Send as much of a slice as fits; return what is to be tried next."""
        now, rest = fit(piece, self._room, split=not self.ledger.sent and not self._together)
        if now is None:
            self.unsent.leave(piece.stages, piece.works)
            return None
        if missing := self.drafter.missing(now):
            self._skip(piece, missing)
            return None
        if self._send(self.drafter.draft(now)):
            self.unsent.leave(now.left_out, now.works)
            return rest
        return piece

    def _send(self, draft: Draft) -> bool:
        """Send a slice; return False if it has to be tried again, smaller."""
        if self.dry_run or any(request.job_id for request in draft.requests):
            self._together.append(draft)
            self.drafter.sent(draft, lambda request: request.job_id or f"<{request.name}>")
            self._take(draft)
            return True
        before = len(self.ledger.sent)
        try:
            self._submit(draft.requests, [draft])
        except FullError as error:
            return self._full(draft, len(self.ledger.sent) - before, error)
        except OutcomeUnknownError:
            raise
        except ValskaError as error:
            sent = len(self.ledger.sent) - before
            self._remove_unused(draft, sent)
            self.unsent.refuse(draft.piece.stages[sent:], draft.piece.works, error.message)
        else:
            self.drafter.sent(draft, self._id_of)
            self._take(draft)
        return True

    def _submit(self, requests: Sequence[JobRequest], drafts: Sequence[Draft]) -> None:
        ledger = self.ledger
        for draft in drafts:
            draft.listed.write(ledger.sweep)
        try:
            ledger.scheduler.submit(ledger.sweep.bundle, requests, ledger)
        except OutcomeUnknownError:
            raise
        except ValskaError:
            ledger.take_back()
            raise
        finally:
            ledger.save()
            self.commands = tuple(array.command for array in ledger.sent)

    def _send_together(self) -> None:
        """Send in one go what a scheduler with ids of its own takes; or only say it."""
        requests = [request for draft in self._together for request in draft.requests]
        if self.dry_run:
            self.commands = self.ledger.scheduler.commands(requests)
        elif requests:
            self._submit(requests, self._together)

    def _full(self, draft: Draft, sent: int, error: FullError) -> bool:
        """Make the room smaller after a refusal for want of room; what it is, is found out so."""
        piece = draft.piece
        self.unsent.why = error.message
        self._remove_unused(draft, sent)
        if not sent and len(piece.works) > 1:
            self._probing, self._room = True, len(piece.works) // 2 * len(piece.stages)
            return False
        self._room = 0
        self.unsent.leave(piece.stages[sent:], piece.works)
        return True

    def _remove_unused(self, draft: Draft, sent: int) -> None:
        if not sent:
            draft.listed.remove(self.ledger.sweep)

    def _skip(self, piece: Slice, missing: str) -> None:
        """Leave a slice whose shared work was not sent."""
        refused = (why for (place, _), why in self.unsent.refused.items() if place == missing)
        reason = next(refused, None)
        if reason is None:
            self.unsent.leave(piece.stages, piece.works)
        else:
            self.unsent.refuse(piece.stages, piece.works, f"it needs {missing}: {reason}")

    def _take(self, draft: Draft) -> None:
        if self._room is not None and not self._probing:
            self._room -= draft.tasks

    def _id_of(self, request: JobRequest) -> str:
        ids = (one.job_id for one in reversed(self.ledger.arrays) if one.name == request.name)
        return next(ids, None) or ""
