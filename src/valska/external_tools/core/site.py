"""What depends on the site and not on the run: where the image is, set-up lines, binds."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from valska.external_tools.core.errors import ConfigError
from valska.external_tools.core.runner import CondaRunner
from valska.external_tools.core.utils import write_atomic

_COMMON = "$common/"
_LEADING = ("VALSKA_IMAGE=", "VALSKA_REFERENCES=(")


@dataclass(frozen=True, slots=True)
class Site:
    """What a job has to know of the site that it runs at.

    Parameters
    ----------
    image
        Where the image is.
    apptainer
        Program to call.
    setup
        Shell lines to run first (``module load …``).
    binds
        Further binds, ``source[:destination[:ro]]``.
    scratch
        Where each job makes its scratch directory; ``$TMPDIR`` or ``/tmp``, if not given.
    conda
        The environment, for the conda runner.
    srun_mpi
        Type for ``srun --mpi``, where a stage is launched by srun.
    references
        Place in the bundle to real path, of referenced inputs and borrowed directories.
    """

    image: Path | None = None
    apptainer: str = "apptainer"
    setup: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    scratch: Path | None = None
    conda: CondaRunner | None = None
    srun_mpi: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)


def render_site_env(site: Site, beside: Mapping[str, str] | None = None) -> str:
    """Return the text of ``site.env``, which the job script sources.

    Parameters
    ----------
    site
        What it says.
    beside
        Real path to path from the directory of ``site.env``, of what moves with that.

    Raises
    ------
    ConfigError
        If a bind or a set-up line is not usable.
    """
    mounts = " ".join(shlex.quote(mount_spec(bind)) for bind in site.binds)
    moving = beside or {}
    references = " ".join(
        f"[{shlex.quote(place)}]={_place(path, moving)}" for place, path in site.references.items()
    )
    lines = [
        "# What depends on this site. Not sealed: valska submit writes it anew; edit it by hand",
        "# where valska is not installed.",
        f"VALSKA_IMAGE={_place(site.image, moving) if site.image else _quote(None)}",
        f"VALSKA_APPTAINER={_quote(site.apptainer)}",
        f"VALSKA_SCRATCH={_quote(site.scratch)}",
        f"VALSKA_SRUN_MPI={_quote(site.srun_mpi)}",
        f"VALSKA_MOUNTS=({mounts})",
        f"VALSKA_REFERENCES=({references})",
        *_function("site_setup", site.setup),
    ]
    if site.conda:
        lines += _function("site_activate", site.conda.activation_commands())
    return "\n".join(lines) + "\n"


def write_site_env(path: Path, site: Site) -> None:
    """Write ``site.env``, whole or not at all; what it names from its own directory stays so."""
    write_atomic(path, render_site_env(site, _beside(path)).encode())


def _beside(site_env: Path) -> dict[str, str]:
    """Return real path to path from its directory, of what an archive's ``site.env`` leads to."""
    found = {}
    try:
        lines = site_env.read_text(encoding="utf-8").splitlines()
        for line in lines:
            for word in shlex.split(line) if line.startswith(_LEADING) else []:
                _, common, beside = word.partition(_COMMON)
                if common:
                    beside = beside.removesuffix(")")
                    found[os.path.normpath(site_env.parent / beside)] = beside
    except (OSError, ValueError):
        return {}
    return found


def reference_places(site_env: Path, recorded: Mapping[str, str]) -> dict[str, str]:
    """Return where what lies outside a bundle is now.

    That is where ``site.env`` says, if there is something; otherwise where it was when the
    bundle was made.

    Parameters
    ----------
    site_env
        The bundle's ``site.env``; it is read, never run.
    recorded
        Place in the bundle to real path when it was made.
    """
    said = dict(_said(site_env, recorded)) if recorded else {}
    return {**recorded, **{place: path for place, path in said.items() if Path(path).exists()}}


def _said(site_env: Path, recorded: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    prefix = "VALSKA_REFERENCES=("
    try:
        lines = site_env.read_text(encoding="utf-8").splitlines()
        texts = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
        words = shlex.split(texts[-1].rstrip().removesuffix(")")) if texts else []
    except (OSError, ValueError):
        return
    for place in recorded:
        yield from (
            (place, os.fspath(path_said(site_env, w.removeprefix(f"[{place}]="))))
            for w in words
            if w.startswith(f"[{place}]=")
        )


def path_said(site_env: Path, text: str) -> Path:
    """Return a path that ``site.env`` names; an archive's begins with ``$common``, its directory.

    Parameters
    ----------
    site_env
        The file.
    text
        The path, without the shell's quotes.
    """
    beside = text.removeprefix(_COMMON)
    return Path(text) if beside == text else Path(os.path.normpath(site_env.parent / beside))


def mount_spec(bind: str) -> str:
    """Turn ``source[:destination[:ro]]`` into a specification for ``apptainer exec --mount``.

    Raises
    ------
    ConfigError
        If it has another form or a path is not absolute.
    """
    source, _, rest = bind.partition(":")
    destination, _, mode = rest.partition(":")
    absolute = source.startswith("/") and (destination or source).startswith("/")
    if not absolute or mode not in ("", "ro", "rw") or '"' in bind:
        raise ConfigError(
            f"bind {bind!r} is not usable", "Write source[:destination[:ro]], absolute paths."
        )
    fields = ["type=bind", f'"source={source}"', f'"destination={destination or source}"']
    return ",".join([*fields, "ro"] if mode == "ro" else fields)


def _place(path: Path | str, beside: Mapping[str, str]) -> str:
    inside = beside.get(os.fspath(path))
    return _quote(path) if inside is None else f'"{_COMMON}"{shlex.quote(inside)}'


def _quote(value: Path | str | None) -> str:
    return shlex.quote("" if value is None else os.fspath(value))


def _function(name: str, lines: tuple[str, ...] | list[str]) -> list[str]:
    for line in lines:
        if "\n" in line or "\0" in line:
            raise ConfigError(f"set-up line {line!r} is more than one line", "Split it.")
    return [f"{name}() {{", *[f"    {line}" for line in lines or [":"]], "}"]
