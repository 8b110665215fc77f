"""Buffers that go from one thread to the next: to be digested, compressed, written."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable

BUFFER_BYTES = 1 << 20
TINY = 1 << 15
"""Files up to this size are digested at once: handing them over takes longer."""

Piece = tuple[str, int, int, bool]
"""Name of a file, where its bytes begin and end in a buffer, and whether they are its last."""


class Batch:
    """A buffer, how much of it is used, and what of it is to be digested."""

    __slots__ = ("pieces", "used", "view")

    def __init__(self, size: int = BUFFER_BYTES) -> None:
        self.view = memoryview(bytearray(size))
        self.used = 0
        self.pieces: list[Piece] = []

    def clear(self) -> None:
        """Make it empty."""
        self.used = 0
        self.pieces = []


class Marker(Batch):
    """Goes through the lanes to say that all before it has been dealt with."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        super().__init__(0)
        self.done = threading.Event()


class Digester:
    """Digests files piece by piece, and keeps the content of some.

    Attributes
    ----------
    digests
        Name to SHA-256.
    documents
        Name to content, of those that were to be kept.
    """

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.documents: dict[str, bytes] = {}
        self._kept: dict[str, bytearray] = {}
        self._hash = hashlib.sha256()

    def keep(self, name: str) -> None:
        """Keep the content of a file that is still to come."""
        self._kept[name] = bytearray()

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Take a whole file."""
        self.digests[name] = hashlib.sha256(data).hexdigest()
        if self._kept and self._kept.pop(name, None) is not None:
            self.documents[name] = bytes(data)

    def take(self, batch: Batch) -> None:
        """Take what a buffer holds."""
        view = batch.view
        for name, start, end, last in batch.pieces:
            self._hash.update(view[start:end])
            if self._kept and (kept := self._kept.get(name)) is not None:
                kept += view[start:end]
                if last:
                    self.documents[name] = bytes(self._kept.pop(name))
            if last:
                self.digests[name] = self._hash.hexdigest()
                self._hash = hashlib.sha256()


class Lane(threading.Thread):
    """Does one thing with each batch and hands it on; after a fault it only hands on."""

    def __init__(self, work: Callable[[Batch], None], onward: Callable[[Batch], None]) -> None:
        super().__init__(daemon=True)
        self._work, self._onward = work, onward
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self.error: BaseException | None = None

    def put(self, batch: Batch | None) -> None:
        """Hand over a batch; None ends the lane."""
        self._queue.put(batch)

    def run(self) -> None:
        """Work until the end is handed over."""
        while (batch := self._queue.get()) is not None:
            if isinstance(batch, Marker):
                batch.done.set()
                continue
            if self.error is None:
                try:
                    self._work(batch)
                except BaseException as error:  # noqa: BLE001 - raised where the caller waits
                    self.error = error
            self._onward(batch)


class Pool:
    """A few buffers that are used again and again."""

    def __init__(self, count: int) -> None:
        self._free: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(Batch())

    def take(self) -> Batch:
        """Return an empty buffer, as soon as there is one."""
        batch = self._free.get()
        batch.clear()
        return batch

    def give(self, batch: Batch) -> None:
        """Give a buffer back."""
        self._free.put(batch)
