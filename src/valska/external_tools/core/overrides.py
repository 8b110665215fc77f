"""Single values of a configuration, set by dotted key."""

from __future__ import annotations

import copy
import math
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


_NUMBER = re.compile(r"([-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+|[-+]\.\d+)\Z")
"""Numbers such as ``1e8`` and ``-.1``, which YAML 1.1 takes for text."""


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
    if not equals or not is_key(key):
        raise OverrideError(f"{text!r} is no override", "Write key=value, as in freq.Nfreqs=4.")
    return key.strip(), parse_value(key.strip(), value)


def is_key(text: str) -> bool:
    """Return whether a text is a dotted key."""
    return all(text.strip().split("."))


def parse_value(what: str, text: str) -> Any:
    """Read a value as YAML, so that it has a type.

    Parameters
    ----------
    what
        What it is the value of, for the message.
    text
        The value; None comes out for an empty one.

    Raises
    ------
    OverrideError
        If it is no YAML.
    """
    import yaml

    try:
        return yaml.load(text, Loader=value_loader())  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OverrideError(
            f"the value of {what} is no YAML: {text!r}", "Put text with : or # in it into quotes."
        ) from error


def parse_perturbation(text: str) -> tuple[str, float]:
    """Read ``key=fraction``.

    Raises
    ------
    OverrideError
        If it is of another form, or the fraction is no finite number.
    """
    key, equals, value = text.partition("=")
    if not equals or not is_key(key):
        raise OverrideError(f"{text!r} is no perturbation", "Write key=fraction, as fwhm_deg=0.05.")
    return key.strip(), parse_fraction(key.strip(), value)


def parse_fraction(key: str, text: str) -> float:
    """Read the fraction by which a key's value is changed.

    Raises
    ------
    OverrideError
        If it is no finite number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise OverrideError(
            f"the perturbation of {key} is no number: {text.strip()!r}",
            "Write a fraction: 0.05 makes the value 5 % larger.",
        )
    return value + 0.0


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def check_distinct(overrides: Mapping[str, Any], perturbations: Mapping[str, float]) -> None:
    """Refuse to set and to perturb the same key.

    Raises
    ------
    OverrideError
        Naming the keys.
    """
    both = sorted(overrides.keys() & perturbations.keys())
    if both:
        raise OverrideError(
            f"{', '.join(both)} cannot be both set and perturbed",
            "Set it in the configuration, or keep one of the two.",
        )


def perturbed(value: Any, fraction: float, key: str) -> int | float:
    """Return a value times 1 + fraction, correctly rounded; for 0 the value as it is.

    A whole number stays one if the result is whole.

    Parameters
    ----------
    value
        What the configuration has.
    fraction
        For example -0.05.
    key
        Its key, for the message.

    Raises
    ------
    OverrideError
        If the value is no finite number, or becomes too large for one.
    """
    if not is_number(value):
        hint = "A text that looks like a number is text: write 1.0e8, not '1e8'."
        raise OverrideError(
            f"{key} cannot be perturbed: its value {value!r} is no number",
            hint if isinstance(value, str) else "Only a key with a number can be perturbed.",
        )
    if fraction == 0:
        return value  # type: ignore[no-any-return]
    from decimal import Decimal

    exact = Decimal(repr(value)) * (1 + Decimal(repr(fraction)))
    if not math.isfinite(float(exact)):
        raise OverrideError(f"{key} cannot be perturbed by {fraction!r}: it becomes too large")
    whole = type(value) is int and exact == exact.to_integral_value()
    return int(exact) if whole else float(exact)


def apply_perturbations(
    document: Mapping[Any, Any], perturbations: Mapping[str, float]
) -> dict[Any, Any]:
    """Return a copy of a document with some numbers multiplied by 1 + fraction.

    Parameters
    ----------
    document
        The configuration; stays as it is.
    perturbations
        Dotted key to fraction.

    Raises
    ------
    OverrideError
        If a key is absent, or its value is no number.
    """
    changes = {
        key: perturbed(value_at(document, key), fraction, key)
        for key, fraction in perturbations.items()
    }
    return apply_overrides(document, changes) if changes else dict(document)


def value_at(document: Mapping[Any, Any], key: str) -> Any:
    """Return the value at a dotted key.

    Raises
    ------
    OverrideError
        If the document does not have it, with what was probably meant.
    """
    node: Any = document
    try:
        for part in key.split("."):
            node = node[_position(node, part)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise OverrideError(
            f"the configuration has no key {key!r}",
            did_you_mean(key, _paths(document)) or "Write the key with its section, section.key.",
        ) from error
    return node


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


@cache
def value_loader() -> type[yaml.SafeLoader]:
    """Return what reads values of keys: as YAML 1.1 does, but for more forms of numbers."""
    import yaml

    class Loader(yaml.SafeLoader):
        """A SafeLoader that takes `_NUMBER` for numbers."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
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
