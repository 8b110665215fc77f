"""What a point is called: every digit of its values, safe in a path, the same in any sweep."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_LENGTH = 100
"""Characters of a label; a longer one is cut, and told apart by a digest."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")
_TAKEN = re.compile(r"(true|false|null|nan|inf|infinity)|x-?\.?\d.*|.*-[0-9a-f]{8}", re.IGNORECASE)
"""Words that are the label of something else: of a number, a perturbation, a digest."""


def label_of(keys: Sequence[str]) -> Callable[[Mapping[str, Any], Mapping[str, float]], str]:
    """Return the function from a point's values and perturbations to its label.

    A label is ``<key>_<value>``, joined by ``_`` for several keys; a key stands for its last
    component where that is unique among the keys.

    Parameters
    ----------
    keys
        The keys that are swept, in order.
    """
    short = short_names(keys)

    def label(values: Mapping[str, Any], perturbations: Mapping[str, float]) -> str:
        parts = [
            f"{short[key]}_{value_text(values[key])}"
            if key in values
            else f"{short[key]}_x{_number_text(perturbations[key]).removesuffix('.0')}"
            for key in keys
        ]
        whole = "_".join(parts)
        if len(whole) <= MAX_LENGTH:
            return whole
        digest = _digest([values, perturbations], 16)
        return f"{whole[: MAX_LENGTH - len(digest) - 1]}-{digest}"

    return label


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return each key's name in labels."""
    lasts = [_last(key) for key in keys]
    return {
        key: _plain(last if lasts.count(last) == 1 else key)
        for key, last in zip(keys, lasts, strict=True)
    }


def value_text(value: Any) -> str:
    """Return a value's text in a label; it differs for values that differ, and for 1, 1.0, "1"."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return _number_text(value)
    if isinstance(value, str) and _WORD.fullmatch(value) and not _TAKEN.fullmatch(value):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", text)[-32:].strip("-.")
    return f"{slug or 'value'}-{_digest(value, 8)}"


def _number_text(value: float) -> str:
    return repr(value)


def _last(key: str) -> str:
    """Return a key's last component, with what stands before it if that is a position."""
    parts = key.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _plain(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", key).lstrip("._+=-") or "key"


def _digest(value: Any, length: int) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
