"""The files that a configuration names: where they lie, and what they are called in a bundle.

BayesEoR looks for visibilities, noise and instrument model beside its configuration, and for a beam
file in the working directory, in lower case. Here each is looked for in both places, as written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.bayeseor.settings import is_beam_file
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.tool import Input

_DATA_SUFFIXES = (".uvh5", ".uvfits", ".npy")
_REQUIRED = ("uvw_model.npy", "redundancy_model.npy")
_MODEL_FILES = (*_REQUIRED, "antpairs.npy", "phasor_vector.npy")
_WHOLE_MODEL = "instrument_model.npy"


def find_files(
    values: Mapping[str, Any], source: Path, data: str | None
) -> tuple[tuple[Input, ...], dict[str, str]]:
    """Find every file that a configuration names.

    Parameters
    ----------
    values
        The configuration.
    source
        The configuration's file, for relative paths.
    data
        What ``--data`` names, relative to the current directory; instead of ``data_path``.

    Returns
    -------
    inputs : tuple of Input
        The files. Their names in a bundle are in lower case.
    paths : dict
        Key of the configuration to its value in a bundle; the same relative to ``config/`` and to
        ``outputs/``.

    Raises
    ------
    UsageError
        If one is missing, or is nothing that BayesEoR reads.
    """
    found = list(_data(values, source, data))
    if values.get("noise_data_path") is not None:
        found.append(_one("noise_data_path", "noise", _locate(values, "noise_data_path", source)))
    if is_beam_file(str(values["beam_type"])):
        found.append(_one("beam_type", "beam", _locate(values, "beam_type", source)))
    paths = {item.name: f"../inputs/{item.target}" for item in found}
    if values.get("inst_model") is not None:
        found += _model(_locate(values, "inst_model", source))
        paths["inst_model"] = "../inputs/inst_model"
    return tuple(found), paths


def _data(values: Mapping[str, Any], source: Path, data: str | None) -> Iterator[Input]:
    if data is None and values.get("data_path") is None:
        raise UsageError(
            "there are no visibilities: the configuration has no data_path",
            "Name the file with --data FILE.",
        )
    path = _locate(values, "data_path", source) if data is None else Path(data)
    name = "--data" if data is not None else "data_path"
    if path.is_dir():
        raise UsageError(
            f"{name}: {path} is a directory",
            "Name one file; BayesEoR reads a measurement set only after conversion to UVH5.",
        )
    if path.suffix.lower() not in _DATA_SUFFIXES:
        raise UsageError(
            f"{name}: BayesEoR cannot read {path.name}",
            f"It tells formats by their suffix: {', '.join(_DATA_SUFFIXES)}.",
        )
    if path.suffix == ".npy" and values.get("inst_model") is None:
        raise UsageError(
            f"{path.name} holds visibilities only, and the configuration has no inst_model",
            f"Name the folder with {' and '.join(_REQUIRED)}.",
        )
    yield _one("data_path", "data", path, name)


def _one(key: str, folder: str, path: Path, shown: str | None = None) -> Input:
    if path.is_dir():
        raise UsageError(f"{shown or key}: {path} is a directory, not a file", "Name one file.")
    if not path.is_file():
        raise UsageError(f"{shown or key}: no such file: {path}", "Check the path.")
    return Input(key, path.absolute(), f"{folder}/{_plain(path.name)}")


def _model(folder: Path) -> list[Input]:
    whole = folder / _WHOLE_MODEL
    names = [_WHOLE_MODEL] if whole.is_file() else list(_MODEL_FILES)
    there = [name for name in names if (folder / name).is_file()]
    missing = [] if whole.is_file() else [name for name in _REQUIRED if name not in there]
    if missing:
        raise UsageError(
            f"inst_model: {folder} has no {', '.join(missing)}",
            "Name the folder of the instrument model.",
        )
    return [
        Input(f"inst_model.{Path(name).stem}", (folder / name).absolute(), f"inst_model/{name}")
        for name in there
    ]


def _locate(values: Mapping[str, Any], key: str, source: Path) -> Path:
    text = str(values[key])
    for candidate in (source.parent / text, Path(text)):
        try:
            if candidate.exists():
                return candidate
        except OSError:
            continue
    hint = "A relative path is looked for beside the configuration and in the current directory."
    if text.startswith("~") or "$" in text:
        hint = "BayesEoR expands neither ~ nor variables: write the path in full."
    raise UsageError(f"{key}: no such {'folder' if key == 'inst_model' else 'file'}: {text}", hint)


def _plain(name: str) -> str:
    plain = re.sub(r"[^a-z0-9._-]+", "_", name.lower()).lstrip("._-") or "file"
    stem, dot, suffix = plain.rpartition(".")
    return f"{stem[:80]}.{suffix[:16]}" if dot else plain[:80]
