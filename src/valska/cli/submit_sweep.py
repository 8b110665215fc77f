"""``valska submit`` and ``valska cancel`` on a sweep, or on a point of one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from valska.cli.output import note, plain, result, result_json
from valska.cli.quantities import count_text
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import SubmissionError, UsageError, ValskaError
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.site import write_site_env
from valska.external_tools.core.status import StageState
from valska.external_tools.core.submission.preparation import (
    describe_site,
    scheduler_here,
    scheduler_of,
    write_receipt,
)
from valska.external_tools.core.sweep.dispatch.cancelling import SweepCancellation, cancel_sweep
from valska.external_tools.core.sweep.dispatch.intact import require_common_intact
from valska.external_tools.core.sweep.dispatch.slices import choose_labels
from valska.external_tools.core.sweep.dispatch.submission import (
    KINDS,
    SweepSubmission,
    submit_sweep,
)
from valska.external_tools.core.sweep.document import (
    SweepManifest,
    read_common,
    read_sweep_manifest,
)
from valska.external_tools.core.sweep.following.status import SweepStatus, wait_sweep
from valska.external_tools.core.sweep.layout import Sweep, open_sweep, sweep_of

_SHOWN = 20
"""So many of the points that could not be sent are named."""


class PointFailedError(ValskaError):
    """A point that was waited for did not succeed."""


@dataclass(frozen=True, slots=True)
class Which:
    """What of which sweep a path and options mean.

    Parameters
    ----------
    path
        As the user named it.
    sweep, manifest
        The sweep.
    only
        Labels, patterns, and the words of ``--only``.
    stages
        Names; all, if None.
    """

    path: Path
    sweep: Sweep
    manifest: SweepManifest
    only: tuple[str, ...]
    stages: tuple[str, ...] | None


def which_of(path: Path, only: tuple[str, ...], stages: tuple[str, ...]) -> Which:
    """Return what is meant by a sweep, a point of one, or work that its points share.

    Raises
    ------
    UsageError
        If a point is named together with other labels.
    """
    sweep = sweep_of(path)
    if sweep is None:
        opened = open_sweep(path)
        return Which(path, opened, read_sweep_manifest(opened), only, stages or None)
    manifest = read_sweep_manifest(sweep)
    if any(word not in KINDS for word in only):
        raise UsageError(
            f"{path} is a point of a sweep; --only LABEL is for the whole",
            f"Name the sweep: {sweep.path}",
        )
    label = path.absolute().name
    if path.absolute().parent == sweep.points:
        word = _literal(manifest.point(label).label)
        return Which(path, sweep, manifest, (*only, word), stages or None)
    lent = [entry for entry in manifest.shared if entry.label == label]
    users = [point.label for point in manifest.points if label in point.shared.values()]
    if not lent or not users:
        raise UsageError(f"no point of this sweep uses {path}", "`valska status` lists them.")
    return Which(path, sweep, manifest, (*only, *map(_literal, users)), (lent[0].stage,))


def _literal(label: str) -> str:
    """Return a word of ``--only`` for a point, also for one that is called ``failed``."""
    return f"[{label[0]}]{label[1:]}" if label in KINDS else label


def submit(
    path: Path,
    *,
    only: tuple[str, ...],
    stages: tuple[str, ...],
    resume: bool,
    resubmit: bool,
    throttle: int | None,
    scheduler: str | None,
    waits: bool,
    extra: Sequence[str],
    image: str | None,
    dry_run: bool,
    as_json: bool,
    tool: str | None,
) -> None:
    """Send a sweep, or a part of it; see ``valska submit``."""
    which = which_of(path, only, stages)
    if tool and which.manifest.tool != tool:
        raise UsageError(
            f"{path} is a sweep of {which.manifest.tool}, not of {tool}",
            "`valska submit` takes sweeps of every tool.",
        )
    settings = resolve(which.manifest.tool, flags={"scheduler": scheduler}, path=state().config)
    chosen = scheduler_of(settings)
    sweep, common = which.sweep, read_common(which.sweep)
    site = describe_site(sweep.bundle, common, settings, chosen, image)
    require_common_intact(sweep, which.manifest, common, site.references)

    def ready() -> None:
        write_site_env(sweep.bundle.site_env, site)
        whole = common.image or {}
        embedded = whole.get("embedded")
        write_receipt(sweep.bundle, common, sweep.path / str(embedded) if embedded else site.image)

    done = submit_sweep(
        sweep,
        which.manifest,
        chosen,
        stages=which.stages,
        only=which.only,
        resume=resume,
        resubmit=resubmit,
        throttle=throttle,
        extra=extra,
        dry_run=dry_run,
        ready=ready,
    )
    _print(which, done, as_json)
    status = _wait(which, chosen) if waits and not dry_run else None
    _refuse_blocked(done)
    if status is not None:
        _require_success(status, which.stages)


def cancel(
    path: Path,
    *,
    only: tuple[str, ...],
    stages: tuple[str, ...],
    grace: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cancel a sweep, or a part of it; see ``valska cancel``."""
    which = which_of(path, only, stages)
    found = cancel_sweep(
        which.sweep,
        which.manifest,
        scheduler_here(resolve(which.manifest.tool, path=state().config)),
        stages=which.stages,
        only=which.only,
        grace_s=grace,
        dry_run=dry_run,
    )
    if as_json:
        result_json(_cancelled_json(found, dry_run))
        return
    for stage, places in found.cancelled.items():
        what = "would be cancelled" if dry_run else "cancelled"
        result(f"{stage} {what}: {count_text(len(places), 'task')}")
    if not found.cancelled:
        note("No stage waits or runs; there was nothing to cancel.")
    elif dry_run:
        note("Nothing was cancelled.")


def _cancelled_json(found: SweepCancellation, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "cancelled": found.cancelled,
        "jobs": [ref.job_id for ref in found.refs],
    }


def _print(which: Which, done: SweepSubmission, as_json: bool) -> None:
    if as_json:
        result_json(_as_json(which, done))
        return
    stages = [stage.name for stage in read_common(which.sweep).stages]
    for line in (*_planned(done, stages), *_arrays(done, stages)):
        result(line)
    for text in _notes(done):
        note(text)
    path = shlex.quote(str(which.path))
    if done.unsent:
        counts = ", ".join(f"{stage} {number}" for stage, number in done.unsent.items())
        note(f"No room for {counts}: {plain(done.why_unsent or '')}")
        note(f"Send the rest when there is: valska submit --resume {path}")
    if done.dry_run:
        note("Nothing was sent.")
    elif done.arrays or done.found:
        where = "Slurm" if done.scheduler == "slurm" else "this machine"
        note(f"Submitted to {where}. Next: valska status {path}")


def _planned(done: SweepSubmission, stages: Sequence[str]) -> Iterator[str]:
    """Yield what a dry run would send: a line for each stage, then every command."""
    if not done.dry_run:
        return
    for stage in stages:
        if stage in done.planned:
            tasks, arrays = done.planned[stage]
            yield f"{stage}: {count_text(tasks, 'task')} in {count_text(arrays, 'array')}"
    yield from map(shlex.join, done.commands)


def _arrays(done: SweepSubmission, stages: Sequence[str]) -> list[str]:
    """Return a line for each stage: how many tasks, in how many arrays, and which."""
    lines = []
    for again, arrays in (("", done.arrays), (" (sent by an interrupted submit)", done.found)):
        for stage in stages:
            of = [array for array in arrays if array.stage == stage]
            if of:
                tasks = count_text(sum(array.count for array in of), "task")
                ids = " ".join(array.job_id or "" for array in of)
                lines.append(f"{stage}: {tasks} in {count_text(len(of), 'array')}: {ids}{again}")
    return lines


def _notes(done: SweepSubmission) -> list[str]:
    live = "waits or runs" if done.live == 1 else "wait or run"
    kept = {"completed": done.completed, live: done.live}
    words = [f"{number} {word}" for word, number in kept.items() if number]
    lines = [f"Left alone: {', '.join(words)}."] if words else []
    if not done.arrays and not done.found and not done.unsent and not done.dry_run:
        lines.append("There is nothing to send.")
    blocked = _blocked(done)
    if len(blocked) > 1:
        lines += [f"Not sent: {text}" for text in blocked[:_SHOWN]]
    if len(blocked) > _SHOWN:
        lines.append(f"… and {len(blocked) - _SHOWN} more.")
    return lines


def _blocked(done: SweepSubmission) -> list[str]:
    """Return a line for each unit and reason, with all stages that could not be sent for it."""
    stages: dict[tuple[str, str], list[str]] = {}
    for (place, stage), reason in done.blocked.items():
        stages.setdefault((place, reason), []).append(stage)
    return [f"{', '.join(of)} of {place}: {plain(why)}" for (place, why), of in stages.items()]


def _as_json(which: Which, done: SweepSubmission) -> dict[str, Any]:
    return {
        "sweep": which.sweep.path,
        "scheduler": done.scheduler,
        "dry_run": done.dry_run,
        "token": done.token,
        "arrays": [asdict(array) for array in done.arrays],
        "found": [asdict(array) for array in done.found],
        "commands": [list(argv) for argv in done.commands],
        "unsent": done.unsent,
        "why_unsent": done.why_unsent,
        "completed": done.completed,
        "live": done.live,
        "blocked": [
            {"unit": place, "stage": stage, "reason": reason}
            for (place, stage), reason in done.blocked.items()
        ],
    }


def _refuse_blocked(done: SweepSubmission) -> None:
    if not done.blocked:
        return
    units, blocked = {place for place, _ in done.blocked}, _blocked(done)
    first = f"; {blocked[0]}" if len(blocked) == 1 else ""
    raise SubmissionError(
        f"{count_text(len(units), 'point')} could not be sent{first}",
        "The others are recorded. See to it, then `valska submit --resume`.",
    )


def _wait(which: Which, scheduler: Scheduler) -> SweepStatus:
    labels = choose_labels(which.manifest, [word for word in which.only if word not in KINDS])
    told: dict[str, str] = {}

    def tell(status: SweepStatus) -> None:
        for stage, counts in status.counts.items():
            text = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
            if told.get(stage) != text:
                told[stage] = text
                note(f"{stage}: {text}")

    try:
        return wait_sweep(
            which.sweep,
            which.manifest,
            scheduler,
            labels=labels,
            stages=which.stages,
            on_change=tell,
            longest_poll=2.0 if scheduler.name == "local" else 60.0,
        )
    except KeyboardInterrupt:
        note("The jobs go on. `valska status` follows them, `valska cancel` ends them.")
        raise


def _require_success(status: SweepStatus, stages: Sequence[str] | None) -> None:
    bad: Mapping[str, str] = {
        label: f"{one.stage} is {one.state}"
        for label, row in status.points.items()
        for one in reversed(tuple(row.values()))
        if (stages is None or one.stage in stages) and one.state is not StageState.COMPLETED
    }
    if bad:
        label, what = next(iter(bad.items()))
        points = count_text(len(bad), "point")
        raise PointFailedError(
            f"{points} of {len(status.points)} did not succeed; {label}: {what}",
            "`valska status` tells why.",
        )
