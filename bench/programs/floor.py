"""The floor of preparing points: a plain loop that writes three small files for each."""

import sys
from pathlib import Path

TEXT = "a small file of a point\n" * 18


def main(folder: Path, points: int) -> None:
    """Write the points."""
    folder.mkdir()
    for number in range(points):
        point = folder / f"point_{number}"
        point.mkdir()
        for name in ("config.yaml", "manifest.json", "submit.sh"):
            (point / name).write_text(TEXT)


main(Path(sys.argv[1]), int(sys.argv[2]))
