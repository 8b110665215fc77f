"""Points prepared with signac-flow: for each a state point, a parameter file, a submit script."""

import contextlib
import io
import sys
from pathlib import Path

import flow


class Sweep(flow.FlowProject):
    """One operation for each point."""


@Sweep.post.isfile("results.txt")
@Sweep.operation(cmd=True, with_job=True)
def sample(job):
    """Run the point."""
    return "analyse config.yaml"


class Cluster(flow.environment.DefaultSlurmEnvironment):
    """Slurm; scripts are written, not sent."""

    @classmethod
    def is_present(cls):
        """Say that this is the machine."""
        return True

    @classmethod
    def submit(cls, script, flags=None, _id=None, **options):
        """Write a script into its point's directory."""
        Path("workspace", _id.split("/")[1], "submit.sh").write_text(script)


def main(points):
    """Prepare the points below the current directory."""
    project = Sweep.init_project()
    for number in range(points):
        width = 8 + 4 * number / (points - 1)
        job = project.open_job({"fwhm_deg": width})
        job.init()
        Path(job.fn("config.yaml")).write_text(f"fwhm_deg: {width}\n")
    with contextlib.redirect_stderr(io.StringIO()):
        project.submit()


main(int(sys.argv[1]))
