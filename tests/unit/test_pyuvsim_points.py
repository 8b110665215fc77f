"""Points of pyuvsim: planned the short way where that is sure, always as one by one."""

from dataclasses import replace

import pytest

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.templates import get_template_path
from valska.external_tools.core.tool import PlansPoints, RunSpec, read_file
from valska.external_tools.pyuvsim import TOOL

BASE = RunSpec("pyuvsim", "r", get_template_path(TOOL.templates_dir, "hera_small"))


def one_by_one(specs):
    for spec in specs:
        inputs = TOOL.discover(spec, read_file)
        yield inputs, TOOL.plan(spec, inputs, read_file)


def set_to(key, *values, **more):
    return [replace(BASE, overrides={key: value, **more}) for value in values]


def changed_by(key, *fractions):
    return [replace(BASE, perturbations={key: fraction}) for fraction in fractions]


def counting(monkeypatch):
    """Count how often a run is planned whole."""
    calls = []
    discover = type(TOOL).discover

    def counted(self, spec, read):
        calls.append(spec)
        return discover(self, spec, read)

    monkeypatch.setattr(type(TOOL), "discover", counted)
    return calls


SHORT = {
    "numbers": set_to("freq.start_freq", 1e8, 1, 2.5e8, 100000000, 1e22, 1e-7, -0.0),
    "types": set_to("freq.start_freq", 1, 1.0, 2, 1.0),
    "perturbations": changed_by("freq.start_freq", 0.0, 0.1, -0.05, 1e-12),
    "whole": changed_by("time.Ntimes", 0.0, 0.1, -0.05),
    "two": [
        replace(BASE, overrides={"freq.start_freq": a, "time.start_time": b})
        for a in (1e8, 2e8)
        for b in (2460000.25, 2460001)
    ],
    "both": [
        replace(BASE, overrides={"time.Ntimes": n}, perturbations={"freq.start_freq": f})
        for n in (4, 5)
        for f in (-0.1, 0.0)
    ],
    "telescope": set_to("telescope_config.beam_paths.0.diameter", 14.0, 14, 13.3),
}

WHOLE = {
    "list": set_to("freq.start_freq", 1e8, [1e8], 2e8),
    "taken away": set_to("select.bls", "[(2, 3)]", None, "[(2, 4)]"),
    "names": set_to("filing.outfile_name", "a", "b", "c"),
    "telescope's name": set_to("telescope_config.telescope_name", "A", "B", "C"),
    "other keys": [
        *set_to("freq.start_freq", 1e8, 2e8),
        *set_to("time.Ntimes", 3),
        *changed_by("freq.start_freq", 0.1),
    ],
    "sky": set_to("sources.mock_arrangement", "zenith", "cross", **{"sources.catalog": "mock"}),
    "one": set_to("freq.start_freq", 1e8),
    "none": [],
}


@pytest.mark.parametrize("specs", {**SHORT, **WHOLE}.values(), ids={**SHORT, **WHOLE})
def test_points_are_planned_as_one_by_one(specs):
    assert isinstance(TOOL, PlansPoints)
    assert list(TOOL.plan_points(specs, read_file)) == list(one_by_one(specs))


@pytest.mark.parametrize("specs", SHORT.values(), ids=SHORT)
def test_points_that_differ_in_numbers_are_planned_once(specs, monkeypatch):
    calls = counting(monkeypatch)
    list(TOOL.plan_points(specs * 20, read_file))
    assert len(calls) == 2


def test_inputs_and_stages_are_the_same_objects():
    planned = list(TOOL.plan_points(SHORT["numbers"], read_file))
    assert len({id(inputs) for inputs, _ in planned}) == 1
    assert len({id(plan.stages) for _, plan in planned}) == 1


@pytest.mark.parametrize(
    ("specs", "good", "said"),
    [
        (set_to("freq.start_freq", 1e8, 2e8, "many", 3e8), 2, "start_freq is not a number"),
        ([*changed_by("freq.start_freq", 0.0), *changed_by("freq.no", 0.1, 0.2)], 1, "no key"),
        (set_to("freq.Nfreqs", 4, 5, 0), 2, "freq.Nfreqs is not above 0: 0"),
        (set_to("freq.Nfreqs", 4, 5, -1, 6), 2, "freq.Nfreqs is not above 0: -1"),
        (set_to("time.Ntimes", 0), 0, "time.Ntimes is not above 0: 0"),
        (set_to("freq.channel_width", 1e5, -1e5), 1, "channel_width is not above 0: -100000.0"),
        (set_to("time.integration_time", [11.0, 0.0]), 0, "integration_time is not above 0: 0.0"),
    ],
)
def test_a_fault_is_raised_when_its_turn_comes(specs, good, said):
    planned = TOOL.plan_points(specs, read_file)
    for _ in range(good):
        next(planned)
    with pytest.raises(UsageError, match=said):
        next(planned)


def test_a_perturbation_is_in_the_configuration():
    (spec,) = changed_by("freq.start_freq", -0.05)
    ((_, plan),) = one_by_one([spec])
    assert b"start_freq: 114000000.0\n" in plan.configs["obsparam.yaml"]
    (spec,) = changed_by("telescope_config.beam_paths.0.diameter", 0.1)
    ((_, plan),) = one_by_one([spec])
    assert b"15.4" in plan.configs["telescope.yaml"]
