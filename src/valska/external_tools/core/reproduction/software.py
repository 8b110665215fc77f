"""What there is to say of the software of a reproduction: image, conda environment, host."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from valska.external_tools.core.comparison.environment import recorded_packages_of
from valska.external_tools.core.comparison.runs import software_of
from valska.external_tools.core.reproduction.replay import Parent
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.utils import write_atomic

_SETUP = "site_setup() {"


def software_notes(
    reference: Parent, new: Parent, packages: Path, image: str | None
) -> Iterator[str]:
    """Yield what a comparison says of the software.

    Parameters
    ----------
    reference, new
        The two, or what the points of two sweeps share.
    packages
        Where to write the packages of the reference's conda environment if the new one has
        others: the file from which conda makes it again.
    image
        How the image was come by, if that is known.
    """
    runner = RunnerKind(reference.manifest.runner)
    if image is not None:
        yield f"the image was {image}"
    if runner is RunnerKind.HOST:
        yield "both ran on their hosts: nothing stands for the software there, so it may differ"
    if runner is RunnerKind.CONDA:
        yield from _conda_notes(reference, new, packages)
    if runner is not RunnerKind.CONTAINER and _has_setup(reference) and not _has_setup(new):
        yield (
            "the reference's jobs began with set-up lines, which its site.env has, and these with "
            "none: they are `setup` in the configuration"
        )


def _conda_notes(reference: Parent, new: Parent, packages: Path) -> Iterator[str]:
    name = (new.manifest.environment or {}).get("name", "")
    if software_of(reference.manifest) == software_of(new.manifest):
        yield f"the conda environment {name} has the same packages as the reference's"
        return
    listed = recorded_packages_of(reference.bundle)
    if listed is None:
        yield f"the conda environment {name} has other packages than the reference's"
        return
    lines = ["@EXPLICIT", *(line for line in listed if not line.startswith("@"))]
    write_atomic(packages, "".join(f"{line}\n" for line in lines).encode())
    yield (
        f"the conda environment {name} has other packages than the reference's, which "
        f"`conda create --name NAME --file {shlex.quote(packages.name)}` installs"
    )


def _has_setup(run: Parent) -> bool:
    """Return whether ``site.env`` has set-up lines; without any its function does nothing."""
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = [*map(str.strip, run.bundle.site_env.read_text(encoding="utf-8").splitlines())]
    return _SETUP in lines and lines[lines.index(_SETUP) + 1 :][:2] != [":", "}"]
