"""Running a program as root of a user namespace, with the subordinate ids of this user.

What ``unshare --map-root-user --map-auto`` of util-linux 2.38 does, for machines with an older
one. The file is also a program, run by its path: it needs the standard library only.

    namespace.py own DIRECTORY       give all below DIRECTORY to this user, readable and writable
    namespace.py remove DIRECTORY    remove it
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_FAILED = 1
_READ, _ALL = stat.S_IRUSR, stat.S_IRWXU


def own_tree(root: str) -> None:
    """Give a tree to this user, who can read and enter all that is in it then.

    Raises
    ------
    PermissionError
        If something in it belongs to another user, and this one is not root.
    """
    pending = [root]
    _own(root)
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if _own(entry.path):
                    pending.append(entry.path)


def _own(path: str) -> bool:
    """Return whether it is a directory."""
    status, me = os.lstat(path), os.geteuid()
    if status.st_uid != me:
        os.chown(path, me, -1, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return False
    is_directory = stat.S_ISDIR(status.st_mode)
    wanted = _ALL if is_directory else _READ
    if status.st_mode & wanted != wanted:
        os.chmod(path, stat.S_IMODE(status.st_mode) | wanted)  # noqa: PTH101
    return is_directory


def subordinate_ids(path: Path, uid: int) -> list[tuple[int, int]]:
    """Return the ranges that a file such as ``/etc/subuid`` gives a user: first id and count."""
    names = {str(uid)}
    with suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    fields = (line.split(":") for line in lines)
    return [
        (int(found[1]), int(found[2]))
        for found in fields
        if len(found) == 3 and found[0] in names and found[1].isdigit()
    ]


def run_as_root(action: Callable[[], None]) -> int:
    """Do something as root of a new user namespace, and return its exit code."""
    here, there = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        _exit_with(lambda: _inside(here[1], there[0], action))
    os.close(here[1])
    ready = os.read(here[0], 1) == b"1"
    if ready and _map(child):
        os.write(there[1], b"1")
    os.close(there[1])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _inside(ready: int, mapped: int, action: Callable[[], None]) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    os.write(ready, b"1")
    if os.read(mapped, 1) != b"1":
        raise PermissionError("the user namespace has no map of ids")
    os.setgid(0)
    os.setuid(0)
    action()


def _exit_with(action: Callable[[], None]) -> None:
    code = _FAILED
    try:
        action()
        code = 0
    except OSError as error:
        print(f"{error.strerror or error}: {error.filename or ''}", file=sys.stderr)
    finally:
        os._exit(code)


def _map(pid: int) -> bool:
    for program, own, name in (
        ("newuidmap", os.getuid(), "subuid"),
        ("newgidmap", os.getgid(), "subgid"),
    ):
        words, first = ["0", str(own), "1"], 1
        for start, count in subordinate_ids(Path("/etc", name), os.getuid()):
            words += [str(first), str(start), str(count)]
            first += count
        if subprocess.run([program, str(pid), *words], check=False).returncode != 0:
            return False
    return True


def _main(verb: str, directory: str) -> int:
    if verb == "remove":
        return run_as_root(lambda: shutil.rmtree(directory))
    return run_as_root(lambda: own_tree(directory))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
