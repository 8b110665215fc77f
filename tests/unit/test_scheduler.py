from datetime import UTC, datetime

import pytest

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.scheduler import (
    JobState,
    choose_scheduler,
    job_name,
    parse_utc,
    token_of,
)


def test_a_job_name_holds_token_and_stage() -> None:
    assert job_name("0a1b2c3d", "signal_fit") == "vk-0a1b2c3d-signal_fit"
    assert token_of("vk-0a1b2c3d-signal_fit") == "0a1b2c3d"
    assert token_of("pyuvsim-simulate") is None


def test_utc_times_are_read_as_utc() -> None:
    assert parse_utc("2026-03-10T09:08:07Z") == datetime(2026, 3, 10, 9, 8, 7, tzinfo=UTC)


def test_only_waiting_and_running_jobs_are_live() -> None:
    live = {state for state in JobState if state.live}
    assert live == {JobState.PENDING, JobState.RUNNING, JobState.COMPLETING}


def test_slurm_is_chosen_where_there_is_sbatch() -> None:
    assert choose_scheduler(which=lambda program: f"/usr/bin/{program}").name == "slurm"
    assert choose_scheduler(which=lambda program: None).name == "local"
    assert choose_scheduler("local", which=lambda program: program).name == "local"


def test_slurm_without_sbatch_is_refused() -> None:
    with pytest.raises(PrerequisiteError, match="sbatch"):
        choose_scheduler("slurm", which=lambda program: None)


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(UsageError, match="pbs"):
        choose_scheduler("pbs", which=lambda program: None)
