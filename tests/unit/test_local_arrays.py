import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from handmade import eventually

from valska.external_tools.core.errors import SubmissionError, UsageError, ValskaError
from valska.external_tools.core.identity import ProcessIdentity, process_start
from valska.external_tools.core.local import Local, supervisor
from valska.external_tools.core.local.job import Index, LocalJob, Progress, Queue
from valska.external_tools.core.local.queue import create_queue, read_queue, write_queue
from valska.external_tools.core.local.room import processors
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobInfo, JobRef, JobRequest, JobState, parse_utc

TOKEN = "0a1b2c00"
SCRIPT = """#!/bin/bash
task=${{VALSKA_TASK:-}} stage=$1
note() {{ echo "$1 $stage $task" >>notes; }}
note begin
{{
{body}
}} || exit
note end
"""
LIVE = (JobState.PENDING, JobState.RUNNING)


class Array:
    """A directory with a script, and what was sent from it."""

    def __init__(self, path: Path, body: str) -> None:
        path.mkdir()
        self.bundle = Bundle(path)
        self.bundle.logs.mkdir()
        (path / "run.sh").write_text(SCRIPT.format(body=body))
        self.refs: dict[str, JobRef] = {}
        self.environment = {**os.environ, "VALSKA_LOCAL_JOBS": "8"}

    @property
    def local(self) -> Local:
        return Local(environment=self.environment)

    def send(self, *requests: JobRequest) -> None:
        self.local.submit(self.bundle, requests, self)

    def sending(self, request: JobRequest, argv: tuple[str, ...]) -> None:
        assert argv == ("bash", "run.sh", request.stage)

    def accepted(self, request: JobRequest, ref: JobRef) -> None:
        self.refs[request.stage] = ref

    def ref(self, stage: str, index: int) -> JobRef:
        return replace(self.refs[stage], job_id=f"{self.refs[stage].job_id}_{index}")

    def query(self) -> Mapping[str, JobInfo]:
        return self.local.query(self.bundle, list(self.refs.values()))

    def info(self, stage: str, index: int | None = None) -> JobInfo:
        ref = self.refs[stage] if index is None else self.ref(stage, index)
        return self.local.query(self.bundle, [ref])[ref.job_id]

    def states(self, stage: str) -> dict[int, str]:
        found = self.local.query(self.bundle, [self.refs[stage]])
        return {int(key.rpartition("_")[2]): info.state.value for key, info in found.items()}

    def finished(self, bound_s: float = 30.0) -> dict[str, dict[int, str]]:
        def no_more() -> bool:
            return not any(info.state in LIVE for info in self.query().values())

        eventually(no_more, bound_s)
        return {stage: self.states(stage) for stage, ref in self.refs.items()}

    def notes(self) -> list[tuple[str, str, str]]:
        path = self.bundle.path / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(word, stage, task) for word, stage, task in (line.split(" ") for line in lines)]

    def most_at_once(self, stage: str | None = None) -> int:
        running = most = 0
        for word, of, _ in self.notes():
            if stage in (None, of):
                running += 1 if word == "begin" else -1
                most = max(most, running)
        return most

    def queue(self, part: str = "0") -> Queue:
        found = read_queue(self.bundle.local_queue(token(part)))
        assert found is not None
        return found

    def kill_supervisor(self, part: str = "0") -> None:
        who = self.queue(part).supervisor
        assert who is not None
        os.kill(who.pid, signal.SIGKILL)
        eventually(lambda: who.alive() is False)


def array(stage: str, count: int, part: str = "0", number: int = 0, **options: Any) -> JobRequest:
    given = {"tasks": tuple(range(count)), **options}
    name = f"vk-{token(part)}-{stage}.{number}"
    return JobRequest(stage=stage, name=name, script="run.sh", args=(stage,), **given)


def token(part: str) -> str:
    """Return the token of a submission."""
    return f"{TOKEN[:6]}{part:0>2}"


Make = Callable[..., Array]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Array] = []

    def one(body: str = "true") -> Array:
        made.append(Array(tmp_path / f"it's a $(sweep) {len(made)}", body))
        return made[-1]

    yield one
    for each in made:
        each.local.cancel(each.bundle, list(each.refs.values()), 0.0)


def all_of(count: int, state: str) -> dict[int, str]:
    return dict.fromkeys(range(count), state)


def test_each_task_knows_its_array_its_index_and_nothing_of_the_callers(make: Make) -> None:
    sweep = make('echo "$VALSKA_JOB_ID|$VALSKA_JOB_NAME|${SLURM_ARRAY_TASK_ID-unset}" >"id.$task"')
    sweep.environment |= {"SLURM_ARRAY_TASK_ID": "77", "VALSKA_TASK": "78"}
    sweep.send(array("a", 0, tasks=(3, 1, 70)), array("single", 0, tasks=()))
    assert list(sweep.query()) == [
        *(f"{sweep.refs['a'].job_id}_{index}" for index in (1, 3, 70)),
        sweep.refs["single"].job_id,
    ]
    eventually(lambda: all(info.state is JobState.COMPLETED for info in sweep.query().values()))
    for stage, task in (("a", "1"), ("a", "3"), ("a", "70"), ("single", "")):
        ref = sweep.refs[stage]
        assert re.fullmatch(r"local-[0-9a-f-]{36}", ref.job_id)
        said = (sweep.bundle.path / f"id.{task}").read_text().strip()
        assert said == f"{ref.job_id}|vk-{TOKEN}-{stage}.0|unset"
        assert (sweep.bundle.logs / f"{ref.name}-{ref.job_id}.log").is_file()
    assert list(sweep.query()) == list(sweep.query())


def test_a_task_waits_for_the_same_index_and_for_no_other(make: Make) -> None:
    slow = 'until [[ $stage != a || $task != 0 ]] || grep -q "end c 3" notes; do sleep 0.02; done'
    sweep = make(slow)
    sweep.send(
        array("a", 4), array("b", 4, after_each=("a",)), array("c", 4, after_each=("a", "b"))
    )
    assert sweep.finished() == dict.fromkeys("abc", all_of(4, "COMPLETED"))
    order = sweep.notes()
    assert len(order) == 24
    for index in range(4):
        mine = [(word, stage) for word, stage, task in order if task == str(index)]
        assert mine == [(word, stage) for stage in "abc" for word in ("begin", "end")]


def test_a_failed_task_cancels_its_own_children_only(make: Make) -> None:
    sweep = make('[[ "$stage $task" != "a 1" ]] || exit 7')
    sweep.send(
        array("a", 3), array("b", 3, after_each=("a",)), array("c", 3, after_each=("b",)),
        array("whole", 2, after=("a",)),
    )  # fmt: skip
    one_less = {0: "COMPLETED", 1: "CANCELLED", 2: "COMPLETED"}
    assert sweep.finished() == {
        "a": {0: "COMPLETED", 1: "FAILED", 2: "COMPLETED"},
        "b": one_less,
        "c": one_less,
        "whole": all_of(2, "CANCELLED"),
    }
    assert (sweep.info("a", 1).exit_code, sweep.info("a", 1).reason) == (7, "exit code 7")
    assert "did not succeed" in (sweep.info("c", 1).reason or "")
    assert sweep.info("a", 0).exit_code == 0


def test_a_stage_after_a_whole_array_waits_for_all_of_it(make: Make) -> None:
    sweep = make("[[ $stage != a || $task != 2 ]] || sleep 0.5")
    sweep.send(array("a", 3), array("b", 2, after=("a",)))
    sweep.finished()
    assert [stage for word, stage, _ in sweep.notes() if word == "begin"] == [*"aaabb"]


def test_arrays_wait_for_one_task_of_an_earlier_submission(make: Make) -> None:
    slow = 'until [[ "$stage $task" != "shared 1" ]] || grep -q "begin points0 0" notes'
    sweep = make(f"{slow}; do sleep 0.02; done; ((task != 2))")
    sweep.send(array("shared", 3))
    for part in ("0", "1", "2"):
        after = (sweep.ref("shared", int(part)).job_id,)
        sweep.send(array(f"points{part}", 2, part=f"1{part}", dependency=after))
    found = sweep.finished()
    assert found["points0"] == found["points1"] == all_of(2, "COMPLETED")
    assert found["points2"] == all_of(2, "CANCELLED")
    order = sweep.notes()
    assert order.index(("end", "shared", "0")) < order.index(("begin", "points0", "0"))
    assert order.index(("begin", "points0", "0")) < order.index(("end", "shared", "1"))
    assert order.index(("end", "shared", "1")) < order.index(("begin", "points1", "0"))


def test_a_later_submission_waits_task_by_task(make: Make) -> None:
    last = 'until [[ "$stage $task" != "a 5" ]] || grep -q "begin b 1" notes; do sleep 0.02; done'
    sweep = make(f"{last}; ((task != 3))")
    sweep.send(array("a", 6))
    parent = (sweep.refs["a"].job_id,)
    sweep.send(array("b", 0, part="1", tasks=(1, 3, 5, 9), corresponding=parent))
    assert sweep.finished()["b"] == {
        1: "COMPLETED", 3: "CANCELLED", 5: "COMPLETED", 9: "CANCELLED"
    }  # fmt: skip
    order = sweep.notes()
    assert order.index(("begin", "b", "1")) < order.index(("end", "a", "5"))
    assert order.index(("begin", "b", "5")) > order.index(("end", "a", "5"))
    sweep.send(array("c", 0, part="2", tasks=(0, 3), corresponding=parent))
    assert sweep.finished()["c"] == {0: "COMPLETED", 3: "CANCELLED"}


def test_what_depends_on_an_unknown_job_is_cancelled(make: Make) -> None:
    sweep = make()
    unknown = ("local-00000000-0000-0000-0000-000000000000",)
    sweep.send(array("a", 2, dependency=unknown), array("b", 2, corresponding=unknown))
    assert sweep.finished() == dict.fromkeys("ab", all_of(2, "CANCELLED"))
    assert sweep.notes() == []


def test_slices_of_one_stage_follow_their_own_parents(make: Make) -> None:
    sweep = make("((task != 1))")
    first = [array("a", 2), array("b", 2, after_each=("a",))]
    second = [
        array("a", 0, number=1, tasks=(0, 2)),
        array("b", 0, number=1, tasks=(0, 2), after_each=("a",)),
    ]
    sweep.send(*first, *second)
    assert sweep.finished() == {stage: {0: "COMPLETED", 2: "COMPLETED"} for stage in "ab"}
    found = {job.name: job for job in sweep.queue().jobs}
    assert found[f"vk-{TOKEN}-b.0"].corresponding == (found[f"vk-{TOKEN}-a.0"].job_id,)
    assert found[f"vk-{TOKEN}-b.1"].corresponding == (found[f"vk-{TOKEN}-a.1"].job_id,)
    assert found[f"vk-{TOKEN}-b.0"].of(1).state is JobState.CANCELLED


@pytest.mark.parametrize(("throttle", "jobs", "most"), [(2, "8", 2), (None, "3", 3), (5, "1", 1)])
def test_no_more_tasks_run_at_once_than_allowed(
    make: Make, throttle: int | None, jobs: str, most: int
) -> None:
    sweep = make("sleep 0.1")
    sweep.environment["VALSKA_LOCAL_JOBS"] = jobs
    sweep.send(array("a", 12, throttle=throttle))
    assert sweep.finished() == {"a": all_of(12, "COMPLETED")}
    assert sweep.most_at_once() == most


def test_submissions_of_one_directory_share_its_room(make: Make) -> None:
    sweep = make("sleep 0.1")
    sweep.environment["VALSKA_LOCAL_JOBS"] = "2"
    for part in "012":
        sweep.send(array(f"a{part}", 6, part=part))
    assert sweep.finished() == {f"a{part}": all_of(6, "COMPLETED") for part in "012"}
    assert sweep.most_at_once() == 2
    left = {".json", ".log"}
    eventually(lambda: {path.suffix for path in sweep.bundle.logs.iterdir()} == left)


def test_a_killed_supervisor_leaves_no_seat_taken(make: Make) -> None:
    sweep = make("[[ $stage != a ]] || exec sleep 60")
    sweep.environment["VALSKA_LOCAL_JOBS"] = "1"
    sweep.send(array("a", 1))
    sweep.send(array("b", 1, part="1"))
    eventually(lambda: sweep.states("a") == {0: "RUNNING"})
    time.sleep(0.5)
    assert sweep.states("b") == {0: "PENDING"}
    sweep.kill_supervisor()
    eventually(lambda: sweep.states("b") == {0: "COMPLETED"})


def test_a_throttled_array_leaves_room_to_the_others(make: Make) -> None:
    sweep = make("sleep 0.1")
    sweep.send(array("a", 6, throttle=1), array("b", 6, throttle=2))
    sweep.finished()
    assert (sweep.most_at_once("a"), sweep.most_at_once("b")) == (1, 2)
    assert sweep.most_at_once() == 3


@pytest.mark.parametrize(
    ("directives", "share"),
    [
        ({}, 1),
        ({"ntasks": "2", "cpus-per-task": "50"}, 1000),
        ({"nodes": "2", "ntasks-per-node": "500"}, 1000),
    ],
)
def test_without_a_bound_there_is_one_task_for_the_processors_that_it_asks_for(
    make: Make, directives: dict[str, str], share: int
) -> None:
    sweep = make("sleep 0.2")
    del sweep.environment["VALSKA_LOCAL_JOBS"]
    count = processors() + 2
    sweep.send(array("a", count, directives=directives))
    assert sweep.finished() == {"a": all_of(count, "COMPLETED")}
    assert sweep.most_at_once() == max(1, processors() // share)


def test_a_bound_that_is_no_number_sends_nothing(make: Make) -> None:
    sweep = make()
    sweep.environment["VALSKA_LOCAL_JOBS"] = "many"
    with pytest.raises(UsageError, match="VALSKA_LOCAL_JOBS is 'many'"):
        sweep.send(array("a", 1))
    assert list(sweep.bundle.logs.iterdir()) == []


def test_one_task_is_cancelled_and_its_children_with_it(make: Make) -> None:
    sweep = make("[[ $stage != a ]] || exec sleep 60")
    sweep.send(array("a", 3, throttle=2), array("b", 3, after_each=("a",)))
    eventually(lambda: sweep.states("a") == {0: "RUNNING", 1: "RUNNING", 2: "PENDING"})
    sweep.local.cancel(sweep.bundle, [sweep.ref("a", 1), sweep.ref("b", 0)], 5.0)
    assert sweep.states("a")[0] == "RUNNING"
    assert sweep.info("a", 1).state is JobState.CANCELLED
    eventually(lambda: sweep.states("b") == {0: "CANCELLED", 1: "CANCELLED", 2: "PENDING"})
    eventually(lambda: sweep.states("a")[2] == "RUNNING")
    sweep.local.cancel(sweep.bundle, [sweep.refs["a"]], 5.0)
    assert sweep.states("a") == all_of(3, "CANCELLED")
    assert sweep.finished()["b"] == all_of(3, "CANCELLED")
    assert {stage for _, stage, _ in sweep.notes()} == {"a"}
    assert list(sweep.bundle.logs.glob(".cancel-*")) == []


def test_a_task_that_ignores_its_cancel_is_killed_after_the_grace(make: Make) -> None:
    sweep = make("trap '' TERM; sleep 61; sleep 61")
    sweep.send(array("a", 2, throttle=1))
    eventually(sweep.notes)
    started = time.monotonic()
    sweep.local.cancel(sweep.bundle, [sweep.refs["a"]], 1.0)
    assert 1.0 <= time.monotonic() - started < 6.0
    assert sweep.states("a") == all_of(2, "CANCELLED")
    assert sweep.info("a", 0).signal == signal.SIGKILL


def test_the_time_limit_holds_for_each_task(make: Make) -> None:
    sweep = make("[[ $task != 1 ]] || sleep 60; sleep 0.8")
    sweep.environment["VALSKA_LOCAL_JOBS"] = "1"
    limited = {"time": "0:02", "signal": "B:TERM@1"}
    sweep.send(array("a", 4, directives=limited), array("b", 4, after_each=("a",)))
    found = sweep.finished()
    assert found["a"] == {**all_of(4, "COMPLETED"), 1: "TIMEOUT"}
    assert found["b"] == {**all_of(4, "COMPLETED"), 1: "CANCELLED"}
    assert sweep.info("a", 1).limit_s == 2


def test_a_supervisor_asked_to_end_cancels_all_its_tasks(make: Make) -> None:
    sweep = make("exec sleep 60")
    sweep.send(array("a", 20, throttle=2), array("b", 20, after_each=("a",)))
    eventually(lambda: sweep.states("a")[1] == "RUNNING")
    who = sweep.queue().supervisor
    assert who is not None
    os.kill(who.pid, signal.SIGTERM)
    assert sweep.finished() == dict.fromkeys("ab", all_of(20, "CANCELLED"))
    eventually(lambda: who.alive() is False)


@pytest.mark.parametrize("moment_s", [0.0, 0.02, 0.1, 0.3, 0.7])
def test_what_runs_outlives_a_killed_supervisor_and_the_rest_is_lost(
    make: Make, moment_s: float
) -> None:
    """However old the state file is, what runs is known to run, and what does not, not."""
    sweep = make('sleep 0.01; if ((task % 2)); then echo "$task $$" >>pids; exec sleep 60; fi')
    sweep.send(array("a", 50, throttle=3), array("b", 50, after_each=("a",)))
    time.sleep(moment_s)
    sweep.kill_supervisor()

    def started() -> dict[int, int]:
        path = sweep.bundle.path / "pids"
        lines = path.read_text().splitlines() if path.exists() else []
        return {int(task): int(pid) for task, pid in (line.split() for line in lines)}

    def running() -> set[int]:
        return {index for index, state in sweep.states("a").items() if state == "RUNNING"}

    eventually(lambda: running() == started().keys())
    pids = started().values()
    assert all(process_start(pid) is not None for pid in pids)
    assert set(sweep.states("a").values()) <= {"RUNNING", "LOST", "COMPLETED"}
    assert set(sweep.states("b").values()) <= {"LOST", "COMPLETED"}
    begun = {int(task) for _, stage, task in sweep.notes() if stage == "a"}
    assert all(sweep.states("a")[index] == "LOST" for index in set(range(50)) - begun)
    sweep.local.cancel(sweep.bundle, [sweep.refs["a"], sweep.refs["b"]], 5.0)
    assert [process_start(pid) for pid in pids] == [None] * len(pids)
    assert not any(info.state.live for info in sweep.query().values())


def test_a_task_that_began_after_the_last_write_of_a_killed_supervisor_is_found(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "from valska.external_tools.core.local import supervisor; supervisor.SAVE_S = 600; "
    before, after = supervisor._BOOT.split("from", 1)
    monkeypatch.setattr(supervisor, "_BOOT", f"{before}{slow}from{after}")
    sweep = make("[[ $task == 0 ]] || exec sleep 60")
    sweep.send(array("a", 4, throttle=2))
    eventually(lambda: ("begin", "a", "2") in sweep.notes())
    assert sweep.states("a")[2] == "PENDING", "so says the file"
    sweep.kill_supervisor()
    assert sweep.states("a") == {0: "LOST", 1: "RUNNING", 2: "RUNNING", 3: "LOST"}
    assert "supervisor was killed" in (sweep.info("a", 2).reason or "")
    assert sweep.info("a", 3).reason == "its supervisor was killed before it began"
    sweep.local.cancel(sweep.bundle, [sweep.refs["a"]], 5.0)
    assert sweep.states("a") == all_of(4, "LOST")


def test_those_that_wait_for_a_killed_supervisors_tasks_do_not_wait_for_ever(make: Make) -> None:
    sweep = make("[[ $stage != a ]] || exec sleep 60")
    sweep.send(array("a", 3, throttle=1))
    sweep.send(array("b", 3, part="1", corresponding=(sweep.refs["a"].job_id,)))
    eventually(lambda: sweep.states("a")[0] == "RUNNING")
    sweep.kill_supervisor()
    eventually(lambda: sweep.states("b") == {0: "PENDING", 1: "CANCELLED", 2: "CANCELLED"})
    sweep.local.cancel(sweep.bundle, [sweep.refs["a"]], 5.0)
    assert sweep.finished()["b"] == all_of(3, "CANCELLED")


def test_a_task_that_outlived_its_supervisor_and_completed_releases_its_children(
    make: Make,
) -> None:
    record = 'mkdir -p "points/p$task/records"; ((task < 2)) || exit 1; sleep 1; echo '
    record += (
        """'{"state": "completed"}' >"points/p$task/records/a-${VALSKA_JOB_ID}_$task-r0.json" """
    )
    sweep = make(f"[[ $stage == a ]] || exit 0; {record}")
    sweep.send(array("a", 4, throttle=3))
    sweep.send(array("b", 4, part="1", corresponding=(sweep.refs["a"].job_id,)))
    eventually(lambda: {("begin", "a", str(task)) for task in range(2)} <= {*sweep.notes()})
    sweep.kill_supervisor()
    found = sweep.finished()
    assert found["a"][0] == found["a"][1] == "LOST", "its supervisor did not see the end"
    released = {0: "COMPLETED", 1: "COMPLETED", 2: "CANCELLED", 3: "CANCELLED"}
    assert found["b"] == released


def test_an_array_is_found_by_its_name(make: Make) -> None:
    sweep = make("[[ $task != 1 ]] || exec sleep 60")
    now = parse_utc("2026-01-02T03:04:05Z")
    name = f"vk-{token('4')}-a.0"
    sweep.send(array("a", 3, part="4"))
    found = sweep.local.find(sweep.bundle, None, name, now)
    assert found is not None
    assert found.job_id == sweep.refs["a"].job_id
    eventually(lambda: sweep.states("a")[2] == "COMPLETED")
    found = sweep.local.find(sweep.bundle, None, name, now)
    assert found is not None
    assert found.state is JobState.RUNNING
    sweep.local.cancel(sweep.bundle, [JobRef(found.job_id)], 5.0)
    found = sweep.local.find(sweep.bundle, None, name, now)
    assert found is not None
    assert found.state is JobState.CANCELLED
    assert sweep.local.find(sweep.bundle, None, f"vk-{token('5')}-a.0", now) is None
    with pytest.raises(SubmissionError, match="did not start"):
        sweep.send(array("a", 3, part="5"))


def test_tasks_run_on_while_the_state_file_cannot_be_written(make: Make) -> None:
    sweep = make("sleep 0.2")
    sweep.send(array("a", 20))
    path = sweep.bundle.local_queue(TOKEN)
    path.unlink()
    path.mkdir()
    eventually(lambda: len(sweep.notes()) == 40)
    path.rmdir()
    eventually(path.is_file)
    assert sweep.finished() == {"a": all_of(20, "COMPLETED")}


def test_two_thousand_tasks_run_to_their_end(make: Make) -> None:
    sweep = make("((task % 100))")
    sweep.send(array("a", 1000), array("b", 1000, after_each=("a",)))
    found = sweep.finished(120.0)
    assert Counter(found["a"].values()) == {"COMPLETED": 990, "FAILED": 10}
    assert Counter(found["b"].values()) == {"COMPLETED": 990, "CANCELLED": 10}
    assert [key for key, state in found["b"].items() if state == "CANCELLED"] == [
        *range(0, 1000, 100)
    ]
    begun = [(stage, task) for word, stage, task in sweep.notes() if word == "begin"]
    assert len(begun) == len(set(begun)) == 1990


def queue_of(count: int) -> Queue:
    """Three stages in the middle of their work, every seventh task failed."""
    me = ProcessIdentity("a host", "boot", 17, 4)
    running = Progress(JobState.RUNNING, ProcessIdentity("a host", "boot", 18, 5),
                       started_utc="2026-01-02T03:04:05Z")  # fmt: skip
    good = Progress(JobState.COMPLETED, exit_code=0)
    bad = Progress(JobState.FAILED, exit_code=3, reason="exit code 3")
    jobs: list[LocalJob] = []
    for stage in ("one", "two", "three"):
        ended: dict[Index, Progress] = {
            index: good if index % 7 else bad for index in range(count // 2)
        }
        jobs.append(
            LocalJob(
                job_id=f"local-{stage}", name=f"vk-{TOKEN}-{stage}.0", stage=stage,
                script="run.sh", args=("x", "ü"), dependency=("p_3",), corresponding=("q",),
                limit_s=60, grace_s=5, cpus=2, throttle=4, tasks=tuple(range(count)),
                progress={**ended, count // 2: running},
            )
        )  # fmt: skip
    single = replace(jobs[0], job_id="local-single", tasks=())
    jobs.append(replace(single, progress={None: running}))
    jobs.append(replace(single, progress={None: replace(bad, ended_utc="2026-01-02T03:04:05Z")}))
    return Queue(TOKEN, me, tuple(jobs))


def test_a_state_file_holds_all_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    queue = queue_of(100)
    assert create_queue(path, queue)
    assert read_queue(path) == queue
    write_queue(path, replace(queue, supervisor=None))
    read = read_queue(path)
    assert read is not None
    assert read.supervisor is None


def test_a_state_file_of_thirty_thousand_tasks_is_small(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    queue = queue_of(10_000)
    write_queue(path, queue)
    assert read_queue(path) == queue
    assert path.stat().st_size < 100_000
    assert path.read_bytes().count(b"\n") == 1
    assert json.loads(path.read_text())["schema_version"] == "2.0"


@pytest.mark.parametrize("jobs", ["x", ["x"], [["x"]], [{}], [{"ended": []}], 5])
def test_what_is_no_queue_is_told_so(tmp_path: Path, jobs: object) -> None:
    path = tmp_path / "q"
    path.write_text(json.dumps({"token": "x", "supervisor": None, "jobs": jobs}))
    with pytest.raises(ValskaError, match="not a state file"):
        read_queue(path)
