"""Tables of points: a CSV file, or a list in YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from valska.external_tools.core.overrides import is_key, parse_value
from valska.external_tools.core.sweep.planning.values import PointError, read_document, read_text
from valska.external_tools.core.tool import Read

LABEL = "label"
"""Column that is no key, but the point's name."""


def table_rows(path: Path, read: Read) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each point's number and its key to value, `LABEL` among the keys.

    Parameters
    ----------
    path
        ``.csv`` with a column for each key, or else a YAML list of mappings.
    read
        Reads a file.

    Raises
    ------
    PointError
        If it is of another form; naming the point and the key.
    """
    rows = _csv_rows if path.suffix.lower() == ".csv" else _yaml_rows
    return rows(path, read)


def _csv_rows(path: Path, read: Read) -> Iterator[tuple[int, dict[str, Any]]]:
    import csv

    reader = csv.reader(read_text(path, read).splitlines(), skipinitialspace=True, strict=True)
    try:
        lines = [row for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise PointError(f"{path} is no CSV: line {reader.line_num}: {error}") from error
    if not lines:
        raise PointError(f"{path} is empty", "Its first line names the keys.")
    header = [cell.strip() for cell in lines[0]]
    for key in header:
        if not is_key(key):
            raise PointError(f"{path}: {key!r} in its first line is no key")
    _refuse_repeated(path, header)
    for number, cells in enumerate(lines[1:], 1):
        if len(cells) != len(header):
            raise PointError(
                f"{path}: point {number} has {len(cells)} columns, not {len(header)}",
                "Put a value with a comma into double quotes.",
            )
        yield number, _cells(path, number, dict(zip(header, cells, strict=True)))


def _cells(path: Path, number: int, cells: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, text in cells.items():
        if key == LABEL:
            row[key] = text.strip() or None
        elif not text.strip():
            raise PointError(
                f"{path}: point {number} has no value of {key}", "Write null to take the key away."
            )
        else:
            row[key] = parse_value(f"{key} (point {number} of {path.name})", text)
    return row


def _yaml_rows(path: Path, read: Read) -> Iterator[tuple[int, dict[str, Any]]]:
    document = read_document(path, read)
    if not isinstance(document, list):
        raise PointError(
            f"{path} holds no list of points", "Write `- {key: value, …}` for each point."
        )
    for number, row in enumerate(document, 1):
        if not isinstance(row, dict) or not all(isinstance(k, str) and is_key(k) for k in row):
            raise PointError(f"{path}: point {number} does not map keys to values")
        yield number, dict(row)


def _refuse_repeated(path: Path, header: Sequence[str]) -> None:
    twice = next((key for key in header if header.count(key) > 1), None)
    if twice is not None:
        raise PointError(f"{path} has two columns {twice!r}")
