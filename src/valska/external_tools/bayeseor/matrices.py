"""The matrices: what determines them, and how those of another run are used.

BayesEoR names their directory after rounded values, so two configurations that differ in the fifth
digit would take each other's. Here the values themselves are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from valska.external_tools.bayeseor.document import parse, text_of
from valska.external_tools.bayeseor.keys import HYPOTHESES, NO_MATRIX_KEYS
from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, sweep_of
from valska.external_tools.core.tool import Input, read_file
from valska.external_tools.core.utils import load_json, sha256_bytes, sha256_file

MATRICES = "matrices"
"""Directory below ``outputs/``."""
PRECOMPUTE = "cpu_precompute"


def matrix_names(keys: Iterable[str]) -> tuple[str, ...]:
    """Return those keys of a rendered configuration that may change the matrices, sorted."""
    return tuple(sorted(set(keys) - NO_MATRIX_KEYS))


def file_lines(inputs: Iterable[Input]) -> str:
    """Return a text that tells which files a configuration names."""
    return "".join(f"{item.name} {item.source}\n" for item in inputs)


def sharing_key(lines: str, files: str) -> str:
    """Return a digest of all that determines matrices: lines of `matrix_names`, `file_lines`."""
    return sha256_bytes(f"{lines}{files}".encode())


def find_matrices(reference: str, values: Mapping[str, Any], inputs: Sequence[Input]) -> Path:
    """Return the directory with the matrices of another run.

    Parameters
    ----------
    reference
        A bundle, a point or shared work of a sweep, or a directory of matrices.
    values
        The configuration that is to use them.
    inputs
        The user's files that it names.

    Raises
    ------
    UsageError
        If there is no such directory, or the other run's configuration or files give other
        matrices.
    PrerequisiteError
        If they are not there, or not complete.
    """
    path = Path(reference).absolute()
    if not path.is_dir():
        raise UsageError(
            f"--matrices: no such directory: {path}", "Name a bundle, or a directory of matrices."
        )
    if is_sweep(path):
        raise UsageError(f"--matrices: {path} is a sweep", "Name one of its points.")
    owner = _owner(path)
    if owner is None:
        return _complete(path)
    _check_completed(owner)
    _check_configuration(owner, values)
    _check_files(owner, inputs)
    return _complete(owner.outputs / MATRICES)


def _owner(path: Path) -> Bundle | None:
    """Return the bundle, or the unit of a sweep, whose job made the matrices."""
    sweep = sweep_of(path)
    unit = Bundle(path, sweep.path if sweep else None)
    if not unit.manifest.is_file():
        return None
    manifest = load_json(unit.manifest)
    shared = (manifest.get("shared") or {}).get(PRECOMPUTE)
    if sweep is not None and shared:
        return Sweep(sweep.path).shared_unit(shared)
    for borrowed in manifest.get("borrowed") or ():
        raise UsageError(
            f"--matrices: {path} uses matrices of another run itself",
            f"Name that run: {borrowed.get('source')}.",
        )
    return unit


def _check_completed(owner: Bundle) -> None:
    from valska.external_tools.core.records import RecordState, read_records

    record = read_records(owner).latest(PRECOMPUTE)
    if record is None or record.state is not RecordState.COMPLETED:
        state = "has not run" if record is None else f"is {record.state.value}"
        raise PrerequisiteError(
            f"--matrices: {PRECOMPUTE} of {owner.path} {state}",
            "Wait until it has completed (`valska status`).",
        )


def _check_configuration(owner: Bundle, values: Mapping[str, Any]) -> None:
    files = [owner.config / config_name(name) for name in HYPOTHESES]
    there = next((file for file in files if file.is_file()), None)
    if there is None:
        raise UsageError(
            f"--matrices: {owner.path} is no run of BayesEoR", "Name one that has matrices."
        )
    other = parse(read_file(there), str(there))
    ignored = {*NO_MATRIX_KEYS, "data_path"}
    differ = sorted(
        name
        for name in {*other, *values} - ignored
        if _plain(name, other.get(name)) != _plain(name, values.get(name))
    )
    if differ:
        told = ", ".join(
            f"{name} is {text_of(other.get(name))} there and {text_of(values.get(name))} here"
            for name in differ[:3]
        )
        raise UsageError(
            f"--matrices: those of {owner.path} do not fit: {told}",
            "Use matrices of a run with the same configuration, or leave --matrices out.",
        )


def _check_files(owner: Bundle, inputs: Sequence[Input]) -> None:
    """Baselines, times, noise and beam come from the files: their contents have to be the same."""
    from valska.external_tools.core.manifest import read_manifest

    there = {entry.name: entry for entry in read_manifest(owner).inputs}
    differ = [
        item
        for item in inputs
        if item.name not in there
        or item.source.stat().st_size != there[item.name].size
        or sha256_file(item.source) != there[item.name].sha256
    ]
    if differ:
        told = ", ".join(f"{item.name} here is {item.source}" for item in differ[:3])
        raise UsageError(
            f"--matrices: those of {owner.path} were made from other files: {told}",
            "Matrices follow from the baselines, times and channels of the visibilities. If you "
            f"know that they are the same, name {owner.outputs / MATRICES} itself.",
        )


def _plain(name: str, value: Any) -> Any:
    """Return a value as it can be compared: a file by its name alone, as bundles have it."""
    if name in ("noise_data_path", "beam_type", "inst_model") and value is not None:
        return str(value).rpartition("/")[2].lower()
    return value


def _complete(path: Path) -> Path:
    if not path.is_dir():
        raise PrerequisiteError(f"--matrices: there are no matrices in {path}", "Check the path.")
    folders = {file.parent for file in path.glob("nu*-nv*-neta*/**/version.txt")}
    if not any(map(_is_complete, folders)):
        raise PrerequisiteError(
            f"--matrices: the matrices in {path} are not complete",
            f"BayesEoR needs, below nu…-nv…-neta…: {', '.join(needed_files(True))} (or .h5).",
        )
    return path.resolve()


def _is_complete(folder: Path) -> bool:
    return any(
        all((folder / name).is_file() for name in needed_files(sparse)) for sparse in (True, False)
    )


def needed_files(sparse: bool) -> tuple[str, ...]:
    """Return the files that a run looks for, and would write if one were missing.

    Parameters
    ----------
    sparse
        Whether sparse matrices are kept as such. ``version.txt`` is written last.
    """
    suffix = "npz" if sparse else "h5"
    return (f"Ninv.{suffix}", f"N.{suffix}", "T.h5", "T_Ninv_T.h5", "version.txt")


def config_name(hypothesis: str) -> str:
    """Return the name of a hypothesis's configuration below ``config/``."""
    return f"config_{hypothesis}.yaml"
