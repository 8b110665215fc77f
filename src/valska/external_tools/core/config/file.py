"""Finding, reading and checking ``runtime_paths.yaml``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.external_tools.core import schema
from valska.external_tools.core.directives import DirectiveError, check_directive
from valska.external_tools.core.errors import ConfigError
from valska.external_tools.core.suggest import did_you_mean
from valska.external_tools.core.tool import BUILT_IN, read_file, tool_names

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

FILE_NAME = "runtime_paths.yaml"
VARIABLE = "VALSKA_CONFIG"
SCHEMA = "runtime-paths-1"


def find_runtime_paths(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    home: Path | None = None,
) -> Path | None:
    """Return the configuration file that holds here, or None.

    The first of: `path`; ``$VALSKA_CONFIG``; ``config/runtime_paths.yaml`` of the project, which is
    the working directory or, in a git checkout, a directory between it and the checkout's root;
    ``$XDG_CONFIG_HOME/valska/runtime_paths.yaml`` (``~/.config`` without that variable).

    Parameters
    ----------
    path
        The file that the user named.
    environ, cwd, home
        Environment, working directory and home directory; the process's own if not given.

    Raises
    ------
    ConfigError
        If the named file is missing, or a project's file could have been planted by somebody else:
        it names commands that valska runs.
    """
    environ = os.environ if environ is None else environ
    if path is not None:
        return _named(path, "--config")
    if environ.get(VARIABLE):
        return _named(Path(environ[VARIABLE]), f"${VARIABLE}")
    project = next(filter(Path.is_file, _project_files(cwd or Path.cwd())), None)
    if project is not None:
        return _trusted(project)
    user = _user_directory(environ, home) / "valska" / FILE_NAME
    return user if user.is_file() else None


def read_runtime_paths(path: Path, tools: Iterable[str] | None = None) -> dict[str, Any]:
    """Read and check a configuration file.

    Parameters
    ----------
    path
        The file.
    tools
        Names that a section can have; the installed tools if not given.

    Raises
    ------
    ConfigError
        With every fault and its place.
    """
    data = _parse(path)
    known = _tools(data) if tools is None else tuple(tools)
    found = list(_faults(data, known))
    if found:
        raise ConfigError(f"{path} is not valid: {'; '.join(found)}", _HINT)
    return data


_HINT = "Correct the file; the documentation lists every key."


def _tools(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names that a section can have; all installed tools only where it may be one."""
    if data.keys() <= schema.load_schema(SCHEMA)["properties"].keys() | BUILT_IN.keys():
        return tuple(BUILT_IN)
    return tool_names()


def _named(path: Path, how: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"no such configuration file: {path} (from {how})", "Check the path.")
    return path.absolute()


def _project_files(cwd: Path) -> Iterator[Path]:
    directories = [cwd, *cwd.parents]
    roots = [index for index, path in enumerate(directories) if (path / ".git").exists()]
    for directory in directories[: roots[0] + 1] if roots else [cwd]:
        yield directory / "config" / FILE_NAME


def _trusted(path: Path) -> Path:
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o002:
        raise ConfigError(
            f"{path} belongs to somebody else, or anybody can write it",
            f"If you trust it, name it: --config {path}, or ${VARIABLE}.",
        )
    return path


def _user_directory(environ: Mapping[str, str], home: Path | None) -> Path:
    configured = environ.get("XDG_CONFIG_HOME", "")
    return Path(configured) if configured.startswith("/") else (home or Path.home()) / ".config"


def _parse(path: Path) -> dict[str, Any]:
    import yaml

    from valska.external_tools.core.config.plain_yaml import load_plain

    try:
        data = load_plain(read_file(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not YAML: {_problem(error)}", "Check indentation and quotes."
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} does not hold keys and values at its top level")
    return _without_empty(data)


def _problem(error: Exception) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())


def _without_empty(data: Mapping[str, Any]) -> dict[str, Any]:
    """Drop keys without a value (``setup:``), but for Slurm directives, where null counts."""
    return {
        key: _without_empty(value) if isinstance(value, dict) and key != "slurm" else value
        for key, value in data.items()
        if value is not None
    }


def _faults(data: dict[str, Any], tools: tuple[str, ...]) -> Iterator[str]:
    top = schema.load_schema(SCHEMA)
    site = top["properties"].keys()
    known = {key: value for key, value in data.items() if key in site or key in tools}
    for key in data.keys() - known.keys():
        yield _unknown("$", key, [*site, *tools], top["$defs"]["tool"]["properties"], tools)
    for error in schema.findings(known, SCHEMA):
        yield from _explain(error)
    for where, directives in _directive_tables(known, tools):
        yield from _directive_faults(where, directives)


def _unknown(
    where: str,
    key: str,
    candidates: Iterable[str],
    tool_keys: Iterable[str] = (),
    tools: tuple[str, ...] = (),
) -> str:
    hint = did_you_mean(key, candidates)
    if key in tool_keys:
        hint = f"It belongs in the section of a tool ({', '.join(tools)})."
    return f"{where}.{key}: unknown key" + (f". {hint}" if hint else "")


def _explain(error: ValidationError) -> Iterator[str]:
    properties = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
        yield f"{error.json_path}: {error.message}"
        return
    for key in error.instance.keys() - properties.keys():
        yield _unknown(error.json_path, key, properties)


def _directive_tables(
    data: Mapping[str, Any], tools: tuple[str, ...]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "$.slurm", _mapping(data.get("slurm"))
    for tool in tools:
        section = _mapping(data.get(tool))
        yield f"$.{tool}.slurm", _mapping(section.get("slurm"))
        for stage, entry in _mapping(section.get("stages")).items():
            yield f"$.{tool}.stages.{stage}.slurm", _mapping(_mapping(entry).get("slurm"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _directive_faults(where: str, directives: Mapping[str, Any]) -> Iterator[str]:
    for name, value in directives.items():
        if value is not None and not isinstance(value, (str, bool)):
            continue
        try:
            check_directive(name, value)
        except DirectiveError as error:
            yield f"{where}.{name}: {error.message}" + (f". {error.hint}" if error.hint else "")
