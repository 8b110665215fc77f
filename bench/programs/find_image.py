"""Time finding an image by its digest and checking that it is unchanged, once in this process."""

import sys
import time
from pathlib import Path

from valska.external_tools.core.images.store import ImageStore

store, sha256 = ImageStore(Path(sys.argv[1])), sys.argv[2]
start = time.perf_counter()
record = store.get(sha256)
store.check(record.sha256)
print(time.perf_counter() - start)
