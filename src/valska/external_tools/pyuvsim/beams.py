"""The beam files of a telescope configuration, in each of the ways to write them.

``!UVBeam`` with ``filename`` (one or a list), ``mwa_zfile`` and ``path_variable``, anywhere in a
document; a plain mapping with ``filename`` below ``beam_paths``; and CST settings, a YAML file that
names further files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.tool import Read
from valska.external_tools.pyuvsim.document import TaggedMapping, parse_yaml
from valska.external_tools.pyuvsim.files import Keys, NamedFile, missing, path_text

_FILE_KEYS = ("filename", "mwa_zfile")

Roots = tuple[Path, ...]


def beam_files(document: Any, owner: str, prefix: str, roots: Roots) -> Iterator[NamedFile]:
    """Find every beam file that a document names.

    Parameters
    ----------
    document
        A telescope configuration or an obsparam file.
    owner
        Which of the two it is.
    prefix
        What the files' logical names begin with.
    roots
        Directories to look in, the best first.

    Raises
    ------
    UsageError
        If a beam is written in a way that pyuvsim does not take.
    """
    for keys, beam in _beams(document, ()):
        for key in _FILE_KEYS:
            value = beam.get(key)
            several = isinstance(value, list)
            for index, element in enumerate(value if isinstance(value, list) else [value]):
                if element is not None:
                    place = (*keys, key, index) if several else (*keys, key)
                    yield _beam_file(element, beam, owner, place, prefix, roots)


def is_settings(file: NamedFile) -> bool:
    """Tell whether a beam file is a CST settings file."""
    return "filename" in file.keys[-2:] and file.label.endswith("yaml")


def load_settings(path: Path, read: Read) -> dict[Any, Any]:
    """Read a CST settings file.

    Raises
    ------
    UsageError
        If it is none.
    """
    document = parse_yaml(read(path), path.name)
    names = document.get("filenames") if isinstance(document, dict) else None
    if not isinstance(names, list):
        raise UsageError(
            f"{path.name} is no CST settings file: it has no list of filenames",
            "A beam's filename that ends in .yaml is taken for CST settings.",
        )
    return dict(document)


def settings_files(name: str, document: Mapping[str, Any], base: Path) -> Iterator[NamedFile]:
    """Find the files that CST settings name, relative to the settings' directory."""
    for index, element in enumerate(document["filenames"]):
        key = f"{name}.filenames.{index}"
        text = path_text(element, key)
        place = ("filenames", index)
        yield NamedFile(key, name, place, (base / text,), Path(text).name, missing(text))


def prepare_beams(node: Any) -> None:
    """Drop every ``path_variable``, and write down what pyuvdata reads from a CST file's name.

    Staged names are in lower case, and pyuvdata looks for ``MHz``.

    Raises
    ------
    UsageError
        If the frequency of a CST file is not known.
    """
    if _is_uvbeam(node):
        node.pop("path_variable", None)
    if isinstance(node, dict) and "filename" in node:
        _write_frequency(node)
    for _, child in _children(node):
        prepare_beams(child)


def _beams(node: Any, keys: Keys) -> Iterator[tuple[Keys, Mapping[Any, Any]]]:
    below = len(keys) == 2 and keys[0] == "beam_paths"
    if _is_uvbeam(node) or (below and isinstance(node, dict) and "filename" in node):
        if "filename" not in node:
            raise UsageError(f"{'.'.join(map(str, keys))}: !UVBeam without a filename", "Add one.")
        yield keys, node
    elif below and not isinstance(node, dict):
        raise UsageError(
            f"beam_paths.{keys[1]}: pyuvsim does not take {node!r} for a beam",
            "Write `!UVBeam {filename: FILE}` or `!AnalyticBeam {class: AiryBeam, diameter: 14}`.",
        )
    else:
        for key, value in _children(node):
            yield from _beams(value, (*keys, key))


def _beam_file(
    value: Any, beam: Mapping[Any, Any], owner: str, keys: Keys, prefix: str, roots: Roots
) -> NamedFile:
    name = prefix + ".".join(map(str, keys))
    text = path_text(value, name)
    folder = beam.get("path_variable") if _is_uvbeam(beam) else None
    if folder is None:
        places, problem = _below(roots, Path(text)), missing(text)
    else:
        folder = path_text(folder, f"{name} (path_variable)")
        places = _below(roots, Path(folder) / text)
        problem = _missing_in(folder, text, name)
    return NamedFile(name, owner, keys, places, Path(text).name, problem)


def _below(roots: Roots, relative: Path) -> Roots:
    return tuple(root / relative for root in roots)


def _missing_in(folder: str, value: str, name: str) -> tuple[str, str]:
    if "." not in folder or "/" in folder:
        return missing(f"{folder}/{value}")
    beam = re.sub(r"\.(filename|mwa_zfile)(\.\d+)?$", "", name)
    return (
        f"{value} lies where pyuvsim is installed (path_variable {folder})",
        f"Copy it from there, and name the copy's directory with the override "
        f"{beam}.path_variable=DIRECTORY.",
    )


def _is_uvbeam(node: Any) -> bool:
    return isinstance(node, TaggedMapping) and node.tag == "!UVBeam"


def _children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list) else []


def _write_frequency(beam: dict[Any, Any]) -> None:
    names = beam["filename"] if isinstance(beam["filename"], list) else [beam["filename"]]
    guess = "cst" if str(names[0]).lower().endswith(".txt") else None
    if beam.get("file_type", guess) != "cst" or "frequency" in beam or names[0].endswith("yaml"):
        return
    found = [_frequency(name) for name in names]
    beam["frequency"] = found if isinstance(beam["filename"], list) else found[0]


def _frequency(name: str) -> float:
    """Return the frequency in a CST file's name, in Hz, exactly as pyuvdata reads it."""
    end = name.rfind("Hz")
    numbers = re.findall(r"\d*\.\d+|\d+", name[:end])
    if end < 1 or not numbers:
        raise UsageError(
            f"the frequency of the beam file {name} is not known",
            "Add `frequency: <Hz>` to the beam, or name the file so, as in beam_150MHz.txt.",
        )
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(name[end - 1], 1.0)
    return float(numbers[-1]) * scale
