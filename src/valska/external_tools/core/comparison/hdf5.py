"""HDF5 and numpy files, compared array by array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from valska.external_tools.core.comparison.arrays import compare_arrays, word
from valska.external_tools.core.comparison.values import compare_documents, reading
from valska.external_tools.core.comparison.verdict import Part, Tolerances, Verdict
from valska.external_tools.core.errors import PrerequisiteError

Opened = Mapping[str, Any]


def require_arrays() -> None:
    """Refuse to compare arrays without the packages that read them.

    Raises
    ------
    PrerequisiteError
        Naming the package that is missing.
    """
    try:
        import h5py  # noqa: F401
        import numpy as np  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            f"to compare arrays takes a package that is not installed: {error.name}",
            "pip install 'valska[plot]'",
        ) from error


@contextmanager
def opened(reference: Path, new: Path) -> Iterator[tuple[Any, Any]]:
    """Open two HDF5 files for reading.

    Raises
    ------
    UnreadableError
        If one cannot be read as HDF5.
    PrerequisiteError
        If h5py is not installed.
    """
    require_arrays()
    import h5py

    with ExitStack() as stack:
        files = []
        for path in (reference, new):
            with reading(f"{path.name} is not readable as HDF5"):
                files.append(stack.enter_context(h5py.File(path, "r")))
        mine, theirs = files
        with reading("one of the two is not readable as HDF5"):
            yield mine, theirs


def compare_hdf5(reference: Path, new: Path, tolerances: Tolerances) -> list[Part]:
    """Compare all arrays and attributes of two HDF5 files.

    Raises
    ------
    UnreadableError, PrerequisiteError
        See `opened`.
    """
    with opened(reference, new) as (mine, theirs):
        parts = list(compare_members(datasets(mine), datasets(theirs), tolerances))
        return [*parts, *_names(mine, theirs, tolerances), *_attributes(mine, theirs, tolerances)]


def datasets(file: Any) -> dict[str, Any]:
    """Return all arrays of an HDF5 file by their path in it."""
    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.update({name: item} if hasattr(item, "shape") else {}))
    return found


def compare_members(
    reference: Opened,
    new: Opened,
    tolerances: Tolerances,
    compare: Callable[[str, Any, Any, Tolerances], Part] | None = None,
) -> Iterator[Part]:
    """Compare arrays by name; one that only one side has differs."""
    one = compare or compare_dataset
    for name in dict.fromkeys((*reference, *new)):
        if name in reference and name in new:
            yield one(name, reference[name], new[name], tolerances)
        else:
            where = "reference" if name in reference else "new run"
            yield Part(
                name=name, verdict=Verdict.DIFFERENT, detail=f"only the {where} has it", differing=1
            )


def compare_dataset(name: str, reference: Any, new: Any, tolerances: Tolerances) -> Part:
    """Compare two datasets of HDF5, which may be empty ones without a shape."""
    if reference.shape is None or new.shape is None:
        same = reference.shape is None and new.shape is None
        verdict = Verdict.IDENTICAL if same else Verdict.DIFFERENT
        return Part(name=name, verdict=verdict, detail="" if same else "one of them is empty")
    return compare_arrays(name, reference, new, tolerances)


def text_of(dataset: Any) -> str:
    """Return the text that a dataset holds."""
    return str(word(dataset[()]))


def compare_numpy(reference: Path, new: Path, tolerances: Tolerances) -> list[Part]:
    """Compare two files of numpy: ``.npy``, or all arrays of ``.npz``.

    Raises
    ------
    UnreadableError
        If one cannot be read, or holds pickled objects.
    PrerequisiteError
        If numpy is not installed.
    """
    mine, theirs = _numpy_members(reference), _numpy_members(new)
    return list(compare_members(mine, theirs, tolerances, compare_arrays))


def _numpy_members(path: Path) -> dict[str, Any]:
    require_arrays()
    import numpy as np

    with reading(f"{path.name} is not readable as arrays"), path.open("rb") as file:
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            return {"array": found}
        with found:
            return {name: found[name] for name in found.files}


def _names(reference: Any, new: Any, tolerances: Tolerances) -> Iterator[Part]:
    """Yield what differs of groups, of further names of arrays, and of where links lead."""
    part = compare_documents(_names_of(reference), _names_of(new), tolerances, "groups and links")
    if part.verdict is not Verdict.IDENTICAL:
        yield part


def _names_of(file: Any) -> dict[str, str]:
    known, found = datasets(file), {}

    def see(name: str, link: Any) -> None:
        if name not in known:
            leads = (getattr(link, key, "") for key in ("filename", "path"))
            found[name] = " ".join((type(link).__name__, *leads))

    file.visititems_links(see)
    return found


def _attributes(reference: Any, new: Any, tolerances: Tolerances) -> Iterator[Part]:
    mine, theirs = (_attributes_of(file) for file in (reference, new))
    if mine or theirs:
        yield compare_documents(mine, theirs, tolerances, "attributes")


def _attributes_of(file: Any) -> dict[str, dict[str, Any]]:
    items = {"/": file}
    file.visititems(lambda name, item: items.update({name: item}))
    every = {
        name: {key: _attribute(item, key) for key in item.attrs} for name, item in items.items()
    }
    return {name: found for name, found in every.items() if found}


def _attribute(item: Any, key: str) -> Any:
    try:
        value = item.attrs[key]
    except (OSError, TypeError) as error:
        return f"not readable: {error}"
    return _plain(value, item.file)


def _plain(value: Any, file: Any) -> Any:
    """Return a value as numbers, words and lists; of a reference the name that it leads to."""
    import h5py
    import numpy as np

    if isinstance(value, h5py.Reference):
        return f"reference to {file[value].name}" if value else "reference to nothing"
    if isinstance(value, np.void) and value.dtype.names:
        return [_plain(one, file) for one in value.tolist()]
    if isinstance(value, np.ndarray):
        return [_plain(one, file) for one in value] if value.ndim else _plain(value[()], file)
    plain = word(value)
    return plain if isinstance(plain, int | float | complex | str) else repr(plain)
