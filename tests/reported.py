"""Runs as if they had ended: stage records, and the chains that the real BayesEoR wrote."""

import json
import shutil
from pathlib import Path

from valska.external_tools.core.schema import validate
from valska.external_tools.core.utils import sha256_file

REAL = Path(__file__).parent / "data/bayeseor"
CHAINS = "MN-5-5-6-0-2.63-2.82-6.2E-03-lp-dPS-v1"
UNFINISHED = "MN-5-5-14-0-2.63-2.82-6.2E-03-lp-dPS-v1"
HYPOTHESES = ("signal_fit", "no_signal")

EVIDENCE = """\
Nested Sampling Global Log-Evidence           :  {ns[0]:27.18E}  +/-  {ns[1]:24.18E}
Nested Importance Sampling Global Log-Evidence:  {ins[0]:27.18E}  +/-  {ins[1]:24.18E}
"""


def finish(unit, stages=("cpu_precompute", *HYPOTHESES), state="completed", shared=None):
    """Write the record of stages of a bundle or a point, as a job started by hand would."""
    for stage in stages:
        record = {
            "schema_version": "1.0",
            "stage": stage,
            "state": state,
            "job": {"scheduler": "none", "id": "none-1", "task": None, "restart": 0, "name": None},
            "bundle_id": json.loads((unit / "manifest.json").read_text())["bundle_id"],
            "instance": "0" * 32,
            "seal": sha256_file(unit / "SHA256SUMS"),
            "valska_version": "1",
            "started_utc": "2026-01-02T03:04:05Z",
            "ended_utc": "2026-01-02T03:04:15Z",
            "elapsed_s": 10,
            "exit_code": 0 if state == "completed" else 1,
            "signal": None,
            "reason": None,
            "host": {
                "name": "h", "kernel": "k", "cpu": "c", "cpus": 1, "memory_kib": 1, "gpus": []
            },
            "slurm": {},
            "runner": {"kind": "host", "version": None, "command": ["true"]},
            "image": None,
            "environment": None,
            "site_env_sha256": None,
            "inputs_checked": 0,
            "outputs": [],
            "missing_outputs": [],
        }  # fmt: skip
        validate(record, "stage-record-1", stage)
        (unit / "records").mkdir(exist_ok=True)
        (unit / f"records/{stage}-none-1-r0.json").write_text(json.dumps(record))


def put_chains(outputs, **evidences):
    """Put the recorded chains where a run writes them; with other evidences, if given.

    `evidences` has for a hypothesis the value and the error of the importance-sampled ln Z; that
    of plain nested sampling is 1 less, with twice the error.
    """
    shutil.copytree(REAL / "finished", outputs, dirs_exist_ok=True)
    for name, (value, error) in evidences.items():
        text = EVIDENCE.format(ins=(value, error), ns=(value - 1, 2 * error))
        (outputs / name / CHAINS / "data-stats.dat").write_text(text)


def make_sweep(user, *more, values=(9.0, 9.5, 10.0), output="sweep"):
    """Make a sweep of BayesEoR over the width of the beam; nothing of it has run."""
    data = user.write("eor.uvh5", "no visibilities: nothing reads them here\n")
    listed = ",".join(map(str, values))
    user.ok(
        "sweep", "bayeseor", "--template", "tiny_cpu", "--data", data, "--cpu", "--runner", "host",
        "--values", f"fwhm_deg={listed}", "-o", output, *more,
    )  # fmt: skip
    return user.cwd / output


def points(sweep):
    """Return the directories of a sweep's points, in order."""
    manifest = json.loads((sweep / "sweep_manifest.json").read_text())
    return [sweep / "points" / point["label"] for point in manifest["points"]]
