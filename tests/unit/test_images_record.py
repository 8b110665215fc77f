"""The image record: what it says, and that its form and its version go together."""

import json
import re
from pathlib import Path

import pytest

from valska.external_tools.core.images.record import SCHEMA_VERSION, ImageRecord, read_record
from valska.external_tools.core.schema import SchemaError, load_schema
from valska.external_tools.core.utils import sha256_bytes

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "image.md"
DIGEST = sha256_bytes(b"an image")
FIRST = {
    "schema_version": "1.0",
    "sha256": DIGEST,
    "size": 8,
    "rootfs_sha256": None,
    "name": "tool",
    "created_utc": "2026-01-02T03:04:05Z",
    "origin": "built",
    "definition": {"name": "tool.def", "sha256": sha256_bytes(b"def")},
    "lock": None,
    "files": [],
    "base": None,
    "build_arguments": {},
    "recipe_sha256": None,
    "apptainer_version": "1.4.5",
    "valska_version": "0.1",
    "packages": {
        "python": {"Python": "3.11.2", "numpy": "2.3.5"},
        "system": {"manager": "dpkg", "packages": {"bash": "5.2"}},
    },
    "labels": {},
    "build_host": None,
}
NEW = {
    "tree_sha256": DIGEST,
    "source_date_epoch": 1767225600,
    "squashfs": {"version": "4.5.1", "options": ["-noappend", "-all-root"]},
    "sbom": {"name": f"{DIGEST}.cdx.json", "sha256": DIGEST, "format": "CycloneDX 1.6"},
    "signature": {"fingerprint": "AB12", "unsigned_sha256": DIGEST},
    "source": {"uri": "oras://h/r@sha256:1", "tag": "1", "digest": f"sha256:{DIGEST}"},
}


def record(**more):
    return ImageRecord(
        sha256=DIGEST,
        size=8,
        name="tool",
        created_utc="2026-01-02T03:04:05Z",
        origin="built",
        **more,
    )


def test_the_form_of_the_record_goes_with_its_version():
    assert SCHEMA_VERSION == "1.1"
    assert set(record().to_json()) == set(load_schema("image-1")["properties"])
    assert set(record().to_json()) == {*FIRST, *NEW}


def test_a_record_with_everything_comes_back(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(record(**NEW).to_bytes())
    assert read_record(path) == record(**NEW)
    assert json.loads(path.read_bytes())["sbom"] == NEW["sbom"]


def test_a_record_of_the_first_version_is_still_read(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(FIRST))
    found = read_record(path)
    assert found.packages == FIRST["packages"]
    assert all(getattr(found, name) is None for name in NEW)
    assert found.to_json() == FIRST | dict.fromkeys(NEW) | {"schema_version": "1.1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tree_sha256", "short"),
        ("source_date_epoch", -1),
        ("source_date_epoch", "2026"),
        ("squashfs", {"version": "4.5.1"}),
        ("sbom", {"name": "x", "sha256": "y", "format": "z"}),
        ("signature", {}),
        ("source", {"uri": "oras://h/r", "digest": "latest"}),
        ("packages", {"environments": [{"place": "opt"}]}),
        ("packages", {"conda": [{"name": "x"}]}),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(name, value):
    with pytest.raises(SchemaError, match=name):
        record(**{name: value}).to_json()


def test_every_field_is_documented():
    text = PAGE.read_text().partition("\n## The record\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    schema = load_schema("image-1")["properties"]
    assert documented == {*schema, *schema["packages"]["properties"]}
