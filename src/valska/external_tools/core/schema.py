"""The project's JSON Schema files, and validation that collects every finding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from valska.external_tools.core.errors import UsageError

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
    text = files("valska.schemas").joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator(name: str) -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema(name))


def findings(data: Any, name: str) -> list[ValidationError]:
    """Return every fault of a document, in the order of the document's paths."""
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
    found = findings(data, name)
    if found:
        raise SchemaError(what, [f"{error.json_path}: {error.message}" for error in found])
