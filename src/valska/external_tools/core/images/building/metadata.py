"""What ``apptainer inspect`` shows of an image, as Apptainer itself would put it into the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from valska.external_tools.core.images.building.canonical import METADATA

_SCRIPTS = {
    "runscript": "runscript",
    "test": "test",
    "startscript": "startscript",
    "helpfile": "runscript.help",
}
_ENVIRONMENTS = ("env/10-docker*.sh", "env/90-environment.sh")
_APPLICATIONS = "scif/apps"


def inspect_metadata(root: Path, definition: str) -> bytes | None:
    """Return the metadata of a sandbox as JSON; None where Apptainer has to look itself.

    Parameters
    ----------
    root
        The sandbox.
    definition
        The text to show as its definition.
    """
    own = root / METADATA
    if any(path.is_symlink() for path in (own, own / "env", root / "scif")):
        return None
    if (root / _APPLICATIONS).exists():
        return None
    attributes: dict[str, Any] = {"deffile": definition.rstrip("\n")}
    for key, name in _SCRIPTS.items():
        if text := _read(own / name):
            attributes[key] = text
    attributes["environment"] = {
        f"/{path.relative_to(root)}": _read(path)
        for pattern in _ENVIRONMENTS
        for path in sorted(own.glob(pattern))
    }
    labels = _read(own / "labels.json")
    attributes["labels"] = json.loads(labels) if labels else {}
    data = {"data": {"attributes": attributes}, "type": "container"}
    return json.dumps(data, sort_keys=True, ensure_ascii=False).encode()


def _read(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return ""
    return path.read_text("utf-8", "replace").rstrip("\n")
