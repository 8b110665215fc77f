"""Settings: flag, tool section, site section and default, merged once, each with its origin."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from valska.external_tools.core.config.file import find_runtime_paths, read_runtime_paths
from valska.external_tools.core.directives import check_directive, rivals
from valska.external_tools.core.errors import ConfigError

Directives = Mapping[str, str | bool | None]

_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for one tool on this site.

    Parameters
    ----------
    images
        Image store.
    results_root
        Directory below which bundles are made.
    runner
        ``container``, ``conda`` or ``host``.
    image
        Path of an image file, or the start of a digest in the store.
    conda_sh, conda_env
        ``conda.sh`` of the installation, and name or path of the environment.
    apptainer, sbatch
        Commands: a name on the PATH, or a path.
    setup
        Lines of bash that a job runs first.
    binds, build_binds
        Further paths for containers and for image builds: ``source[:target[:ro|rw]]``.
    ca_bundle
        Certificates that image builds trust.
    scratch
        Directory for temporary files of jobs, on the compute node.
    srun_mpi
        Type for ``srun --mpi``, for stages that srun launches.
    scheduler
        ``slurm`` or ``local``; None: Slurm where sbatch is.
    file
        The configuration file that was read.
    runtime
        What it holds.
    origins
        Setting to where its value is from.
    """

    images: Path
    results_root: Path | None = None
    runner: str = "container"
    image: str | None = None
    conda_sh: Path | None = None
    conda_env: str | None = None
    apptainer: str = "apptainer"
    sbatch: str = "sbatch"
    setup: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    build_binds: tuple[str, ...] = ()
    ca_bundle: Path | None = None
    scratch: Path | None = None
    srun_mpi: str | None = None
    scheduler: str | None = None
    file: Path | None = None
    runtime: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Directive:
    """A Slurm directive of a stage and where it is from; a value of None suppresses it."""

    value: str | None
    origin: str


def load_runtime_paths(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    home: Path | None = None,
) -> dict[str, Any]:
    """Read the configuration file that holds here; empty where there is none.

    Parameters
    ----------
    path, environ, cwd, home
        See `find_runtime_paths`.

    Raises
    ------
    ConfigError
        If a named file is missing, or a file is not valid.
    """
    found = find_runtime_paths(path, environ=environ, cwd=cwd, home=home)
    return {} if found is None else read_runtime_paths(found)


def get_tool_config(runtime: Mapping[str, Any], tool: str) -> dict[str, Any]:
    """Return a tool's section; empty where there is none."""
    section = runtime.get(tool)
    return dict(section) if isinstance(section, Mapping) else {}


def get_nested(d: Mapping[str, Any], *keys: str, default: Any = None) -> Any:
    """Return the value below a chain of keys, or the default where the chain ends early."""
    value: Any = d
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    return value


def merge_slurm_config(
    defaults: Mapping[str, Any], tool_config: Mapping[str, Any], cli_overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Merge Slurm directives; the command line wins over the tool, the tool over the defaults.

    A key set to None suppresses the directive, whatever a lower layer says. A directive that
    sbatch does not take together with another (``mem``, ``mem-per-cpu``) replaces that of a lower
    layer.
    """
    layers = (("default", defaults), ("tool", tool_config), ("flag", cli_overrides))
    merged = _merge(layers)
    return {name: value for name, (value, _) in merged.items() if value is not None}


def resolve(
    tool: str | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    home: Path | None = None,
) -> Settings:
    """Read the configuration and return what holds, each value with its origin.

    Parameters
    ----------
    tool
        Name of the tool whose section wins over the site's.
    flags
        Settings from the command line; those that were not given are absent or None.
    path, environ, cwd, home
        See `find_runtime_paths`.

    Raises
    ------
    ConfigError
        If the configuration file is missing or not valid, or names an unset variable.
    """
    environ = os.environ if environ is None else environ
    home = home or Path.home()
    file = find_runtime_paths(path, environ=environ, cwd=cwd, home=home)
    runtime = {} if file is None else read_runtime_paths(file)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    base = file.parent if file else cwd or Path.cwd()
    return _settings(tool, given, file, runtime, base, environ, home)


def default_settings() -> Settings:
    """Return what holds without a configuration file."""
    return _settings(None, {}, None, {}, Path.cwd(), os.environ, Path.home())


def _settings(
    tool: str | None,
    flags: Mapping[str, Any],
    file: Path | None,
    runtime: Mapping[str, Any],
    base: Path,
    environ: Mapping[str, str],
    home: Path,
) -> Settings:
    values, origins = _pick(
        ("flag", flags),
        ("$VALSKA_IMAGES", {"images": environ.get("VALSKA_IMAGES") or None}),
        (f"section {tool} of {file}", _convert(_flat(runtime, tool), base, environ, home)),
        (str(file), _convert(_flat(runtime, None), base, environ, home)),
        ("default", {"images": _data_directory(environ, home) / "valska" / "images"}),
    )
    values["images"] = Path(values["images"]).absolute()
    return Settings(**values, file=file, runtime=runtime, origins=origins)


def resolve_directives(
    runtime: Mapping[str, Any],
    tool: str,
    stages: Mapping[str, Directives],
    flags: Directives | None = None,
) -> dict[str, dict[str, Directive]]:
    """Return the Slurm directives of each stage with their origins, suppressed ones included.

    Parameters
    ----------
    runtime
        The configuration.
    tool
        Name of the tool.
    stages
        Stage to the tool's default directives.
    flags
        Directives from the command line.

    Raises
    ------
    ConfigError
        If the configuration has directives for a stage that the tool does not have.
    DirectiveError
        See `check_directive`.
    """
    section = get_tool_config(runtime, tool)
    unknown = sorted(_table(section, "stages").keys() - stages.keys())
    if unknown:
        raise ConfigError(
            f"the configuration names stages that {tool} does not have: {', '.join(unknown)}",
            f"Its stages: {', '.join(stages)}.",
        )
    return {
        stage: {
            name: Directive(check_directive(name, value), origin)
            for name, (value, origin) in _merge(
                (
                    ("default", defaults),
                    ("site", _table(runtime, "slurm")),
                    (f"section {tool}", _table(section, "slurm")),
                    (f"section {tool}, {stage}", _table(section, "stages", stage, "slurm")),
                    ("flag", flags or {}),
                )
            ).items()
        }
        for stage, defaults in stages.items()
    }


def directive_texts(directives: Mapping[str, Directive]) -> dict[str, str]:
    """Return the directives that are not suppressed, without their origins."""
    return {name: entry.value for name, entry in directives.items() if entry.value is not None}


def _table(runtime: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    found = get_nested(runtime, *keys)
    return found if isinstance(found, Mapping) else {}


def _merge(layers: tuple[tuple[str, Mapping[str, Any]], ...]) -> dict[str, tuple[Any, str]]:
    merged: dict[str, tuple[Any, str]] = {}
    for origin, layer in layers:
        for name in layer:
            for rival in rivals(name) - layer.keys():
                merged.pop(rival, None)
        merged.update({name: (value, origin) for name, value in layer.items()})
    return merged


def _pick(*layers: tuple[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key in SETTING_NAMES:
        for origin, layer in layers:
            if layer.get(key) is not None:
                values[key], origins[key] = layer[key], origin
                break
        else:
            origins[key] = "default"
    return values, origins


def _flat(runtime: Mapping[str, Any], tool: str | None) -> dict[str, Any]:
    section = runtime if tool is None else get_tool_config(runtime, tool)
    conda = {f"conda_{key}": value for key, value in _table(section, "conda").items()}
    return {key: value for key, value in {**section, **conda}.items() if key in SETTING_NAMES}


Convert = Callable[[Any, Path, Mapping[str, str], Path], Any]


def _path(text: str, base: Path, environ: Mapping[str, str], home: Path) -> Path:
    return base / _expand(text, environ, home)


def _program(text: str, base: Path, environ: Mapping[str, str], home: Path) -> str:
    expanded = _expand(text, environ, home)
    return os.fspath(base / expanded) if "/" in expanded else expanded


def _lines(texts: list[str], base: Path, environ: Mapping[str, str], home: Path) -> tuple[str, ...]:
    return tuple(texts)


def _binds(texts: list[str], base: Path, environ: Mapping[str, str], home: Path) -> tuple[str, ...]:
    return tuple(_expand(text, environ, home) for text in texts)


def _expand(text: str, environ: Mapping[str, str], home: Path) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in environ:
            raise ConfigError(
                f"the configuration has {text!r}, but ${name} is not set",
                f"Set {name}, or write the path out.",
            )
        return environ[name]

    expanded = _REFERENCE.sub(value, text)
    return os.fspath(home) + expanded[1:] if re.match(r"~(/|$)", expanded) else expanded


_CONVERT: dict[str, Convert] = {
    "results_root": _path,
    "images": _path,
    "ca_bundle": _path,
    "scratch": _path,
    "conda_sh": _path,
    "image": _program,
    "apptainer": _program,
    "sbatch": _program,
    "conda_env": _program,
    "setup": _lines,
    "binds": _binds,
    "build_binds": _binds,
}


def _convert(
    layer: Mapping[str, Any], base: Path, environ: Mapping[str, str], home: Path
) -> dict[str, Any]:
    return {
        key: _CONVERT[key](value, base, environ, home) if key in _CONVERT else value
        for key, value in layer.items()
    }


def _data_directory(environ: Mapping[str, str], home: Path) -> Path:
    configured = environ.get("XDG_DATA_HOME", "")
    return Path(configured) if configured.startswith("/") else home / ".local" / "share"


SETTING_NAMES = tuple(
    entry.name for entry in fields(Settings) if entry.name not in ("file", "runtime", "origins")
)
"""Names of all settings."""
