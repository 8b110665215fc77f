"""The commands of docs/how-to/reproduce.md, with pyuvsim on Slurm."""

import pytest
from howto import Page

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]


def test_the_page_from_a_run_to_a_verdict(slurm, account, pyuvsim_image):
    user = account.in_directory("page")
    page = Page("reproduce", user)
    assert "# Verdict: identical" in page.go_on("cat run-reproduction")
    assert page.go_on("valska archive run").splitlines()[-1] == "identical"
    assert page.go_on("valska archive survey").splitlines()[-1].startswith("Compared by valska")
    assert page.go_on("--only Ntimes_1").splitlines()[-1] == "identical"
    assert page.go_on("--outputs").splitlines()[-1] == "identical"
    assert page.go_on("they differ").splitlines()[-1] == "they differ"
    assert page.done == len(page.blocks)
