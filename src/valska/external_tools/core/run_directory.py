"""Where everything of a run lies; the only place that knows the layout of a bundle."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.utils import utc_now_compact

COMMON = "common.json"
"""In a sweep's directory: what the manifests of all its points share."""

CONTAINER_ROOT = "/bundle"
"""Where a bundle is mounted in a container."""

_INSIDE = ("data/bundle", "bundle", "sweep")
"""Where what was unpacked of an archive, or a reproduction, has its bundle or sweep."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")


class RunDirectoryError(ValskaError):
    """A run directory cannot be made, or is not one."""

    exit_code = 3


class TakenError(RunDirectoryError):
    """The place of a run directory is taken."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's files by name. Nothing is read or written here.

    Parameters
    ----------
    path
        The bundle's directory.
    common
        For a point of a sweep: the sweep's directory, where what all points share lies.
    """

    path: Path
    common: Path | None = None

    @property
    def shared_path(self) -> Path:
        """Where scripts, inputs, image files and ``site.env`` lie."""
        return self.common or self.path

    @property
    def manifest(self) -> Path:
        """The intent; sealed."""
        return self.path / "manifest.json"

    @property
    def sums(self) -> Path:
        """Digests of the manifest and of every sealed file; its own digest is the seal."""
        return self.path / "SHA256SUMS"

    @property
    def readme(self) -> Path:
        """What this is, for a person; sealed."""
        return self.shared_path / "README.md"

    @property
    def config(self) -> Path:
        """The tool's configuration as rendered; sealed."""
        return self.path / "config"

    @property
    def inputs(self) -> Path:
        """Staged inputs; sealed."""
        return self.shared_path / "inputs"

    @property
    def containers(self) -> Path:
        """Definition, lock and image record (and an embedded image); sealed."""
        return self.shared_path / "containers"

    @property
    def outputs(self) -> Path:
        """What the run writes; the working directory of every stage."""
        return self.path / "outputs"

    @property
    def records(self) -> Path:
        """What the jobs themselves wrote down."""
        return self.path / "records"

    @property
    def logs(self) -> Path:
        """What the jobs printed."""
        return self.path / "logs"

    @property
    def site_env(self) -> Path:
        """What depends on the site: image, apptainer command, set-up lines, binds."""
        return self.shared_path / "site.env"

    @property
    def jobs(self) -> Path:
        """The current submission."""
        return self.path / "jobs.json"

    @property
    def submit_lock(self) -> Path:
        """Directory that keeps two submits apart."""
        return self.path / ".submit.lock"

    def script(self, stage: str) -> Path:
        """Return the sbatch script of a stage."""
        return self.shared_path / f"submit_{stage}.sh"

    def archived_jobs(self, stamp: str) -> Path:
        """Return the place of an earlier submission."""
        return self.path / f"jobs_{stamp}.json"

    def local_queue(self, token: str) -> Path:
        """Return the state file of the local scheduler for one submission."""
        return self.logs / f"local-{token}.json"


def check_name(value: str, what: str) -> str:
    """Return a name that can stand in a path, a job name and a shell, or say why it cannot.

    Raises
    ------
    UsageError
        If it is empty, too long, or has a character outside ``A-Za-z0-9._+=-``.
    """
    if not _NAME.fullmatch(value):
        raise UsageError(
            f"{what} {value!r} is not usable as a name",
            "Use 1 to 128 letters, digits and . _ + = - only, starting with a letter or digit.",
        )
    return value


def check_place(place: str) -> str:
    """Return a place in a bundle that stays in it and fits on one line of ``SHA256SUMS``.

    Raises
    ------
    UsageError
        If it is absolute, leads out of the bundle, holds a control character, or is not UTF-8.
    """
    if {"", ".", ".."} & set(place.split("/")):
        raise UsageError(f"{place!r} leads out of its directory", "Name a file below it.")
    if _UNPRINTABLE.search(place):
        raise UsageError(f"{place!r} is not usable as a file name", "Rename it.")
    return place


def check_root(root: Path) -> Path:
    """Return a root of results that is a directory, or is not there yet.

    Raises
    ------
    UsageError
        If it is something else.
    """
    with suppress(OSError):
        if not stat.S_ISDIR(root.stat().st_mode):
            raise UsageError(
                f"the results root {root} is not a directory",
                "Name another with --results-root or in the configuration.",
            )
    return root


def build_run_dir(
    results_root: Path,
    tool: str,
    taxonomy: Mapping[str, str],
    run_id: str,
    unique: bool = False,
) -> Path:
    """Return the path of a run: ``<results_root>/<tool>/<taxonomy…>/<run_id>[/<UTC stamp>]``.

    Parameters
    ----------
    results_root
        Root of all results.
    tool
        Name of the tool.
    taxonomy
        Level name to value, in order.
    run_id
        The user's name for the run.
    unique
        Append the UTC time, so that the same run can be made again.

    Raises
    ------
    UsageError
        If a part is not usable as a name, or the root is not a directory.
    """
    check_root(results_root)
    levels = [check_name(value, f"{level} level") for level, value in taxonomy.items()]
    run_dir = results_root.joinpath(check_name(tool, "tool"), *levels, check_name(run_id, "run id"))
    return run_dir / utc_now_compact() if unique else run_dir


def validate_run_dir(run_dir: Path) -> None:
    """Check that a directory is a bundle.

    Raises
    ------
    RunDirectoryError
        If it is missing, no directory, or lacks its manifest or its digests; or if it is a sweep,
        or a point of one, that lacks the sweep's manifest.
    """
    if not run_dir.is_dir():
        raise RunDirectoryError(
            f"no such bundle: {run_dir}", "Make one with `valska bundle`, or check the path."
        )
    _refuse_damaged_sweep(run_dir)
    bundle = Bundle(run_dir)
    missing = [path.name for path in (bundle.manifest, bundle.sums) if not path.is_file()]
    if missing:
        inside = run_inside(run_dir)
        raise RunDirectoryError(
            f"{run_dir} is not a bundle: {' and '.join(missing)} missing",
            f"There is one in it: name {inside}."
            if inside
            else "Name the directory that `valska bundle` made.",
        )


def _refuse_damaged_sweep(path: Path) -> None:
    """Refuse a sweep, or a point of one, that has lost its manifest; it would look like neither."""
    whole = path.absolute()
    above = [whole.parent.parent] if whole.parent.name in ("points", "shared") else []
    for sweep in (whole, *above):
        if (sweep / COMMON).is_file() and not (sweep / "sweep_manifest.json").is_file():
            raise RunDirectoryError(
                f"the sweep {sweep} has lost its sweep_manifest.json", "Restore it from a copy."
            )


def is_bundle(path: Path) -> bool:
    """Return whether a directory is a bundle, or what is left of one."""
    bundle = Bundle(path)
    return bundle.manifest.is_file() or bundle.sums.is_file()


def run_inside(path: Path) -> Path | None:
    """Return the bundle or the sweep in a directory that was made for it and more.

    Such directories are what was unpacked of an archive, and reproductions.

    Parameters
    ----------
    path
        The directory.

    Returns
    -------
    Path or None
        None if there is none, or the directory is a bundle or a sweep itself.
    """
    if is_bundle(path):
        return None
    return next((path / name for name in _INSIDE if is_bundle(path / name)), None)


def refuse_inside(path: Path) -> None:
    """Refuse a place in a bundle or a sweep: there it would be an unexpected file.

    Raises
    ------
    TakenError
        Naming the bundle or the sweep.
    """
    for parent in path.absolute().parents:
        if (parent / "SHA256SUMS").is_file() and any(
            (parent / name).is_file() for name in ("manifest.json", COMMON)
        ):
            raise TakenError(
                f"{path} lies in {parent}, which is a bundle or a sweep itself",
                "Choose a directory outside of it.",
            )


def ensure_run_dir(run_dir: Path, exist_ok: bool = False) -> None:
    """Make a run's directory and its parents.

    Raises
    ------
    RunDirectoryError
        If it exists and `exist_ok` is false, or if it cannot be made.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError as error:
        if exist_ok:
            raise RunDirectoryError(
                f"{run_dir} is a file, not a directory", "Choose another place."
            ) from error
        raise TakenError(
            f"{run_dir} exists already", "Choose another run id, or --unique for a time stamp."
        ) from error
    except OSError as error:
        raise RunDirectoryError(
            f"cannot make {run_dir}: {error.strerror}",
            "Check the permissions, or choose another place.",
        ) from error


def open_bundle(path: Path) -> Bundle:
    """Return the bundle at a path, made absolute.

    Raises
    ------
    RunDirectoryError
        If it is not a bundle.
    """
    validate_run_dir(path)
    return Bundle(path.absolute())
