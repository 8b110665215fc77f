"""Whose a sandbox is: parts can belong to subordinate ids, which only a namespace reaches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.building import namespace
from valska.external_tools.core.process import Run, run

ASK = (
    "Ask the administrator for user namespaces (sysctl user.max_user_namespaces above 0; "
    "kernel.unprivileged_userns_clone=1 where there is such a setting), newuidmap and newgidmap "
    "(package uidmap or shadow-utils), and a range of ids for you in /etc/subuid and /etc/subgid. "
    "`valska doctor` says what is missing. Or build it elsewhere, and name the file with --image."
)
"""What an ordinary user needs for building images."""


def own_tree(root: Path, run: Run = run) -> None:
    """Give all of a directory to this user, who can read and enter all of it then.

    Raises
    ------
    PrerequisiteError
        If a part of it belongs to somebody else, and no user namespace can be made.
    """
    try:
        namespace.own_tree(os.fspath(root))
    except PermissionError:
        in_namespace("own", root, run)


def in_namespace(verb: str, root: Path, run: Run = run) -> None:
    """Have `namespace` do something with a directory: ``own`` or ``remove`` it.

    Raises
    ------
    PrerequisiteError
        If that fails.
    """
    program = os.fspath(Path(namespace.__file__))
    done = run([sys.executable, "-I", program, verb, os.fspath(root)])
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise PrerequisiteError(
            f"the files that the build has made as other users cannot be reached: "
            f"{lines[-1] if lines else 'no message'}",
            ASK,
        )
