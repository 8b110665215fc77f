"""Images of a few bytes, for tests of the store; and processes that are killed at each step."""

import os
import signal
import sys

from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.utils import sha256_bytes

DEFINITION = b"Bootstrap: docker\nFrom: x\n"
STEPS = ("open", "os.", "shutil.", "subprocess.Popen")


def record_of(content, name="tool", **more):
    """Return the record of an image with this content."""
    fields = {
        "definition": {"name": f"{name}.def", "sha256": sha256_bytes(DEFINITION)},
        "lock": {"name": f"{name}.lock", "sha256": sha256_bytes(b"lock")},
        "created_utc": "2026-01-02T03:04:05Z",
        "origin": "built",
    }
    return ImageRecord(
        sha256=sha256_bytes(content), size=len(content), name=name, **{**fields, **more}
    )


def put(store, content=b"an image", name="tool", **more):
    """Add an image to a store."""
    record = record_of(content, name, **more)
    with store.workspace() as work:
        (work / "image.sif").write_bytes(content)
        files = {f"{name}.def": DEFINITION, f"{name}.lock": b"lock"}
        return store.add(work / "image.sif", record, files)


def loose(folder, content=b"an image", name="tool", **more):
    """Write an image with its record beside it, outside of any store."""
    record = record_of(content, name, **more)
    sif = folder / f"{name}.sif"
    sif.write_bytes(content)
    sif.with_suffix(".json").write_bytes(record.to_bytes())
    sif.with_suffix(".def").write_bytes(DEFINITION)
    sif.with_suffix(".lock").write_bytes(b"lock")
    return sif


def killed_at(step, work):
    """Do some work in a process that is killed as it is about to take a step.

    A step is whatever opens, makes, renames or removes a file, or starts a program.

    Returns
    -------
    bool
        Whether it was killed; otherwise it had fewer steps than that.
    """
    pid = os.fork()
    if pid == 0:
        _count_down(step)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return False


def _count_down(step):
    left = [step]

    def watch(event, _):
        if event.startswith(STEPS):
            left[0] -= 1
            if left[0] == -1:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
