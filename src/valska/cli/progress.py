"""How the states of stages are shown."""

from __future__ import annotations

from collections.abc import Callable

from valska.cli.output import note, plain, styled
from valska.external_tools.core.status import RunStatus, StageState, StageStatus

COLOURS = {
    StageState.COMPLETED: "green",
    StageState.RUNNING: "blue",
    StageState.PENDING: "cyan",
    StageState.NOT_SUBMITTED: "white",
    StageState.UNCONFIRMED: "yellow",
    StageState.UNKNOWN: "yellow",
}
HEADER = ("stage", "state", "job", "try", "time", "exit", "detail")


def rows(status: RunStatus) -> list[tuple[str, ...]]:
    """Return a table of a run's stages; see `HEADER`."""
    return [
        (
            stage.stage,
            styled(stage.state.value, fg=COLOURS.get(stage.state, "red")),
            stage.job_id or "-",
            str(stage.attempt or "-"),
            duration(stage.elapsed_s),
            "-" if stage.exit_code is None else str(stage.exit_code),
            plain(stage.reason or ""),
        )
        for stage in status.stages
    ]


def describe(stage: StageStatus) -> str:
    """Return what became of a stage as one phrase."""
    job = f" (job {stage.job_id})" if stage.job_id else ""
    reason = f": {plain(stage.reason)}" if stage.reason else ""
    return f"{stage.stage} {stage.state.value}{job}{reason}"


def duration(seconds: int | None) -> str:
    """Return a number of seconds as ``h:mm:ss``."""
    if seconds is None:
        return "-"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def tell_changes() -> Callable[[RunStatus], None]:
    """Return what tells each change of a stage's state on stderr."""
    last: dict[str, str] = {}

    def tell(status: RunStatus) -> None:
        for stage in status.stages:
            phrase = describe(stage)
            if last.get(stage.stage) != phrase:
                note(phrase)
            last[stage.stage] = phrase

    return tell
