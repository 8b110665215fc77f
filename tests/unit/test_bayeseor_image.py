"""BayesEoR's definition: read, its arguments, its locks, and what it refuses."""

import re
import subprocess
import tempfile

import pytest

from valska.external_tools.bayeseor.driver import FINISHED
from valska.external_tools.bayeseor.stages import PROGRAM
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.building.draft import BuildRequest, draft_build
from valska.external_tools.core.images.definition import (
    check_arguments,
    find_definition,
    read_definition,
)
from valska.external_tools.core.images.store import ImageStore

DEFINITION = read_definition(find_definition("bayeseor"))
FOLDER = DEFINITION.path.parent
COMMIT = "6bb4494189d4383fed2c817af4bc707ba6f5126a"


@pytest.fixture
def draft(tmp_path):
    def make(**arguments):
        store = ImageStore(tmp_path / "store")
        return draft_build(
            BuildRequest(definition=DEFINITION.path, store=store, build_arguments=arguments)
        )

    return make


def test_the_base_is_that_of_the_other_image():
    other = read_definition(find_definition("pyuvsim"))
    assert DEFINITION.header == other.header
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", DEFINITION.header["from"])
    assert "image.base.digest " + DEFINITION.header["from"].split("@")[1] in DEFINITION.text


def test_the_driver_lies_where_stages_start_it():
    assert f"[ -f {PROGRAM} ]" in DEFINITION.text
    assert FINISHED == "finished.json"


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_both_variants_come_from_one_definition(draft, variant):
    drafted = draft(variant=variant)
    assert drafted.lock["name"] == "bayeseor.lock"
    sources = [entry["source"] for entry in drafted.files]
    assert f"bayeseor-{variant}.conda.lock" in sources
    assert DEFINITION.arguments["bayeseor_commit"] == COMMIT


def test_another_variant_is_refused(draft):
    with pytest.raises(UsageError, match="tpu"):
        draft(variant="tpu")
    with pytest.raises(UsageError, match="no build argument"):
        check_arguments(DEFINITION, {"varient": "gpu"})


def test_sources_and_an_environment_can_be_given(draft):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sources", "environment"):
            assert folder in [entry["source"] for entry in draft(**{name: folder}).files]


def test_every_package_of_the_lock_has_digests_and_a_version():
    text = (FOLDER / "bayeseor.lock").read_text()
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[0-9][^ ]* \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_lock_has_what_is_asked_for():
    text = (FOLDER / "bayeseor.lock").read_text()
    wanted = (FOLDER / "bayeseor.in").read_text().split("\n")
    for requirement in (line for line in wanted if line and not line.startswith("#")):
        assert f"\n{requirement} \\\n" in text


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_a_conda_lock_is_made_or_says_how_to_make_it(variant):
    text = (FOLDER / f"bayeseor-{variant}.conda.lock").read_text()
    if "@EXPLICIT" not in text:
        assert text.startswith("# Not made yet: ")
        assert f"lock-bayeseor.sh {variant}" in text
        assert len(text.splitlines()) == 1
    else:
        assert text.count("# sha256 ") == text.count("#") - text.count("# sha256 ") - 1


def test_the_lock_step_says_what_it_needs(tmp_path):
    script = FOLDER / "lock-bayeseor.sh"
    told = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert "micromamba" in told
    assert subprocess.run([script, "tpu"], capture_output=True, check=False).returncode == 2
    done = subprocess.run(
        ["/bin/bash", script, "cpu"], env={"PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "no micromamba" in done.stderr) == (3, True)


def test_the_licence_of_multinest_is_told():
    assert "academic use only" in DEFINITION.text
    assert "LicenseRef-MultiNest-academic-use-only" in DEFINITION.text
