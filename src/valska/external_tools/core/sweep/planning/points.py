"""The points of a sweep: which values and perturbations there are, and what each is called."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.overrides import is_key, parse_fraction
from valska.external_tools.core.run_directory import check_name
from valska.external_tools.core.sweep.planning.labels import label_of
from valska.external_tools.core.sweep.planning.table import LABEL, table_rows
from valska.external_tools.core.sweep.planning.values import (
    PointError,
    checked,
    read_document,
    read_text,
    split_values,
    typed_list,
)
from valska.external_tools.core.tool import Read, read_file

if TYPE_CHECKING:
    from fractions import Fraction

DEFAULT_FRACTIONS = (-0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1)
"""By which a key is perturbed if nothing else is said."""

_WHOLE = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*")
_MAX_EXPONENT = 300

MAX_POINTS = 100_000
"""More points than this are a typing error."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep.

    Parameters
    ----------
    label
        Its name; safe in paths, job names and shells.
    values
        Dotted configuration key to typed value.
    perturbations
        Dotted configuration key to the fraction f: the value is multiplied by 1 + f.
    """

    label: str
    values: Mapping[str, Any] = field(default_factory=dict)
    perturbations: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return its label and what it sets."""
        return f"{self.label} ({described(self)})"


def described(point: Point) -> str:
    """Return what a point sets, for a person."""
    shown = [f"{key}={_json(value)}" for key, value in point.values.items()]
    shown += [f"{key} perturbed by {f!r}" for key, f in point.perturbations.items()]
    return ", ".join(shown) or "nothing"


def with_point(point: Point, function: Any, *args: Any) -> Any:
    """Call a function; an error of it names the point and what the point sets."""
    try:
        return function(*args)
    except ValskaError as error:
        shown = described(point)
        shown = shown if len(shown) < 200 else f"{shown[:200]}…"
        error.message = f"point {point.label} ({shown}): {error.message}"
        error.args = (error.message, *error.args[1:])
        raise


def points_from_options(
    *,
    values: Sequence[str] = (),
    values_files: Sequence[str] = (),
    ranges: Sequence[str] = (),
    perturb: Sequence[str] = (),
    table: Path | None = None,
    zipped: bool = False,
    read: Read = read_file,
) -> tuple[Point, ...]:
    """Return the points that options of the command line ask for.

    Parameters
    ----------
    values
        ``key=a,b,c``, each value YAML; a comma in brackets or quotes does not separate.
    values_files
        ``key=FILE`` with a value on each line, or the name of a YAML file that maps keys to
        lists.
    ranges
        ``key=start:stop:n``: n values, both ends included, exact to the last digit.
    perturb
        ``key`` or ``key=f1,f2,…``; fractions, see `DEFAULT_FRACTIONS`.
    table
        A CSV file with a column for each key, or a YAML list of mappings; in both a column
        ``label`` is the point's name. Goes with no other option.
    zipped
        Take the keys' first values together, then the second ones, and so on; otherwise every
        combination, the last key changing fastest.
    read
        Reads a file.

    Raises
    ------
    PointError
        If an option or a value is not usable, two points are equal or would have one name, or
        there are none or more than `MAX_POINTS`; naming the key and the point.
    UsageError
        If a file cannot be read, or a value is no YAML.
    """
    axes = [
        *map(_values, values),
        *itertools.chain.from_iterable(_values_file(text, read) for text in values_files),
        *map(_range, ranges),
        *map(_perturbation, perturb),
    ]
    if table is not None:
        if axes or zipped:
            raise PointError("--points goes with no other option that makes points")
        return _distinct(_table_points(table, read))
    if not axes:
        raise PointError(
            "a sweep of what?",
            "Name a key and its values: --values, --range, --perturb, --values-file or --points.",
        )
    _refuse_repeated(axis.key for axis in axes)
    return _distinct(_combined(axes, zipped))


class _Axis(NamedTuple):
    key: str
    values: Sequence[Any]
    perturbs: bool = False


def _combined(axes: Sequence[_Axis], zipped: bool) -> Iterator[Point]:
    lengths = {axis.key: len(axis.values) for axis in axes}
    if zipped and len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise PointError(
            f"--zip takes as many values of each key, not {counts}",
            "Leave --zip out for every combination.",
        )
    _check_count(len(axes[0].values) if zipped else math.prod(lengths.values()))
    lists = [axis.values for axis in axes]
    rows = zip(*lists, strict=True) if zipped else itertools.product(*lists)
    label = label_of([axis.key for axis in axes])
    for row in rows:
        pairs = list(zip(axes, row, strict=True))
        values = {axis.key: value for axis, value in pairs if not axis.perturbs}
        perturbations = {axis.key: value for axis, value in pairs if axis.perturbs}
        yield Point(label(values, perturbations), values, perturbations)


def _check_count(count: int) -> None:
    if count > MAX_POINTS:
        raise PointError(
            f"{count} points are more than the {MAX_POINTS} that a sweep can have", "Make several."
        )


def _distinct(points: Iterable[Point]) -> tuple[Point, ...]:
    """Refuse two points that are equal, or whose names are (on some disks) the same."""
    whole = tuple(points)
    if not whole:
        raise PointError("there are no points")
    by_content: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for number, point in enumerate(whole):
        first = by_content.setdefault(content_key(point.values, point.perturbations), number)
        if first != number:
            raise PointError(
                f"points {first + 1} and {number + 1} are equal: {described(point)}",
                "Leave one of them out.",
            )
        first = by_name.setdefault(point.label.casefold(), number)
        if first != number:
            raise PointError(
                f"points {first + 1} and {number + 1} have the same name: {whole[first]} "
                f"and {point}",
                "Names that differ in upper and lower case only are the same on some disks. "
                "Give each another in a column `label` of --points.",
            )
    return whole


def content_key(values: Mapping[str, Any], perturbations: Mapping[str, float]) -> str:
    """Return a text that two points share only if they set the same; 1, 1.0 and "1" differ."""
    fractions = {key: float(f) + 0.0 for key, f in perturbations.items()} if perturbations else {}
    return _json([values, fractions])


_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


# --- Options --------------------------------------------------------------------------------------


def _values(option: str) -> _Axis:
    key, text = _pair(option, "--values", "key=a,b,c")
    return _Axis(key, typed_list(key, split_values(key, text)))


def _values_file(option: str, read: Read) -> list[_Axis]:
    key, equals, name = option.partition("=")
    if equals and is_key(key) and "/" not in key:
        return [_Axis(key.strip(), typed_list(key.strip(), _lines(Path(name), read)))]
    return _mapping(Path(option), read)


def _lines(path: Path, read: Read) -> list[str]:
    lines = [line.strip() for line in read_text(path, read).splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise PointError(f"{path} holds no value", "Write one value on each line.")
    return found


def _mapping(path: Path, read: Read) -> list[_Axis]:
    document = read_document(path, read)
    if not isinstance(document, dict) or not document:
        raise PointError(
            f"{path} does not map keys to lists of values",
            "Write `key: [a, b, c]`, or name the key: --values-file key=FILE.",
        )
    axes = []
    for key, found in document.items():
        if not isinstance(found, list) or not found or not isinstance(key, str) or not is_key(key):
            raise PointError(f"{path}: {key} is no key with a list of values")
        axes.append(_Axis(key, [checked(key, value, n) for n, value in enumerate(found, 1)]))
    return axes


def _range(option: str) -> _Axis:
    key, text = _pair(option, "--range", "key=start:stop:n")
    parts = text.split(":")
    if len(parts) != 3:
        raise PointError(f"--range {option!r} is not of the form key=start:stop:n")
    start, stop = (_exact(key, part) for part in parts[:2])
    count = int(parts[2]) if _WHOLE.fullmatch(parts[2].strip()) else 0
    if count < 1 or (count == 1 and start != stop):
        raise PointError(
            f"--range of {key}: {parts[2].strip()!r} is no number of values",
            "Both ends are included, so it is 2 or more.",
        )
    _check_count(count)
    written = [_WHOLE.fullmatch(part.strip()) for part in parts[:2]]
    return _Axis(key, _spread(start, stop, count, whole=all(written)))


def _spread(start: Fraction, stop: Fraction, count: int, whole: bool) -> list[Any]:
    """Return numbers at equal distances; the quotient of two integers is correctly rounded."""
    steps = max(count - 1, 1)
    bottom = start.denominator * stop.denominator * steps
    first = start.numerator * stop.denominator * steps
    step = stop.numerator * start.denominator - start.numerator * stop.denominator
    tops = [first + step * i for i in range(count)]
    if whole and all(top % bottom == 0 for top in tops):
        return [top // bottom for top in tops]
    return [top / bottom for top in tops]


def _exact(key: str, text: str) -> Fraction:
    from decimal import Decimal, InvalidOperation
    from fractions import Fraction

    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or abs(number.adjusted()) > _MAX_EXPONENT:
        raise PointError(f"--range of {key}: {text.strip()!r} is no number")
    return Fraction(number)


def _perturbation(option: str) -> _Axis:
    key, equals, text = option.partition("=")
    if not is_key(key):
        raise PointError(f"--perturb {option!r} names no key", "Write key, or key=-0.1,0,0.1.")
    key = key.strip()
    if not equals:
        return _Axis(key, DEFAULT_FRACTIONS, perturbs=True)
    fractions = [parse_fraction(key, item) for item in split_values(key, text)]
    return _Axis(key, fractions, perturbs=True)


def _pair(option: str, name: str, form: str) -> tuple[str, str]:
    key, equals, text = option.partition("=")
    if not equals or not is_key(key):
        raise PointError(f"{name} {option!r} is not of the form {form}", f"Write {name} {form}.")
    return key.strip(), text


def _refuse_repeated(keys: Iterable[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise PointError(f"{key} is swept twice", "Give all its values in one option.")
        seen.add(key)


# --- Tables ---------------------------------------------------------------------------------------


def _table_points(path: Path, read: Read) -> Iterator[Point]:
    for count, (number, row) in enumerate(table_rows(path, read), 1):
        _check_count(count)
        yield _row_point(path, number, row)


def _row_point(path: Path, number: int, row: dict[str, Any]) -> Point:
    name = row.pop(LABEL, None)
    if not row:
        raise PointError(f"{path}: point {number} has no key")
    values = {key: checked(key, value, number) for key, value in row.items()}
    if name is None:
        return Point(label_of(list(values))(values, {}), values)
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise PointError(
            f"{path}: point {number}: label {name!r} is no text", "Put it into quotes."
        )
    return Point(check_name(str(name), f"label of point {number}"), values)
