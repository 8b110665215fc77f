"""Single values of a configuration, set by dotted key."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.suggest import did_you_mean

if TYPE_CHECKING:
    import yaml


class OverrideError(UsageError):
    """An override cannot be read, or names no key of the configuration."""


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
"""Numbers such as ``1e8``, which YAML 1.1 takes for text."""


def parse_override(text: str) -> tuple[str, Any]:
    """Read ``key=value``; the value is YAML, so that it has a type.

    Parameters
    ----------
    text
        For example ``freq.Nfreqs=4``, ``freq.freq_array=[1e8, 2e8]``, ``filing.clobber=true``.
        Nothing after the equals sign (or ``null``) removes the key.

    Returns
    -------
    tuple
        The dotted key and the typed value.

    Raises
    ------
    OverrideError
        If there is no equals sign or no key, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise OverrideError(f"{text!r} is no override", "Write key=value, as in freq.Nfreqs=4.")
    return key.strip(), _typed(key, value)


def apply_overrides(
    document: Mapping[Any, Any], overrides: Mapping[str, Any], known: Iterable[str] = ()
) -> dict[Any, Any]:
    """Return a copy of a document with some values replaced.

    Parameters
    ----------
    document
        The configuration as read; stays as it is.
    overrides
        Dotted key to typed value. A part of a key is the key of a mapping (its text, if the key
        is a number) or the position in a list. The value None removes the key.
    known
        Dotted keys that are allowed although the document does not have them.

    Raises
    ------
    OverrideError
        If a key is neither in the document nor known, with what was probably meant.
    """
    allowed = {*known, *_paths(document)}
    result = copy.copy(document)
    for key, value in overrides.items():
        if key not in allowed:
            raise OverrideError(
                f"the configuration has no key {key!r}",
                did_you_mean(key, allowed) or "Write the key with its section, as section.key.",
            )
        result = _replaced(result, key.split("."), value, key)
    return dict(result) if type(document) is dict else result  # type: ignore[return-value]


def _typed(key: str, value: str) -> Any:
    import yaml

    try:
        return yaml.load(value, Loader=_loader())  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise OverrideError(
            f"the value of {key} is no YAML: {value!r}", "Put text with : or # in it into quotes."
        ) from error


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """A SafeLoader that takes ``1e8`` for a number."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    return Loader


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    for key, value in items:
        path = f"{prefix}{key}"
        yield path
        yield from _paths(value, f"{path}.")


def _replaced(node: Any, parts: list[str], value: Any, whole: str) -> Any:
    if not isinstance(node, dict | list):
        raise OverrideError(f"{whole} cannot be set: there is no section at {parts[0]!r}'s place")
    result: Any = copy.copy(node)
    key = _position(node, parts[0])
    if len(parts) > 1:
        below = {} if isinstance(node, dict) and node.get(key) is None else node[key]
        result[key] = _replaced(below, parts[1:], value, whole)
    elif value is not None:
        result[key] = value
    elif isinstance(node, list) or key in node:
        del result[key]
    return result


def _position(node: dict[Any, Any] | list[Any], part: str) -> Any:
    if isinstance(node, list):
        return int(part)
    return next((key for key in node if str(key) == part), part)
