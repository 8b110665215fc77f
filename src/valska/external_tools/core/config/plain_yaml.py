"""YAML in which a plain scalar is text.

YAML 1.1 reads ``time: 01:30:00`` as the number 5400, ``no`` as false and ``010`` as 8. Here a plain
scalar is null (``null``, ``~`` or nothing), true, false, or the text that stands there. A key that
stands twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Make a mapping whose keys are text and unique."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag not in (_STRING, _MERGE):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is not text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"

for _tag, _pattern in (
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)\Z"),
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    (_MERGE, r"<<\Z"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), None)


def load_plain(data: bytes) -> Any:
    """Read one YAML document.

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, has a key twice, or a key that is not text.
    """
    return yaml.load(data, Loader=_Loader)  # noqa: S506 - a SafeLoader
