"""Apptainer: its version, and what it says of an image. Every call is an argv list."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.process import Run, run

TIMEOUT_S = 300.0
"""Inspecting an image takes a second; unpacking one where there is no FUSE takes minutes."""

_INSTALL_HINT = "Install Apptainer 1.3 or later, or name it: apptainer in the configuration."
_KEPT = frozenset(
    f"APPTAINER_{name}"
    for name in (
        "AUTHFILE",
        "CACHEDIR",
        "CONFIGDIR",
        "DISABLE_CACHE",
        "DOCKER_HOST",
        "DOCKER_PASSWORD",
        "DOCKER_USERNAME",
        "NOHTTPS",
        "NO_HTTPS",
        "TMPDIR",
        "USERNS",
    )
)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the user's settings that would change what a container is."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("APPTAINER", "SINGULARITY")) or name in _KEPT
    }


def apptainer_version(apptainer: str, *, run: Run = run) -> str:
    """Return the version of Apptainer.

    Raises
    ------
    PrerequisiteError
        If it is not there or does not run.
    """
    if shutil.which(apptainer) is None:
        raise PrerequisiteError(f"no such program: {apptainer}", _INSTALL_HINT)
    done = run([apptainer, "--version"], timeout=60)
    if done.returncode != 0:
        text = (done.stderr or done.stdout).strip().splitlines()
        raise PrerequisiteError(
            f"{apptainer} does not run: {text[-1] if text else 'no message'}", _INSTALL_HINT
        )
    return done.stdout.split()[-1] if done.stdout.split() else "unknown"


def inspect(apptainer: str, sif: Path, *, run: Run = run) -> dict[str, Any]:
    """Return what Apptainer says of an image: ``labels`` and ``deffile``, among others.

    Raises
    ------
    PrerequisiteError
        If it is not an image that Apptainer can read.
    """
    done = run(
        [apptainer, "inspect", "--json", "--labels", "--deffile", os.fspath(sif)], timeout=TIMEOUT_S
    )
    try:
        if done.returncode == 0:
            attributes: dict[str, Any] = json.loads(done.stdout)["data"]["attributes"]
            return attributes
    except (ValueError, KeyError, TypeError):
        pass
    text = done.stderr.strip().splitlines()
    raise PrerequisiteError(
        f"{sif} is not an image that Apptainer reads: {text[-1] if text else 'no answer'}",
        "Name a .sif file.",
    )


def own_labels(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return an image's labels without those that Apptainer adds by itself."""
    labels = attributes.get("labels") or {}
    return {
        name: str(value)
        for name, value in sorted(labels.items())
        if not name.startswith("org.label-schema.")
    }


def built_with(attributes: Mapping[str, Any]) -> str | None:
    """Return the version of Apptainer that built an image, as its labels have it."""
    labels = attributes.get("labels") or {}
    version = labels.get("org.label-schema.usage.apptainer.version")
    return str(version) if version else None


def ask(apptainer: str, image: Path, argv: tuple[str, ...], *, run: Run = run) -> str | None:
    """Return what a program in an image prints; None if it fails or is not there."""
    contained = ["--cleanenv", "--containall", "--no-home", "--no-eval"]
    done = run(
        [apptainer, "exec", *contained, os.fspath(image), *argv],
        env=clean_environment(os.environ),
        timeout=TIMEOUT_S,
    )
    return done.stdout if done.returncode == 0 else None
