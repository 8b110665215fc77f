"""The floor of preparing points: a plain loop that writes three small files for each."""

import os
import sys

TEXT = "a small file of a point\n" * 18


def main(folder: str, points: int) -> None:
    """Write the points."""
    os.mkdir(folder)  # noqa: PTH102 - the fastest there is
    for number in range(points):
        point = f"{folder}/point_{number}"
        os.mkdir(point)  # noqa: PTH102
        for name in ("config.yaml", "manifest.json", "submit.sh"):
            with open(f"{point}/{name}", "w") as file:  # noqa: PTH123
                file.write(TEXT)


main(sys.argv[1], int(sys.argv[2]))
