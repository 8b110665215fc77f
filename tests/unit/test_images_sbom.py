"""The bill of materials: valid, the same each time, and what it says."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.images import sbom
from valska.external_tools.core.images.packages import Package, Packages
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.sbom import describe_sbom, make_sbom, sbom_faults
from valska.external_tools.core.utils import sha256_bytes

DIGEST, BASE = sha256_bytes(b"image"), sha256_bytes(b"base")
SITE = "opt/tool/lib/python3.11/site-packages"
RECORD = ImageRecord(
    sha256=DIGEST,
    size=5,
    name="tool",
    created_utc="2026-02-03T04:05:06Z",
    origin="built",
    valska_version="0.1",
    base={
        "reference": f"docker.io/library/python@sha256:{BASE}",
        "kind": "docker",
        "sha256": BASE,
        "replaced": False,
        "original": None,
    },
    labels={
        "org.opencontainers.image.version": "1.2",
        "org.opencontainers.image.licenses": "BSD-3-Clause",
    },
    source_date_epoch=1767225600,
    tree_sha256=sha256_bytes(b"tree"),
)
PACKAGES = Packages(
    all=(
        Package(
            "conda", "mkl", "1.0", "opt/conda", "linux-64", build="h1_0", channel="conda-forge"
        ),
        Package("deb", "libc6", "2.36-9", architecture="amd64", licences=("GPL-2+", "MIT")),
        Package("deb", "zlib1g", "1:1.2.13", architecture="amd64", source="zlib"),
        Package("python", "Ruamel.YAML", "0.18", SITE, licences=("MIT OR Apache-2.0",)),
        Package("python", "attrs", "26.1", SITE, licences=("mit",)),
        Package("python", "odd", "1", SITE, licences=("Ours, ask us",)),
    ),
    interpreters={SITE: "3.11.9"},
    distribution="debian-12",
)


@pytest.fixture(scope="module")
def made():
    return json.loads(make_sbom(RECORD, PACKAGES))


def component(made, name):
    return next(found for found in made["components"] if found["name"] == name)


def test_it_is_cyclonedx_and_valid_by_its_own_validator():
    data = make_sbom(RECORD, PACKAGES)
    assert sbom_faults(data.decode()) == ()
    found = json.loads(data)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")


def test_the_validator_finds_a_fault(made):
    assert sbom_faults(json.dumps(made | {"components": [{"type": "library"}]}))


def test_what_would_not_be_valid_is_not_written(monkeypatch):
    monkeypatch.setattr(sbom, "sbom_faults", lambda text: ("no name",))
    with pytest.raises(ValskaError, match="the bill of materials of tool is not valid: no name"):
        make_sbom(RECORD, PACKAGES)


def test_another_process_writes_the_same_bytes(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_images_sbom as t\n"
        "sys.stdout.buffer.write(t.make_sbom(t.RECORD, t.PACKAGES))"
    )
    here = str(__file__).rpartition("/")[0]
    found = {
        subprocess.run(
            [sys.executable, "-c", script, here],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {make_sbom(RECORD, PACKAGES)}


def test_serial_number_and_time_are_the_images_own(made):
    assert made["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"
    other = json.loads(make_sbom(replace(RECORD, sha256=BASE), PACKAGES))
    assert made["serialNumber"] != other["serialNumber"]
    undated = json.loads(make_sbom(replace(RECORD, source_date_epoch=None), PACKAGES))
    assert undated["metadata"]["timestamp"] == "2026-02-03T04:05:06+00:00"


def test_the_image_is_what_it_is_about_and_the_base_its_ancestor(made):
    image = made["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", "tool", "1.2")
    assert image["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    assert image["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    (base,) = image["pedigree"]["ancestors"]
    assert base["hashes"] == [{"alg": "SHA-256", "content": BASE}]
    assert base["purl"].startswith(f"pkg:oci/python@sha256:{BASE}?repository_url=docker.io/")


@pytest.mark.parametrize(
    ("name", "purl"),
    [
        ("libc6", "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12"),
        ("zlib1g", "pkg:deb/debian/zlib1g@1:1.2.13?arch=amd64&distro=debian-12"),
        ("Ruamel.YAML", "pkg:pypi/ruamel-yaml@0.18"),
        ("mkl", "pkg:conda/mkl@1.0?build=h1_0&channel=conda-forge&subdir=linux-64"),
        ("Python", "pkg:generic/python@3.11.9"),
    ],
)
def test_a_package_has_its_purl(made, name, purl):
    assert component(made, name)["purl"] == purl


def test_an_rpm_has_its_epoch_apart():
    package = Package("rpm", "bash", "1:5.1-2.el9", architecture="x86_64")
    made = json.loads(make_sbom(RECORD, Packages((package,), distribution="rocky-9.4")))
    purl = "pkg:rpm/rocky/bash@5.1-2.el9?arch=x86_64&distro=rocky-9.4&epoch=1"
    assert component(made, "bash")["purl"] == purl


@pytest.mark.parametrize(
    ("name", "licences"),
    [
        ("attrs", [{"license": {"id": "MIT"}}]),
        ("Ruamel.YAML", [{"expression": "MIT OR Apache-2.0"}]),
        ("odd", [{"license": {"name": "Ours, ask us"}}]),
        ("libc6", [{"license": {"id": "MIT"}}, {"license": {"name": "GPL-2+"}}]),
    ],
)
def test_a_licence_is_an_identifier_where_spdx_knows_it(made, name, licences):
    assert component(made, name)["licenses"] == licences


def test_the_same_package_in_two_places_is_there_twice():
    twice = tuple(Package("python", "numpy", "2.3", place) for place in ("a", "b"))
    made = json.loads(make_sbom(RECORD, Packages(twice)))
    places = [found["properties"][0]["value"] for found in made["components"]]
    assert sorted(places) == ["a", "b"]


def test_an_interpreter_that_the_distribution_brought_is_not_told_twice():
    packaged = Package("deb", "python3.11-minimal", "3.11.2-6+deb12u9")
    packages = Packages((packaged,), interpreters={"usr/lib": "3.11.2"}, distribution="debian-12")
    names = [found["name"] for found in json.loads(make_sbom(RECORD, packages))["components"]]
    assert sorted(names) == ["debian", "python3.11-minimal"]


def test_an_image_of_which_nothing_is_known_has_a_bill_too():
    bare = ImageRecord(
        sha256=DIGEST, size=5, name="x", created_utc="2026-02-03T04:05:06Z", origin="adopted"
    )
    made = json.loads(make_sbom(bare, Packages()))
    assert made["metadata"]["component"]["version"] == f"sha256:{DIGEST}"
    assert "components" not in made


def test_the_record_names_it():
    assert describe_sbom("x.cdx.json", b"image") == {
        "name": "x.cdx.json",
        "sha256": DIGEST,
        "format": "CycloneDX 1.6",
    }


def test_the_library_is_not_loaded_before_it_is_needed():
    script = "import valska.external_tools.core.images.sbom, sys; print('cyclonedx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
