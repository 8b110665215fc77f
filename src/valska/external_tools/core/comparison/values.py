"""Documents, tables and texts, compared value by value."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valska.external_tools.core.comparison.tally import Index, Tally
from valska.external_tools.core.comparison.verdict import Part, Tolerances
from valska.external_tools.core.errors import ValskaError

_MOST_VALUES = 10_000_000
_MERGE = "tag:yaml.org,2002:merge"


class UnreadableError(ValskaError):
    """A file is not of the format that its name says."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Have all that goes wrong in a library, which reads a file, told as one kind of error.

    Parameters
    ----------
    what
        What could not be done, for the message.

    Raises
    ------
    UnreadableError
        For any error but valska's own: of damaged files libraries raise many kinds.
    """
    try:
        yield
    except ValskaError:
        raise
    except Exception as error:
        raise UnreadableError(f"{what}: {error or type(error).__name__}") from error


def compare_json(reference: Path, new: Path, tolerances: Tolerances) -> Part:
    """Compare two JSON documents; the order of keys does not count.

    Raises
    ------
    UnreadableError
        If one is not JSON.
    """
    return compare_documents(_json(reference), _json(new), tolerances)


def compare_yaml(reference: Path, new: Path, tolerances: Tolerances) -> Part:
    """Compare two YAML documents, as `compare_json` does; tags count as values do.

    Raises
    ------
    UnreadableError
        If one is not YAML.
    """
    return compare_documents(read_yaml(reference), read_yaml(new), tolerances)


def compare_documents(
    reference: Any, new: Any, tolerances: Tolerances, name: str = "values"
) -> Part:
    """Compare two documents of mappings, sequences, numbers and words.

    Raises
    ------
    UnreadableError
        If they are nested too deeply, or have too many values (YAML's aliases can stand for any
        number).
    """
    tally = Tally(tolerances)
    try:
        _walk(tally, reference, new, ())
    except RecursionError as error:
        raise UnreadableError("the documents are nested too deeply") from error
    return tally.part(name)


def compare_csv(reference: Path, new: Path, tolerances: Tolerances) -> Part:
    """Compare two tables cell by cell; an index is a line and a column, from 1.

    Raises
    ------
    UnreadableError
        If one is not text, or no table.
    """
    mine, theirs = (_table(path) for path in (reference, new))
    return _compare_rows(mine, theirs, tolerances, "cells")


def compare_text(reference: Path, new: Path, tolerances: Tolerances) -> Part:
    """Compare two texts word by word; an index is a line and a word, from 1.

    Raises
    ------
    UnreadableError
        If one is not text.
    """
    mine, theirs = (
        [line.split() for line in _text(path).splitlines()] for path in (reference, new)
    )
    return _compare_rows(mine, theirs, tolerances, "text")


def read_yaml(path: Path) -> Any:
    """Read a YAML document, whatever tags it has; a tag is a key of its own.

    Raises
    ------
    UnreadableError
        If it is not YAML.
    """
    import yaml

    try:
        return yaml.load(_text(path), Loader=_tagged_loader())  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{path.name} is not YAML: {error}") from error


def flatten(document: Any, prefix: Index = ()) -> Iterator[tuple[Index, Any]]:
    """Yield place and value of every leaf of a document; an empty collection is a leaf."""
    if isinstance(document, Mapping) and document:
        for key, value in document.items():
            yield from flatten(value, (*prefix, _key(key)))
    elif isinstance(document, list) and document:
        for number, value in enumerate(document):
            yield from flatten(value, (*prefix, number))
    else:
        yield prefix, document


def _walk(tally: Tally, reference: Any, new: Any, index: Index) -> None:
    if tally.total > _MOST_VALUES:
        raise UnreadableError(f"the documents have more than {_MOST_VALUES} values")
    if isinstance(reference, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*reference, *new)):
            place = (*index, _key(key))
            if key in reference and key in new:
                _walk(tally, reference[key], new[key], place)
            else:
                _only(tally, key in reference, place)
    elif isinstance(reference, list) and isinstance(new, list):
        for number in range(max(len(reference), len(new))):
            place = (*index, number)
            if number < min(len(reference), len(new)):
                _walk(tally, reference[number], new[number], place)
            else:
                _only(tally, number < len(reference), place)
    else:
        tally.add(reference, new, index)


def _only(tally: Tally, in_reference: bool, place: Index) -> None:
    said = ("is there", "is missing")
    tally.total += 1
    tally.differ(said[not in_reference], said[in_reference], place)


def _key(key: Any) -> int | str:
    return key if isinstance(key, int) and not isinstance(key, bool) else str(key)


def _compare_rows(
    reference: Sequence[Sequence[str]],
    new: Sequence[Sequence[str]],
    tolerances: Tolerances,
    name: str,
) -> Part:
    tally = Tally(tolerances)
    for line, (mine, theirs) in enumerate(zip(reference, new, strict=False), 1):
        if len(mine) != len(theirs):
            tally.total += 1
            tally.differ(" ".join(mine), " ".join(theirs), (line,))
            continue
        for place, (a, b) in enumerate(zip(mine, theirs, strict=True), 1):
            if a == b:
                tally.total += 1
            else:
                tally.add(_value(a), _value(b), (line, place))
    if len(reference) != len(new):
        tally.total += 1
        tally.differ(f"{len(reference)} lines", f"{len(new)} lines", ())
    return tally.part(name)


def _table(path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise UnreadableError(f"{path.name} is not a table: {error}") from error


def _value(word: str) -> Any:
    if "_" in word:
        return word
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return _float(word)
    except ValueError:
        return word


def _float(word: str) -> float | str:
    """Return a number; its digits where they are too many, so that no two of these are one."""
    number = float(word)
    return word if math.isinf(number) and any(c.isdigit() for c in word) else number


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path), parse_float=_float, object_pairs_hook=_mapping)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path.name} is not JSON: {error}") from error


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice(key for key, _ in pairs)
    return dict(pairs)


def _refuse_twice(keys: Iterable[Hashable]) -> None:
    """Refuse a key that stands twice: only one of its values would be compared."""
    twice = [key for key, number in Counter(keys).items() if number > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} stands twice")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path.name} is not text in UTF-8") from error
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be read: {error.strerror}") from error


def _tagged_loader() -> type[Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads any tag as a mapping from the tag to what it stands before."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            """Return a mapping; a key that stands twice is refused, one that is merged is not."""
            own = [key for key, _ in node.value if key.tag != _MERGE]
            _refuse_twice((key.tag, key.value) for key in own if isinstance(key, yaml.ScalarNode))
            return super().construct_mapping(node, deep=deep)

    def tagged(loader: Any, suffix: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {f"!{suffix}": loader.construct_mapping(node, deep=True)}
        if isinstance(node, yaml.SequenceNode):
            return {f"!{suffix}": loader.construct_sequence(node, deep=True)}
        return {f"!{suffix}": loader.construct_scalar(node)}

    Loader.add_multi_constructor("!", tagged)
    return Loader
