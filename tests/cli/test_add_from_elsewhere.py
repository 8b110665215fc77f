"""Points that are added from another directory, or by a later version of a tool's own files."""

import json
import shutil
from dataclasses import replace

from reported import make_sweep

from valska.external_tools.bayeseor import planner

SWEEP = ("sweep", "bayeseor", "--template", "tiny_cpu", "--cpu", "--runner", "host", "--add")


def labels(sweep):
    return [p["label"] for p in json.loads((sweep / "sweep_manifest.json").read_text())["points"]]


def test_the_data_may_be_named_otherwise_where_their_content_is_the_same(user):
    sweep = make_sweep(user, values=(9.0, 9.5))
    moved = user.cwd / "moved"
    moved.mkdir()
    data = shutil.move(user.cwd / "eor.uvh5", moved / "eor.uvh5")
    user.ok(*SWEEP, "--data", data, "--values", "fwhm_deg=9.5,10.0", "-o", sweep)
    assert labels(sweep) == ["fwhm_deg_9.0", "fwhm_deg_9.5", "fwhm_deg_10.0"]
    data.write_text("other visibilities\n")
    refused = user.run(*SWEEP, "--data", data, "--values", "fwhm_deg=11.0", "-o", sweep)
    assert refused.exit_code == 2
    assert "input data_path has changed since" in refused.stderr


def test_new_points_take_the_driver_that_the_sweep_has(user, monkeypatch):
    sweep = make_sweep(user, values=(9.0,))
    driver = (sweep / "inputs/driver.py").read_bytes()
    later = user.write("driver.py", f"{driver.decode()}# Later.\n")
    monkeypatch.setattr(planner, "DRIVER", replace(planner.DRIVER, source=later))
    user.ok(*SWEEP, "--data", "eor.uvh5", "--values", "fwhm_deg=9.0,10.0", "-o", sweep)
    assert labels(sweep) == ["fwhm_deg_9.0", "fwhm_deg_10.0"]
    assert (sweep / "inputs/driver.py").read_bytes() == driver
    user.ok("verify", sweep)
