"""The project's JSON Schema files, and validation that collects every finding.

jsonschema-rs answers whether a document is valid: it starts in a tenth of the time of jsonschema,
which is only loaded to say what is wrong with one that is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.utils import package_directory

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator


class SchemaError(UsageError):
    """A document does not follow its schema.

    Parameters
    ----------
    what
        What the document is, for the message.
    findings
        ``JSON path: what is wrong``, one per fault.
    """

    def __init__(self, what: str, findings: Iterable[str], hint: str | None = None) -> None:
        self.findings = tuple(findings)
        super().__init__(f"{what} is not valid: " + "; ".join(self.findings), hint)


@cache
def load_schema(name: str) -> dict[str, Any]:
    """Return a schema by file name without its suffix (``manifest-1``)."""
    text = (package_directory("valska.schemas") / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator(name: str) -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema(name))


@cache
def judge(name: str) -> Callable[[Any], bool]:
    """Return the function that says whether a document follows a schema; compiled once."""
    from jsonschema_rs import validator_for

    is_valid = validator_for(load_schema(name)).is_valid

    def judged(data: Any) -> bool:
        try:
            return is_valid(data)
        except UnicodeEncodeError:
            # A job's record has half of a surrogate pair for each byte that is not of UTF-8.
            return _validator(name).is_valid(data)

    return judged


def findings(data: Any, name: str) -> list[ValidationError]:
    """Return every fault of a document, in the order of the document's paths."""
    if judge(name)(data):
        return []
    return sorted(_validator(name).iter_errors(data), key=lambda error: list(map(str, error.path)))


def validate(data: Mapping[str, Any], name: str, what: str) -> None:
    """Check a document against a schema.

    Parameters
    ----------
    data
        The document.
    name
        The schema's file name without its suffix.
    what
        What the document is, for the message.

    Raises
    ------
    SchemaError
        With every fault and its JSON path.
    """
    if judge(name)(data):
        return
    found = [f"{error.json_path}: {error.message}" for error in findings(data, name)]
    raise SchemaError(what, found or ["a text ends in a line break"])
