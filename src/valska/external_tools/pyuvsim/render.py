"""A user's documents with every path rewritten, so that they hold in any bundle."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from valska.external_tools.pyuvsim.beams import prepare_beams
from valska.external_tools.pyuvsim.discovery import BeamSettings, Configuration
from valska.external_tools.pyuvsim.document import render_yaml
from valska.external_tools.pyuvsim.files import Keys, distinct, plain_name
from valska.external_tools.pyuvsim.filing import Filing
from valska.external_tools.pyuvsim.keys import FILING

OBSPARAM = "obsparam.yaml"
TELESCOPE = "telescope.yaml"


def render(
    configuration: Configuration, targets: Mapping[str, str], filing: Filing
) -> dict[str, bytes]:
    """Return the files below ``config/``, by name.

    Paths are written as they hold for a process that works in ``outputs/``.

    Parameters
    ----------
    configuration
        What the user's files say.
    targets
        Logical name of a file to its name below ``inputs/``.
    filing
        The output.

    Raises
    ------
    UsageError
        If a beam cannot be staged.
    """
    names = {
        "obsparam": OBSPARAM,
        "telescope": TELESCOPE,
        **_settings_names(configuration.settings),
    }
    documents = _copies(configuration)
    prepare_beams(documents["obsparam"])
    prepare_beams(documents["telescope"])
    for file in configuration.files:
        _put(documents[file.document], file.keys, f"../inputs/{targets[file.name]}")
    for found in configuration.settings:
        _put(documents[found.file.document], found.file.keys, f"../config/{names[found.file.name]}")
    obsparam = _file_under(documents["obsparam"], filing)
    obsparam["telescope"]["telescope_config_name"] = f"../config/{TELESCOPE}"
    documents["obsparam"] = obsparam
    return {names[owner]: render_yaml(document) for owner, document in documents.items()}


def _copies(configuration: Configuration) -> dict[str, Any]:
    settings = {found.file.name: found.document for found in configuration.settings}
    owners = {"obsparam": configuration.obsparam, "telescope": configuration.telescope, **settings}
    return {owner: _unshared(document) for owner, document in owners.items()}


def _unshared(node: Any) -> Any:
    """Return a copy in which no part stands twice, as an alias makes it do."""
    result = copy.copy(node)
    if isinstance(node, dict):
        for key, value in node.items():
            result[key] = _unshared(value)
    elif isinstance(node, list):
        result[:] = [_unshared(value) for value in node]
    return result


def _put(node: Any, keys: Keys, value: str) -> None:
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value


def _file_under(obsparam: dict[Any, Any], filing: Filing) -> dict[Any, Any]:
    if "filing" in obsparam:
        return {**obsparam, "filing": filing.section}
    rest = {key: value for key, value in obsparam.items() if key not in FILING}
    return {"filing": filing.section, **rest}


def _settings_names(settings: Iterable[BeamSettings]) -> dict[str, str]:
    names: dict[str, str] = {}
    for found in settings:
        taken = (OBSPARAM, TELESCOPE, *names.values())
        names[found.file.name] = distinct(plain_name(found.file.label), taken)
    return names
