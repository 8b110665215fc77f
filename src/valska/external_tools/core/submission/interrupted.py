"""Takes up a submit that was cut short, where it stopped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from valska.external_tools.core.records import read_records
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobRef, Scheduler
from valska.external_tools.core.submission.intents import Clock, Intent, reconcile, unconfirmed
from valska.external_tools.core.submission.jobsfile import JobEntry
from valska.external_tools.core.submission.ledger import update_entries

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TakenUp:
    """Stages of the interrupted submit: those of it that were sent, and those never sent."""

    found: frozenset[str] = frozenset()
    never_sent: frozenset[str] = frozenset()


def take_up(
    bundle: Bundle,
    entries: dict[str, JobEntry],
    scheduler: Scheduler,
    settle_s: float,
    clock: Clock,
) -> TakenUp:
    """Settle the intents of an interrupted submit, in `entries` and in jobs.json.

    Raises
    ------
    OutcomeUnknownError
        If the scheduler does not answer.
    """
    open_entries = unconfirmed(bundle, entries.values())
    if not open_entries:
        return TakenUp()
    records = read_records(bundle)

    def seen(intent: Intent) -> JobRef | None:
        record = records.named(intent.name)
        known = record is not None and record.scheduler == intent.scheduler
        return JobRef(record.job_id, intent.name, intent.cluster) if record and known else None

    result = reconcile(bundle, open_entries, scheduler, seen, settle_s=settle_s, clock=clock)
    tokens = {entry.token for entry in open_entries}
    names = {entry.name: entry.stage for entry in open_entries}
    for name, ref in result.adopted.items():
        stage = names[name]
        log.warning("stage %s had been sent already, as job %s", stage, ref.job_id)
        entries[stage] = replace(entries[stage], job_id=ref.job_id, cluster=ref.cluster)
    never_sent = frozenset(names[name] for name in result.never_sent)
    for stage in never_sent:
        del entries[stage]
    update_entries(bundle, entries)
    found = frozenset(stage for stage, entry in entries.items() if entry.token in tokens)
    return TakenUp(found, never_sent)
