"""Packing a directory as squashfs: the same bytes of the same tree, by however many processors."""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.process import Completed, Run, run

_OPTIONS = (
    *("-noappend", "-no-xattrs", "-all-root", "-no-recovery"),
    *("-comp", "gzip", "-Xcompression-level", "6", "-b", "131072"),
)
_REPRODUCIBLE = (4, 4)
_WITHOUT_LINKS = (4, 5)
_VERSION = re.compile(r"mksquashfs version (?P<version>(\d+)\.(\d+)\S*)")
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_APPTAINERS = "apptainer/bin"
_HINT = "Install squashfs-tools 4.5 or later; Apptainer itself builds images with it."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mksquashfs:
    """The program that packs.

    Parameters
    ----------
    path
        Where it is.
    version
        As it says: ``4.5.1``.
    release
        The first two numbers of it.
    """

    path: str
    version: str
    release: tuple[int, int]

    @property
    def options(self) -> tuple[str, ...]:
        """What makes the bytes, besides the tree, the time and the program.

        Every kernel reads gzip. Its level 6 takes a third of the time that 9 takes, and half a
        per cent more room.
        """
        more = ("-no-hardlinks",) if self.release >= _WITHOUT_LINKS else ()
        return (*_OPTIONS, *more)

    @property
    def facts(self) -> dict[str, Any]:
        """What an image record says of it."""
        return {"program": "mksquashfs", "version": self.version, "options": list(self.options)}

    def pack(self, root: Path, target: Path, *, time: int, run: Run = run) -> None:
        """Pack a directory into a file.

        Parameters
        ----------
        root
            The directory; its files' times are kept.
        target
            The file to write.
        time
            Seconds since 1970: when the file system is to say that it was made.

        Raises
        ------
        ValskaError
            If it fails, as on a full disk.
        """
        if self.release < _REPRODUCIBLE:
            log.warning(
                "mksquashfs %s does not write the same bytes twice: %s", self.version, _HINT
            )
            words: tuple[str, ...] = ()
        else:
            words = ("-mkfs-time", str(time))
        argv = [self.path, os.fspath(root), os.fspath(target), *self.options, *words]
        environment = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
        done = run([*argv, "-no-progress", "-quiet"], env=environment)
        if done.returncode != 0:
            raise _failed(done)


def find_mksquashfs(apptainer: str, *, run: Run = run) -> Mksquashfs:
    """Find the program where Apptainer does: on the path, in the system's places, beside itself.

    Raises
    ------
    PrerequisiteError
        If it is not there.
    """
    path = shutil.which("mksquashfs") or shutil.which("mksquashfs", path=_PLACES)
    path = path or _beside(apptainer, run)
    if path is None:
        raise PrerequisiteError("no such program: mksquashfs", _HINT)
    match = _VERSION.search(run([path, "-version"], timeout=60).stdout)
    if match is None:
        raise PrerequisiteError(f"{path} does not tell its version", _HINT)
    return Mksquashfs(path, match["version"], (int(match[2]), int(match[3])))


def _beside(apptainer: str, run: Run) -> str | None:
    done = run([apptainer, "buildcfg", "LIBEXECDIR"], timeout=60)
    directory = done.stdout.strip().rpartition("=")[2]
    return shutil.which("mksquashfs", path=f"{directory}/{_APPTAINERS}") if directory else None


def _failed(done: Completed) -> ValskaError:
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    if any("No space left" in line or "quota exceeded" in line for line in lines):
        return ValskaError(
            "the image was not packed: the disk is full",
            "Free some space where the image store is ($VALSKA_IMAGES).",
        )
    return ValskaError(
        f"the image was not packed: mksquashfs says: {lines[-1] if lines else 'nothing'}"
    )
