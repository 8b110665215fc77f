"""How the states of stages are shown."""

from __future__ import annotations

import time
from pathlib import Path

from valska.cli.live_line import LiveLine
from valska.cli.output import note, plain, styled
from valska.cli.quantities import duration_text
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.run_directory import Bundle
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


class FailedError(ValskaError):
    """Something that was checked has failed."""


def rows(status: RunStatus) -> list[tuple[str, ...]]:
    """Return a table of a run's stages; see `HEADER`."""
    return [
        (
            stage.stage,
            styled(stage.state.value, fg=COLOURS.get(stage.state, "red")),
            stage.job_id or "-",
            str(stage.attempt or "-"),
            duration_text(stage.elapsed_s),
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


class Progress:
    """Tells each change of a stage's state on stderr while valska waits.

    On a terminal a line below them shows what runs: for how long, and its log's last line.

    Parameters
    ----------
    bundle
        The bundle, whose logs are read.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._told: dict[str, str] = {}
        self._running: dict[str, tuple[StageStatus, float]] = {}
        self._line = LiveLine()

    def tell(self, status: RunStatus) -> None:
        """Say what is new."""
        self._line.clear()
        for stage in status.stages:
            phrase = describe(stage)
            if self._told.get(stage.stage) != phrase:
                note(phrase)
            self._told[stage.stage] = phrase
        self._running = {
            stage.stage: (stage, time.monotonic() - (stage.elapsed_s or 0))
            for stage in status.stages
            if stage.state is StageState.RUNNING
        }

    def sleep(self, seconds: float) -> None:
        """Let some seconds pass, keeping the line of what runs up to date."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._line.shows and self._running:
                self._line.draw(self._text())
            time.sleep(min(left, 1.0) if self._line.shows else left)
        self._line.clear()

    def _text(self) -> str:
        words = []
        for stage, since in self._running.values():
            words += [stage.stage, duration_text(int(time.monotonic() - since))]
            words += [last_line(self._bundle.path / stage.log)] if stage.log else []
        return " ".join(words)


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank, without control characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((plain(line.strip()) for line in reversed(lines) if line.strip()), "")
