"""The floor of a sweep's status: list and stat all records, and read the scheduler's answer."""

import os
import sys


def main(sweep: str, answer: str) -> None:
    """Look at all there is."""
    for point in os.scandir(f"{sweep}/points"):
        for record in os.scandir(f"{point.path}/records"):
            record.stat()
    jobs = {}
    with open(answer) as lines:  # noqa: PTH123 - as in floor.py
        for line in lines:
            job, state, *_ = line.split("|")
            jobs[job] = state


main(sys.argv[1], sys.argv[2])
