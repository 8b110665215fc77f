"""Messages that many points would repeat."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def each_message_once() -> Iterator[None]:
    """Let no point repeat what another point's plan has logged."""
    handlers = list(logging.getLogger("valska").handlers)
    first: dict[str, logging.LogRecord] = {}

    def is_new(record: logging.LogRecord) -> bool:
        return first.setdefault(record.getMessage(), record) is record

    for handler in handlers:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_new)
