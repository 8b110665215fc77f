"""YAML as pyuvsim's users write it: unknown tags are kept, and nothing is ever built from them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import UsageError

if TYPE_CHECKING:
    import yaml

MAX_VALUES = 1_000_000
"""More values than this are an alias that repeats itself, not a configuration."""


class TaggedMapping(dict[Any, Any]):
    """A mapping with a tag of its own, such as ``!UVBeam``."""

    tag: str = ""


class TaggedSequence(list[Any]):
    """A list with a tag of its own."""

    tag: str = ""


class TaggedScalar(str):
    """A scalar with a tag of its own, as the text that stands in the file."""

    tag: str = ""


def parse_yaml(data: bytes, what: str) -> Any:
    """Read one YAML document.

    Parameters
    ----------
    data
        The file's bytes.
    what
        The file, for messages.

    Raises
    ------
    UsageError
        If it is not YAML (with line and column), asks for a Python object, or refers to itself.
    """
    return copy.deepcopy(_parsed(data, what))


@lru_cache(maxsize=8)
def _parsed(data: bytes, what: str) -> Any:
    """Parse once what a run is discovered from and then planned from."""
    import yaml

    try:
        document = yaml.load(data, Loader=_loader())  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise UsageError(f"{what} is not valid YAML{_place(error)}", _problem(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not valid YAML: {_first_line(error)}") from error
    _check_size(document, what)
    return document


def render_yaml(document: Any) -> bytes:
    """Return a document as YAML in ASCII; the same document gives the same bytes anywhere."""
    import yaml

    text = yaml.dump(
        document,
        Dumper=_dumper(),
        sort_keys=False,
        default_flow_style=False,
        width=100,
    )
    return str(text).encode()


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    words = error.problem or error.context or "it cannot be read"
    hint = f"The parser says: {words}."
    return f"{hint} YAML is indented with spaces." if "\\t" in words else hint


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_size(document: Any, what: str) -> None:
    for count, _ in enumerate(_values(document, what, ())):
        if count > MAX_VALUES:
            raise UsageError(f"{what} holds more than {MAX_VALUES} values")


def _values(node: Any, what: str, above: tuple[int, ...]) -> Iterator[Any]:
    if id(node) in above:
        raise UsageError(f"{what} has an alias that refers to itself")
    yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from _values(child, what, (*above, id(node)))


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """A SafeLoader that keeps what it does not know."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse)
    Loader.add_multi_constructor("!", _keep)
    Loader.add_multi_constructor("", _keep)
    return Loader


def _refuse(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    import yaml

    raise yaml.constructor.ConstructorError(
        None, None, "a configuration cannot hold Python objects", node.start_mark
    )


def _keep(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    import yaml

    kept: TaggedMapping | TaggedSequence | TaggedScalar
    if isinstance(node, yaml.MappingNode):
        kept = TaggedMapping(loader.construct_mapping(node, deep=True))
    elif isinstance(node, yaml.SequenceNode):
        kept = TaggedSequence(loader.construct_sequence(node, deep=True))
    else:
        kept = TaggedScalar(node.value)
    kept.tag = node.tag
    return kept


@cache
def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        """A SafeDumper that writes tags back, and every value where it stands."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    represent: dict[type, Callable[[Any, Any], yaml.Node]] = {
        TaggedMapping: lambda dumper, data: dumper.represent_mapping(data.tag, data),
        TaggedSequence: lambda dumper, data: dumper.represent_sequence(data.tag, data),
        TaggedScalar: lambda dumper, data: dumper.represent_scalar(data.tag, str(data)),
    }
    for kind, function in represent.items():
        Dumper.add_representer(kind, function)
    return Dumper
