"""What pyuvsim calls its output, worked out before it runs."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.pyuvsim.keys import FILING

_log = logging.getLogger(__name__)

_SUFFIXED = ("uvfits", "uvh5", "ms")
_FORMATS = (*_SUFFIXED, "miriad")


@dataclass(frozen=True, slots=True)
class Filing:
    """The output of a simulation.

    Parameters
    ----------
    section
        The ``filing`` section as it has to stand, with the working directory for output.
    name
        The file (for ``miriad`` and ``ms`` the directory) that it writes.
    format
        One of uvh5, uvfits, miriad, ms.
    """

    section: dict[str, Any]
    name: str
    format: str


def plan_filing(obsparam: Mapping[str, Any]) -> Filing:
    """Return what pyuvsim would write for an obsparam file, moved into the working directory.

    pyuvsim takes the keys from the top of the file where it has no ``filing`` section.

    Raises
    ------
    UsageError
        If a name or the format is not usable.
    """
    given = obsparam.get("filing", {k: v for k, v in obsparam.items() if k in FILING})
    section = {**given, "outdir": "."}
    stem = _stem(section)
    kind = _format(section, stem)
    suffix = f".{kind}" if kind in _SUFFIXED and not stem.endswith(f".{kind}") else ""
    return Filing(section, f"{stem}{suffix}", kind)


def _stem(section: dict[str, Any]) -> str:
    """Return the output's name before pyuvsim adds a suffix; make it ``outfile_name``."""
    prefix = section.pop("outfile_prefix", "")
    suffix = section.pop("outfile_suffix", "results")
    name = section.get("outfile_name", "")
    if name == "":
        for key, value in (("outfile_prefix", prefix), ("outfile_suffix", suffix)):
            if not isinstance(value, str):
                raise UsageError(f"filing.{key} is not text: {value!r}", "Put it into quotes.")
        name = f"{prefix}_{suffix}"
    section["outfile_name"] = _base(name, "the output's name in filing")
    return str(section["outfile_name"])


def _base(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{key} is not text: {value!r}", "Put it into quotes.")
    base = posixpath.basename(value)
    if base in ("", ".", "..") or not base.isprintable() or len(base.encode()) > 200:
        raise UsageError(
            f"{key} is not usable as a file name: {value!r}", "Write a plain file name."
        )
    if base != value:
        _log.warning("%s: the output goes into outputs/, as %s", key, base)
    return base


def _format(section: Mapping[str, Any], stem: str) -> str:
    extension = posixpath.splitext(stem)[1].removeprefix(".")
    kind = section.get("output_format", extension if extension in _SUFFIXED else "uvh5")
    if kind not in _FORMATS:
        near = did_you_mean(str(kind), _FORMATS)
        raise UsageError(
            f"filing.output_format {kind!r} is none that pyuvsim writes",
            near or f"Formats: {', '.join(_FORMATS)}.",
        )
    return str(kind)
