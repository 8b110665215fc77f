"""Reproducible run bundles for science on HPC clusters.

What this module exports is supported; everything else is internal. Names are loaded when they are
first used, so that importing valska is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valska.external_tools.core.errors import ValskaError as ValskaError
    from valska.external_tools.core.manifest import Manifest as Manifest
    from valska.external_tools.core.manifest import read_manifest as read_manifest
    from valska.external_tools.core.run_directory import Bundle as Bundle
    from valska.external_tools.core.run_directory import open_bundle as open_bundle
    from valska.external_tools.core.tool import Input as Input
    from valska.external_tools.core.tool import RunPlan as RunPlan
    from valska.external_tools.core.tool import RunSpec as RunSpec
    from valska.external_tools.core.tool import Stage as Stage
    from valska.external_tools.core.tool import Tool as Tool
    from valska.external_tools.core.tool import load_tool as load_tool
    from valska.external_tools.core.tool import tool_names as tool_names

    __version__: str

_CORE = "valska.external_tools.core"
_EXPORTS = {
    "Bundle": f"{_CORE}.run_directory",
    "Input": f"{_CORE}.tool",
    "Manifest": f"{_CORE}.manifest",
    "RunPlan": f"{_CORE}.tool",
    "RunSpec": f"{_CORE}.tool",
    "Stage": f"{_CORE}.tool",
    "Tool": f"{_CORE}.tool",
    "ValskaError": f"{_CORE}.errors",
    "load_tool": f"{_CORE}.tool",
    "open_bundle": f"{_CORE}.run_directory",
    "read_manifest": f"{_CORE}.manifest",
    "tool_names": f"{_CORE}.tool",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    try:
        found: str = import_module("valska._version").version
    except ModuleNotFoundError:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("valska")
        except PackageNotFoundError:
            found = "0+unknown"
    return found
