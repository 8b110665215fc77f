"""What the tests ask Slurm and the machine themselves, apart from valska."""

import json
import subprocess
import time
from pathlib import Path

LIVE = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", "CONFIGURING")


def wait_until(condition, timeout=300, pause=0.5):
    """Return the first true answer of a condition."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(pause)
    raise AssertionError(f"not within {timeout} s: {condition}")


def ask(*argv):
    """Return the lines that one of Slurm's programs prints."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def accounts(*options, fields="JobID,State,ExitCode,WorkDir"):
    """Return the rows of sacct."""
    argv = ("sacct", "--allusers", "--allocations", "--noheader", "--parsable2", "--duplicates")
    return [line.split("|") for line in ask(*argv, f"--format={fields}", *options)]


def jobs_of(bundle):
    """Return the ids of all jobs, live or not, that were ever sent from a bundle."""
    rows = accounts("--starttime=now-1hour", fields="JobID,WorkDir")
    rows += [line.split("|") for line in ask("squeue", "-h", "--states=all", "--format=%A|%Z")]
    return sorted({job for job, place in rows if place == str(bundle)}, key=int)


def state(job):
    """Return the controller's word for a job, else the accounting's."""
    words = ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")
    if words:
        return words[0]
    rows = accounts(f"--jobs={job}")
    return rows[-1][1].split()[0] if rows else ""


def started(job):
    """Wait until a job runs."""
    return wait_until(lambda: state(job) == "RUNNING")


def ended(job, timeout=300):
    """Wait until a job has ended and return Slurm's word for it."""
    return wait_until(lambda: (word := state(job)) and word not in LIVE and word, timeout)


def records(bundle, stage):
    """Return the records of a stage, oldest attempt first."""
    paths = sorted(bundle.glob(f"records/{stage}-*.json"))
    return [json.loads(path.read_text()) for path in paths]


def record_of(bundle, stage):
    """Return the only record of a stage."""
    (record,) = records(bundle, stage)
    return record


def processes(text):
    """Return the ids of the processes whose command line holds a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if text.encode() in words:
            found.append(int(path.parent.name))
    return found
