"""Values of swept keys as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.overrides import parse_value, value_loader
from valska.external_tools.core.tool import Read

if TYPE_CHECKING:
    import yaml


class PointError(UsageError):
    """The points of a sweep are not usable."""


def split_values(key: str, text: str) -> list[str]:
    """Split at the commas that are in no brackets and no quotes.

    Raises
    ------
    PointError
        If brackets or quotes do not close, or a value is empty.
    """
    items, current, depth, quote = [], "", 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and (depth or not current.strip()):
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "," and depth == 0:
            items.append(current)
            current = ""
            continue
        current += char
    if depth or quote:
        raise PointError(f"the values of {key}: a bracket or a quote does not close: {text!r}")
    items.append(current)
    empty = next((n for n, item in enumerate(items, 1) if not item.strip()), None)
    if empty is not None:
        raise PointError(f"value {empty} of {key} is empty", "Write null to take the key away.")
    return items


def typed_list(key: str, texts: Iterable[str]) -> list[Any]:
    """Read each text as YAML.

    Raises
    ------
    OverrideError, PointError
        If one is no YAML, or cannot be written down; naming the key and the value's number.
    """
    return [
        checked(key, parse_value(f"{key} (value {number})", text), number)
        for number, text in enumerate(texts, 1)
    ]


def checked(key: str, value: Any, number: int) -> Any:
    """Return a value that can be written as JSON and comes back the same.

    Raises
    ------
    PointError
        If it cannot; naming the key and the value's number.
    """
    if not _is_plain_json(value):
        raise PointError(
            f"value {number} of {key} cannot be written down: {value!r}",
            "Use finite numbers, text, lists and mappings; put a date into quotes.",
        )
    return value


def _is_plain_json(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_is_plain_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain_json(item) for key, item in value.items())
    return value is None or isinstance(value, str | int)


def read_text(path: Path, read: Read) -> str:
    """Read a text file in UTF-8.

    Raises
    ------
    UsageError
        If it cannot be read, or is not UTF-8.
    """
    try:
        return read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PointError(f"{path} is not UTF-8", "Save it as UTF-8.") from error


def read_document(path: Path, read: Read) -> Any:
    """Read a YAML file of keys and values.

    Raises
    ------
    PointError
        If it is no YAML, or has a key twice in one mapping; naming the line.
    UsageError
        If it cannot be read.
    """
    import yaml

    text = read_text(path, read)
    try:
        return yaml.load(text, Loader=_unique_loader())  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        what = error.problem or error.context
        raise PointError(f"{path} is no usable YAML: {line}{what}", _QUOTE) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise PointError(f"{path} is no usable YAML: {why}", _QUOTE) from error


_QUOTE = "Put text with : or # in it into quotes."


@cache
def _unique_loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(value_loader()):  # type: ignore[misc]
        """Refuses a key that stands twice in one mapping."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node: yaml.MappingNode = super().compose_mapping_node(anchor)
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(str(key.value))
            return node

    return Loader
