"""Suggestions for typing errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """Return ``Did you mean 'x'?``, or None where no candidate is near."""
    near = difflib.get_close_matches(name, list(candidates), n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else None
