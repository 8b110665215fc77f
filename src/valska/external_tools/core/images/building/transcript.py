"""The log of an image build: written while it runs, followed, and read when it fails."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images.building.ownership import ASK
from valska.external_tools.core.process import Completed, Run

Progress = Callable[[str], None]

SHOWN_LINES = 3
POLL_S = 0.2

_TO_FILE = 'umask 022; exec "$@" >"$0" 2>&1'
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CERTIFICATES = "Name the site's certificates: ca_bundle in the configuration (or --ca-bundle)."
_SPACE = (
    "Free some space: images go to the store ($VALSKA_IMAGES), a build unpacks in $TMPDIR "
    "and Apptainer keeps downloads in $APPTAINER_CACHEDIR."
)
_POST = "Running post scriptlet"
_EARLY, _EVER = True, False
"""Where a fault is looked for: in what stands before the commands of ``%post``, or in all."""

_FAULTS: tuple[tuple[bool, str, type[ValskaError], str, str], ...] = (
    (
        _EARLY,
        r"no mapping entry found|user namespaces? .*(disabled|not|exceeded)|no user namespace"
        r"|newuidmap|newgidmap|CLONE_NEWUSER|[Ff]ailed to create user namespace",
        PrerequisiteError,
        "Apptainer has no user namespace to build in",
        ASK,
    ),
    (
        _EVER,
        r"(?i:no space left on device|disk quota exceeded)",
        ValskaError,
        "the disk is full",
        _SPACE,
    ),
    (
        _EVER,
        r"Requesting capability set",
        PrerequisiteError,
        "Apptainer cannot build images here",
        "`valska doctor` says what is missing. Or build it elsewhere, and name the file with "
        "--image.",
    ),
    (
        _EARLY,
        r"conveyor failed to get.*(x509|certificate)|while fetching.*(x509|certificate)",
        PrerequisiteError,
        "the registry's certificate is not trusted",
        _CERTIFICATES,
    ),
    (
        _EARLY,
        r"conveyor failed to get.*(unauthorized|denied)|while fetching.*(unauthorized|denied)",
        PrerequisiteError,
        "the registry does not give {base} to you",
        "Log in (`apptainer registry login`), or name another base with --base PATH|URI.",
    ),
    (
        _EARLY,
        r"conveyor failed to get.*(manifest unknown|MANIFEST_UNKNOWN|NAME_UNKNOWN|404)",
        PrerequisiteError,
        "the registry does not have {base}",
        "Check the digest, or name another base with --base PATH|URI.",
    ),
    (
        _EARLY,
        r"conveyor failed to get|while fetching|while pulling",
        PrerequisiteError,
        "the base {base} cannot be fetched",
        "Where no registry answers, name a base that is here: --base PATH|URI "
        "(containers/bootstrap-base.sh makes one).",
    ),
    (
        _EVER,
        r"CERTIFICATE_VERIFY_FAILED",
        PrerequisiteError,
        "the package index's certificate is not trusted",
        _CERTIFICATES,
    ),
    (
        _EVER,
        r"DO NOT MATCH THE HASHES|Hashes are required",
        ValskaError,
        "a package is not the one that the lock names",
        "Do not use what the index gave; check PIP_INDEX_URL and the lock.",
    ),
    (
        _EVER,
        r"NewConnectionError|NameResolutionError|Temporary failure in name resolution"
        r"|Network is unreachable|ReadTimeoutError",
        PrerequisiteError,
        "the package index does not answer",
        "Set PIP_INDEX_URL to an index that this machine reaches, or https_proxy.",
    ),
    (
        _EVER,
        r"destination .* doesn't exist in container",
        PrerequisiteError,
        "a path is bound to where {base} has nothing",
        "Bind it to a path that is there: --bind SRC:DST.",
    ),
    (_EVER, r"execute %test script", ValskaError, "the image is built, but fails its own test", ""),
    (_EVER, r"while running %post section", ValskaError, "a command of %post failed", ""),
)


def run_logged(
    argv: Sequence[str],
    log: Path,
    *,
    cwd: Path,
    env: Mapping[str, str],
    run: Run,
    progress: Progress | None = None,
) -> Completed:
    """Run a program with stdout and stderr in a file, telling each line as it comes."""
    log.touch()
    with _followed(log, progress):
        return run(["sh", "-c", _TO_FILE, os.fspath(log.absolute()), *argv], cwd=cwd, env=env)


def explain_failure(log: Path, base: str) -> ValskaError:
    """Return the error that a failed build's log speaks of."""
    text = _plain(log)
    end = f"The log is {log}; it ends: {_end(text)}"
    start = text.partition(_POST)[0]
    for early, pattern, kind, message, hint in _FAULTS:
        if re.search(pattern, start if early else text):
            told = f"{hint}\n{end}" if hint else end
            return kind(f"the image was not built: {message.format(base=base)}", told)
    return ValskaError("the image was not built: apptainer build failed", end)


def _end(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    told = [line for line in lines if line and not line.startswith(("INFO:", "+ "))]
    return " | ".join(told[-SHOWN_LINES:]) or "(nothing)"


def _plain(log: Path) -> str:
    return _COLOURS.sub("", log.read_text("utf-8", "replace"))


@contextmanager
def _followed(log: Path, progress: Progress | None) -> Iterator[None]:
    if progress is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(log, progress, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(log: Path, progress: Progress, ended: threading.Event) -> None:
    rest = ""
    with log.open(encoding="utf-8", errors="replace") as file:
        while True:
            last = ended.wait(POLL_S)
            *lines, rest = (rest + file.read()).split("\n")
            for line in lines:
                progress(_COLOURS.sub("", line))
            if last:
                break
    if rest:
        progress(_COLOURS.sub("", rest))
