"""Messages that many points would repeat."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def each_message_once() -> Iterator[None]:
    """Let no point repeat what another point's plan has logged."""
    handlers, seen = logging.getLogger("valska").handlers, set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        before = text in seen
        seen.add(text)
        return not before

    for handler in handlers:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_new)
