"""Arrays, compared element by element, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.comparison.tally import Tally, finite, shown
from valska.external_tools.core.comparison.verdict import Largest, Part, Tolerances, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 1 << 20
"""How many elements are held in memory at once, as far as the first axis divides them."""
_SHOWN = 5


def compare_arrays(name: str, reference: Any, new: Any, tolerances: Tolerances) -> Part:
    """Compare two arrays, of numpy or of HDF5.

    Whole numbers, flags and words have to be the same; where both are NaN, they are.

    Parameters
    ----------
    name
        Of the part.
    reference, new
        The arrays, of any shape.
    tolerances
        Of floating-point and complex numbers.
    """
    if reference.shape != new.shape:
        return _unlike(name, f"shape {reference.shape} and {new.shape}")
    kinds = _kind(reference.dtype), _kind(new.dtype)
    if kinds[0] != kinds[1]:
        return _unlike(name, f"type {reference.dtype} and {new.dtype}")
    tally = Tally(tolerances)
    for first, key in _pieces(reference.shape):
        mine, theirs = _plain(reference[key]), _plain(new[key])
        _add_block(tally, mine, theirs, first, exact=kinds[0] != "number")
    told = tally.sentence()
    if told and reference.dtype != new.dtype:
        told += f"; types {reference.dtype} and {new.dtype}"
    return tally.part(name, told)


def largest(array: Any) -> float:
    """Return the largest finite absolute value of an array, of numpy or of HDF5; 0 for none."""
    import numpy as np

    found = 0.0
    for _, key in _pieces(array.shape):
        block = _plain(array[key])
        if block.dtype.kind in "fciu" and block.size:
            sizes = np.abs(block)
            found = max(found, float(np.max(sizes, where=np.isfinite(sizes), initial=0.0)))
    return found


def _unlike(name: str, detail: str) -> Part:
    return Part(name=name, verdict=Verdict.DIFFERENT, detail=detail)


def _kind(dtype: Any) -> str:
    if dtype.names == ("r", "i"):
        return "number"
    if dtype.names:
        return str(dtype)
    return {"f": "number", "c": "number", "b": "flag", "i": "whole", "u": "whole"}.get(
        dtype.kind, "word"
    )


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[int | None, Any]]:
    """Yield where a block of the first axis begins, and what picks it; None for a single value."""
    if not shape:
        yield None, ()
        return
    rows = max(1, _BLOCK // max(math.prod(shape[1:]), 1))
    for first in range(0, shape[0], rows):
        yield first, slice(first, first + rows)


def _plain(block: Any) -> NDArray[Any]:
    import numpy as np

    array = np.asarray(block)
    if array.dtype.names == ("r", "i"):
        whole = np.empty(array.shape, np.result_type(array["r"], np.complex64))
        whole.real, whole.imag = array["r"], array["i"]
        return whole
    return array


def _unequal(reference: NDArray[Any], new: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where two arrays are not the same; NaN is the same as NaN, in each part of a number.

    So is a time that is none (NaT), and both within the fields of a compound type.
    """
    import numpy as np

    names = reference.dtype.names
    if names and names == new.dtype.names:
        fields = [_unequal(reference[name], new[name]) for name in names]
        axes = reference.ndim
        flat = [one.any(axis=tuple(range(axes, one.ndim))) for one in fields]
        return np.asarray(np.any(flat, axis=0))
    if "O" in (reference.dtype.kind, new.dtype.kind):
        pairs = zip(reference.flat, new.flat, strict=True)
        return np.array([_differ(a, b) for a, b in pairs], bool).reshape(reference.shape)
    if "c" in (reference.dtype.kind, new.dtype.kind):
        real = _unequal(reference.real, new.real)
        return np.asarray(real | _unequal(reference.imag, new.imag))
    unequal = np.asarray(reference != new)
    both = {reference.dtype.kind, new.dtype.kind}
    if both <= {"f"}:
        unequal &= ~(np.isnan(reference) & np.isnan(new))
    elif both in ({"M"}, {"m"}):
        unequal &= ~(np.isnat(reference) & np.isnat(new))
    return unequal


def _differ(reference: Any, new: Any) -> bool:
    """Return whether two objects are not the same: words, or arrays of any length."""
    shapes = {getattr(one, "shape", ()) for one in (reference, new)}
    if shapes == {()}:
        return bool(reference != new)
    return len(shapes) > 1 or bool(_unequal(reference, new).any())


def _add_block(
    tally: Tally, reference: NDArray[Any], new: NDArray[Any], first: int | None, exact: bool
) -> None:
    import numpy as np

    tally.total += reference.size
    unequal = np.atleast_1d(_unequal(reference, new))
    if not unequal.any():
        return
    mine, theirs = np.atleast_1d(reference), np.atleast_1d(new)
    places = np.argwhere(unequal)
    if mine.dtype.kind not in "fciu" or theirs.dtype.kind not in "fciu":
        _add_words(tally, mine, theirs, places, first)
        return
    a, b = mine[unequal], theirs[unequal]
    if exact:
        a, b = a.astype(np.longdouble), b.astype(np.longdouble)
    with np.errstate(all="ignore"):
        differences, sizes = np.abs(b - a), np.abs(a)
        differences = np.where(np.isnan(differences), np.inf, differences)
        limits = tally.tolerances.atol + tally.tolerances.relative * sizes
        allowed = np.isfinite(differences) & (differences <= limits)
        ratios = np.where(sizes > 0, differences / sizes, -1.0)
    tally.differing += a.size
    tally.beyond += a.size if exact else int(np.count_nonzero(~allowed))
    tally.found(
        _largest(differences, mine, theirs, places, first),
        None if exact else _largest(ratios, mine, theirs, places, first),
    )


def _largest(
    sizes: NDArray[np.float64],
    reference: NDArray[Any],
    new: NDArray[Any],
    places: NDArray[np.intp],
    first: int | None,
) -> Largest | None:
    import numpy as np

    at = int(np.argmax(sizes))
    if sizes[at] < 0:
        return None
    place = tuple(map(int, places[at]))
    return Largest(
        finite(float(sizes[at])),
        _index(place, first),
        shown(reference[place].item()),
        shown(new[place].item()),
    )


def _add_words(
    tally: Tally,
    reference: NDArray[Any],
    new: NDArray[Any],
    places: NDArray[np.intp],
    first: int | None,
) -> None:
    for row in places[:_SHOWN]:
        place = tuple(map(int, row))
        tally.differ(word(reference[place]), word(new[place]), _index(place, first))
    rest = max(len(places) - _SHOWN, 0)
    tally.differing += rest
    tally.beyond += rest


def _index(place: tuple[int, ...], first: int | None) -> tuple[int, ...]:
    return () if first is None else (place[0] + first, *place[1:])


def word(value: Any) -> Any:
    """Return what an array of words, flags or fields holds at one place."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return plain.decode(errors="replace") if isinstance(plain, bytes) else plain
