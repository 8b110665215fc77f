"""A BayesEoR configuration as text: one flat YAML mapping, a line for each key."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import UsageError

if TYPE_CHECKING:
    import yaml

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
"""Numbers such as ``1e8``: BayesEoR reads them so, YAML 1.1 as text."""


@lru_cache(maxsize=2)
def parse(data: bytes, what: str) -> Mapping[str, Any]:
    """Read a configuration; the same one again is not parsed anew.

    Parameters
    ----------
    data
        The file's bytes.
    what
        The file, for messages.

    Raises
    ------
    UsageError
        If it is not YAML, no mapping, or has a key twice.
    """
    import yaml

    try:
        document = yaml.load(data, Loader=_loader())  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        hint = f"The parser says: {error.problem or error.context}."
        raise UsageError(f"{what} is not valid YAML{place}", hint) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise UsageError(
            f"{what} is no BayesEoR configuration: it holds no keys",
            "Write `key: value` lines, such as `nside: 128`.",
        )
    return document


def text_of(value: Any) -> str:
    """Return a value as YAML on one line, read back as the same by YAML 1.1 and 1.2."""
    if isinstance(value, float):
        mantissa, exponent, power = repr(value).partition("e")
        point = ".0" if exponent and "." not in mantissa else ""
        return f"{mantissa}{point}{exponent}{power}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    return json.dumps(value)


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """A SafeLoader that takes ``1e8`` for a number, and no key twice."""

        def construct_mapping(
            self, node: yaml.MappingNode, deep: bool = False
        ) -> dict[Hashable, Any]:
            """Make a mapping with unique keys."""
            seen = set()
            for key_node, _ in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, "a key is not text", key_node.start_mark
                    )
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                    )
                seen.add(key_node.value)
            return super().construct_mapping(node, deep=True)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    return Loader
