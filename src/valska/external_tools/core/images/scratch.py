"""Private directories for work in progress: each names its process; those of killed ones go."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.identity import identify
from valska.external_tools.core.images.building.ownership import in_namespace
from valska.external_tools.core.lock import OWNER, read_owner
from valska.external_tools.core.process import Run, run

log = logging.getLogger(__name__)


def claim_directory(parent: Path, prefix: str) -> Path:
    """Make a private directory that names its process, and remove those of killed ones.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    for path in parent.glob(f"{prefix}*"):
        if _is_abandoned(path):
            log.info("removing %s, which a killed build left", path)
            remove_directory(path)
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    path.chmod(0o700)
    (path / OWNER).write_text(json.dumps(identify().as_json()))
    return path


def _is_abandoned(path: Path) -> bool:
    """Return whether a directory is this user's, and its process has certainly ended."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    owner = read_owner(path)
    return owner is not None and owner.alive() is False


def remove_directory(work: Path, run: Run = run) -> None:
    """Remove a directory; what belongs to subordinate ids needs a user namespace to go."""
    shutil.rmtree(work, ignore_errors=True)
    if work.exists():
        with suppress(PrerequisiteError):
            in_namespace("remove", work, run)
    if work.exists():
        log.warning("the temporary directory %s could not be removed", work)
