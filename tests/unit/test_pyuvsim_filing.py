from typing import Any

import pytest

from valska.external_tools.core.errors import UsageError
from valska.external_tools.pyuvsim.filing import plan_filing


@pytest.mark.parametrize(
    ("filing", "name", "kind"),
    [
        ({}, "_results.uvh5", "uvh5"),
        ({"outfile_name": "", "outfile_prefix": ""}, "_results.uvh5", "uvh5"),
        ({"outfile_prefix": "sim"}, "sim_results.uvh5", "uvh5"),
        ({"outfile_suffix": "x"}, "_x.uvh5", "uvh5"),
        ({"outfile_prefix": "sim", "outfile_suffix": "x.uvfits"}, "sim_x.uvfits", "uvfits"),
        ({"outfile_name": "a"}, "a.uvh5", "uvh5"),
        ({"outfile_name": "a.uvfits"}, "a.uvfits", "uvfits"),
        ({"outfile_name": "a.ms"}, "a.ms", "ms"),
        ({"outfile_name": "a.b", "output_format": "ms"}, "a.b.ms", "ms"),
        ({"outfile_name": "a.uvh5", "output_format": "uvfits"}, "a.uvh5.uvfits", "uvfits"),
        ({"outfile_name": "ref_1.7.yaml", "output_format": "uvh5"}, "ref_1.7.yaml.uvh5", "uvh5"),
        ({"outfile_name": "a", "output_format": "miriad"}, "a", "miriad"),
        ({"outfile_name": "a.UVH5"}, "a.UVH5.uvh5", "uvh5"),
        ({"outfile_name": "/data/me/a", "outdir": "/data"}, "a.uvh5", "uvh5"),
        ({"outfile_prefix": "../me/sim", "outdir": "x"}, "sim_results.uvh5", "uvh5"),
    ],
)
def test_the_output_is_named_as_pyuvsim_names_it(
    filing: dict[str, Any], name: str, kind: str
) -> None:
    planned = plan_filing({"filing": filing})
    assert (planned.name, planned.format) == (name, kind)
    assert planned.section["outdir"] == "."
    assert not any("/" in value for value in planned.section.values())


def test_without_a_section_the_keys_stand_at_the_top() -> None:
    planned = plan_filing({"outdir": "x", "outfile_name": "a", "clobber": True, "freq": {}})
    assert planned.section == {"outdir": ".", "outfile_name": "a", "clobber": True}
    assert planned.name == "a.uvh5"


def test_clobber_stays_as_it_was_set() -> None:
    assert "clobber" not in plan_filing({"filing": {}}).section
    assert plan_filing({"filing": {"clobber": False}}).section["clobber"] is False


@pytest.mark.parametrize(
    ("filing", "message"),
    [
        ({"output_format": "uvh"}, "output_format 'uvh'"),
        ({"output_format": None}, "output_format None"),
        ({"outfile_name": 5}, "not text: 5"),
        ({"outfile_name": "a/"}, "not usable as a file name"),
        ({"outfile_name": ".."}, "not usable as a file name"),
        ({"outfile_name": "a\nb"}, "not usable as a file name"),
        ({"outfile_name": "a" * 300}, "not usable as a file name"),
        ({"outfile_prefix": 5}, "outfile_prefix is not text"),
    ],
)
def test_names_that_cannot_be_are_refused(filing: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        plan_filing({"filing": filing})
    assert caught.value.hint


def test_a_misspelt_format_gets_the_near_one() -> None:
    with pytest.raises(UsageError) as caught:
        plan_filing({"filing": {"output_format": "uvfit"}})
    assert caught.value.hint == "Did you mean 'uvfits'?"
