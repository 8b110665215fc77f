"""Records read at a glance, for a look-up that takes milliseconds.

Loading what checks a record against its schema takes longer than all the rest of a look-up. The
store checked the record when it was written; here only the types of its fields are looked at. Who
hands a record on writes it (`ImageRecord.to_json`), and that checks it against the schema again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images.record import SCHEMA_VERSION, ImageRecord
from valska.external_tools.core.utils import load_json

_MAJOR = f"{SCHEMA_VERSION.partition('.')[0]}."
_TEXT, _OBJECT = (str,), (dict,)
_REQUIRED: Mapping[str, tuple[type, ...]] = {
    "schema_version": _TEXT,
    "sha256": _TEXT,
    "size": (int,),
    "name": _TEXT,
    "created_utc": _TEXT,
    "origin": _TEXT,
    "definition": (dict, NoneType),
    "lock": (dict, NoneType),
    "base": (dict, NoneType),
    "build_arguments": _OBJECT,
    "apptainer_version": (str, NoneType),
    "packages": _OBJECT,
    "labels": _OBJECT,
}


def glance(path: Path) -> ImageRecord | None:
    """Return the record at a place in a store, or None where only a full reading can tell."""
    try:
        data = load_json(path)
    except ValskaError:
        return None
    if not _is_well_formed(data) or data["sha256"] != path.stem:
        return None
    known = ImageRecord.__dataclass_fields__
    fields = {name: value for name, value in data.items() if name in known}
    return ImageRecord(**{**fields, "files": tuple(data.get("files", ()))})


def _is_well_formed(data: Mapping[str, Any]) -> bool:
    return (
        all(isinstance(data.get(name, ...), kinds) for name, kinds in _REQUIRED.items())
        and data["schema_version"].startswith(_MAJOR)
        and isinstance(data.get("files", []), list)
        and all(_is_named(data[name]) for name in ("definition", "lock"))
    )


def _is_named(entry: Mapping[str, Any] | None) -> bool:
    return entry is None or all(isinstance(entry.get(name), str) for name in ("name", "sha256"))
