"""The schemas themselves, and validation that collects every finding."""

from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

from valska.external_tools.core.schema import SchemaError, load_schema, validate

NAMES = sorted(
    path.name.removesuffix(".schema.json")
    for path in files("valska.schemas").iterdir()
    if path.name.endswith(".schema.json")
)


def test_there_are_schemas():
    assert {"manifest-1", "stage-record-1", "jobs-1", "runtime-paths-1"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid_and_named_after_its_file(name):
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:valska:schema:{name}"
    assert schema["title"]


def test_every_fault_is_reported_with_its_path():
    with pytest.raises(SchemaError) as caught:
        validate({"schema_version": "1.0", "tool": "a/b", "run_id": 1}, "manifest-1", "this file")
    error = caught.value
    assert error.exit_code == 2
    assert error.message.startswith("this file is not valid: ")
    assert len(error.findings) >= 5
    assert [one for one in error.findings if one.startswith("$.tool: ")]
    assert [one for one in error.findings if one.startswith("$.run_id: ")]
    assert [one for one in error.findings if "'created_utc' is a required property" in one]
    assert all(one in error.message for one in error.findings)


def test_order_of_findings_is_stable():
    bad = {"tool": 1, "run_id": 2, "created_utc": 3}
    with pytest.raises(SchemaError) as one:
        validate(bad, "manifest-1", "x")
    with pytest.raises(SchemaError) as two:
        validate(dict(reversed(bad.items())), "manifest-1", "x")
    assert one.value.findings == two.value.findings


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "a\nb", "a//b", "a/", "", ".", "a\x7f"])
def test_paths_that_lead_outside_are_not_valid(path):
    schema = load_schema("manifest-1")
    validator = Draft202012Validator({**schema["$defs"]["path"]})
    assert list(validator.iter_errors(path))
    assert not list(validator.iter_errors("a/b c/é.txt"))
