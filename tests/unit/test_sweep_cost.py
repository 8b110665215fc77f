"""What a sweep asks for: processors and GPUs times the time limit."""

import pytest

from valska.external_tools.core.sweep.planning.cost import cost_of, cpus_of, gpus_of
from valska.external_tools.core.tool import Stage


def a_stage(**more):
    return Stage("fit", ("true",), **more)


@pytest.mark.parametrize(
    ("ranks", "directives", "expected"),
    [
        (1, {}, 1),
        (1, {"cpus-per-task": "8"}, 8),
        (4, {"ntasks": "4", "cpus-per-task": "2"}, 8),
        (1, {"ntasks": "4"}, 4),
        (6, {"nodes": "2", "ntasks-per-node": "3"}, 6),
        (1, {"cpus-per-task": "many"}, None),
    ],
)
def test_processors(ranks, directives, expected):
    assert cpus_of(a_stage(ranks=ranks), directives) == expected


@pytest.mark.parametrize(
    ("gpus", "directives", "expected"),
    [
        (False, {}, 0),
        (True, {}, None),
        (True, {"gpus": "2"}, 2),
        (True, {"gpus": "a100:2"}, 2),
        (True, {"gpus": "a100:2,v100:1"}, 3),
        (True, {"gpus-per-node": "4", "nodes": "2"}, 8),
        (True, {"gpus-per-task": "1", "ntasks": "3"}, 3),
        (True, {"gres": "gpu:1"}, 1),
        (True, {"gres": "gpu"}, 1),
        (True, {"gres": "gpu:a100:2(S:0-1)", "nodes": "2"}, 4),
        (True, {"gres": "shard:4"}, None),
        (False, {"gres": "license:1,gpu:v100"}, 1),
        (True, {"gpus-per-node": "1", "nodes": "1-2"}, None),
    ],
)
def test_gpus(gpus, directives, expected):
    assert gpus_of(a_stage(gpus=gpus), directives) == expected


def test_jobs_times_processors_times_hours():
    directives = {"fit": {"time": "02:30:00", "cpus-per-task": "2", "gpus": "1"}}
    cost = cost_of({"fit": 10}, directives, [a_stage(gpus=True)])
    assert (cost.cpu_hours, cost.gpu_hours) == (50.0, 25.0)


@pytest.mark.parametrize("limit", [{}, {"time": "UNLIMITED"}])
def test_without_a_time_limit_it_is_unknown(limit):
    cost = cost_of({"fit": 10}, {"fit": limit}, [a_stage()])
    assert (cost.cpu_hours, cost.gpu_hours) == (None, 0.0)
    assert cost_of({"fit": 0}, {"fit": limit}, [a_stage()]).cpu_hours == 0.0
