from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.identity import ProcessIdentity
from valska.external_tools.core.local.job import Index, LocalJob, hopeful, split_id
from valska.external_tools.core.local.tally import Tally
from valska.external_tools.core.local.waiting import Waiting
from valska.external_tools.core.scheduler import JobState

PROCESS = ProcessIdentity("host", "boot", 1, 2)
ENDS = (JobState.COMPLETED, JobState.COMPLETED, JobState.FAILED, JobState.TIMEOUT)


@st.composite
def chains(draw: st.DrawFn) -> list[LocalJob]:
    """Jobs and arrays, each waiting for earlier ones in any way, or for one that nobody knows."""
    jobs: list[LocalJob] = []
    for number in range(draw(st.integers(1, 5))):
        earlier = [job.job_id for job in jobs]
        tasks = [job.task_id(index) for job in jobs for index in job.tasks]
        some = st.lists(st.sampled_from([*earlier, *tasks, "elsewhere"]), max_size=2)
        same = st.lists(st.sampled_from([*earlier, "elsewhere_too"]), max_size=2)
        jobs.append(
            LocalJob(
                job_id=f"j{number}", name="", stage="", script="",
                dependency=tuple(draw(some)) if draw(st.booleans()) else (),
                corresponding=tuple(draw(same)) if draw(st.booleans()) else (),
                throttle=draw(st.none() | st.integers(1, 2)),
                tasks=tuple(sorted(draw(st.sets(st.integers(0, 4), max_size=4)))),
            )
        )  # fmt: skip
    return jobs


@given(chains(), st.data())
def test_every_task_ends_and_none_begins_too_early(
    jobs: list[LocalJob], data: st.DataObject
) -> None:
    outside = {"elsewhere": JobState.RUNNING, "elsewhere_too": JobState.RUNNING}
    tally = Tally(jobs)
    waiting = Waiting(tally, lambda job_id, index: outside[job_id])
    running: list[tuple[LocalJob, Index]] = []
    begun: set[tuple[str, Index]] = set()
    waiting.settle()
    while True:
        while found := waiting.next():
            assert _may_begin(tally, found, outside)
            waiting.take(*found)
            tally.begin(*found, PROCESS)
            begun.add((found[0].job_id, found[1]))
            running.append(found)
        for job in tally.jobs:
            assert tally.running(job) <= (job.throttle or 99)
        if running:
            job, index = running.pop(data.draw(st.integers(0, len(running) - 1)))
            tally.end(job, index, data.draw(st.sampled_from(ENDS)), None)
        elif JobState.RUNNING in outside.values():
            name = next(name for name, state in outside.items() if state is JobState.RUNNING)
            outside[name] = data.draw(st.sampled_from((*ENDS, JobState.LOST)))
            waiting.look_again()
        else:
            break
        waiting.settle()
    assert not waiting
    for job in tally.jobs:
        assert sum(tally.counts(job).values()) == len(job.indices)
        for index in job.indices:
            state = job.of(index).state
            assert not state.live
            assert (state is not JobState.CANCELLED) == ((job.job_id, index) in begun)
            good = all(one is JobState.COMPLETED for one in _parents(tally, (job, index), outside))
            assert (state is JobState.CANCELLED) == (not good)


def _may_begin(tally: Tally, task: tuple[LocalJob, Index], outside: dict[str, JobState]) -> bool:
    return all(state is JobState.COMPLETED for state in _parents(tally, task, outside))


def _parents(
    tally: Tally, task: tuple[LocalJob, Index], outside: dict[str, JobState]
) -> list[JobState]:
    """Return the states of all that a task waits for, found the slow and plain way."""
    job, index = task
    known = {one.job_id: one for one in tally.jobs}
    states: list[JobState] = []
    wanted = [split_id(parent) for parent in job.dependency]
    for job_id, one in [*wanted, *((parent, index) for parent in job.corresponding)]:
        parent = known.get(job_id)
        if parent is None:
            states.append(outside[job_id])
        elif one is None or not parent.tasks:
            states += [parent.of(each).state for each in parent.indices]
        else:
            states.append(parent.of(one).state if one in parent.tasks else JobState.LOST)
    return states


def test_only_what_may_still_succeed_is_hopeful() -> None:
    good = {JobState.PENDING, JobState.RUNNING, JobState.COMPLETING, JobState.COMPLETED}
    assert {state for state in JobState if hopeful(state)} == good
