"""The image store: a directory of images, each named by its digest."""

from __future__ import annotations

from valska.external_tools.core.images.store.imagestore import ImageStore
from valska.external_tools.core.images.store.receipt import receipt_line

__all__ = ["ImageStore", "receipt_line"]
