"""Templates of a tool: configuration files that ship with it, found by name."""

from __future__ import annotations

from pathlib import Path

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.suggest import did_you_mean


class TemplateError(UsageError):
    """There is no template of that name."""


def get_templates_dir(tool_module_path: Path | str) -> Path:
    """Return the templates directory of a tool's package.

    Parameters
    ----------
    tool_module_path
        A file of the package, usually its ``__file__``.
    """
    return Path(tool_module_path).parent / "templates"


def list_templates(templates_dir: Path, suffix: str = ".yaml") -> list[str]:
    """Return the names of the templates in a directory, sorted, without their suffix."""
    if not templates_dir.is_dir():
        return []
    return sorted(
        path.name.removesuffix(suffix)
        for path in templates_dir.iterdir()
        if path.name.endswith(suffix) and path.is_file()
    )


def get_template_path(templates_dir: Path, name: str, suffix: str = ".yaml") -> Path:
    """Return the file of a template.

    Parameters
    ----------
    templates_dir
        Where the tool keeps its templates.
    name
        The template's name, with or without its suffix.
    suffix
        What tells a template from the files that it uses.

    Raises
    ------
    TemplateError
        If there is no such template; the hint lists what there is.
    """
    stem = name.removesuffix(suffix)
    available = list_templates(templates_dir, suffix)
    if stem not in available:
        near = did_you_mean(stem, available)
        listed = f"Available: {', '.join(available) or '(none)'}."
        raise TemplateError(
            f"no template is called {name!r}", f"{near} {listed}" if near else listed
        )
    return templates_dir / f"{stem}{suffix}"
