"""What of an archive is written down to compare it: no more than there is a limit to."""

import json
import tempfile
import zlib

import pytest
from archives import entries, entry, finished, pack, write_tar
from sweeps import make_sweep

from valska.external_tools.core.archive import bag
from valska.external_tools.core.archive.container import trailer
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.places import TAGS
from valska.external_tools.core.archive.selection import Choice, select_sweep
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.comparison import packed
from valska.external_tools.core.comparison.packed import packed_side
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.utils import load_json, sha256_bytes

CONFIG = "r1/data/bundle/config"


def told(path):
    with pytest.raises(VerificationError) as caught, packed_side(path):
        pass
    return caught.value.message


@pytest.mark.parametrize(
    "names",
    [
        [f"{CONFIG}/{number}" for number in range(60)],
        [f"{CONFIG}/{number}/{'a/' * 20}f" for number in range(3)],
    ],
    ids=["files", "directories"],
)
def test_empty_files_and_their_directories_are_counted(tmp_path, monkeypatch, names):
    path = write_tar(tmp_path / "x.tar.zst", [entry(name, b"") for name in names])
    assert "too many" not in told(path)
    monkeypatch.setattr(packed, "_MOST_BYTES", 50 * packed._ENTRY_BYTES)
    assert told(path).startswith("too many or too large")
    assert "in x.tar.zst: data/bundle" in told(path)


def test_what_would_fill_the_disk_is_not_written(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar.zst", [entry(f"{CONFIG}/large", bytes(1 << 20))])
    assert "too many" not in told(path)
    monkeypatch.setattr(packed, "_MOST_BYTES", 1 << 20)
    assert "too large" in told(path)


# --- what is not as it was packed ----------------------------------------------------------------


def forged(archive, path, changes=None, without=""):
    """Pack an archive again as valska would have: the bag's manifests agree with what is in it."""
    held = {name.partition("/")[2]: (m, data) for name, (m, data) in entries(archive).items()}
    kept = {name: data for name, (_, data) in held.items() if not without or without not in name}
    new = {**kept, **(changes or {})}
    payload = {k: v for k, v in new.items() if k.startswith("data/") and v is not None}
    new["manifest-sha256.txt"] = bag.manifest_text({k: sha256_bytes(v) for k, v in payload.items()})
    info, sizes = new["bag-info.txt"], [len(v) for v in payload.values()]
    said, true = bag.said_oxum(info), bag.payload_oxum(sizes)
    new["bag-info.txt"] = info.replace(said.encode(), true.encode())
    new["tagmanifest-sha256.txt"] = bag.manifest_text({k: sha256_bytes(new[k]) for k in TAGS})
    write_tar(path, [(member, new[name]) for name, (member, _) in held.items() if name in new])
    data = path.read_bytes()
    path.write_bytes(data + trailer(len(data), zlib.crc32(data)))
    return path


@pytest.fixture
def of_bundle(tmp_path):
    pack(finished(tmp_path), tmp_path / "a.tar.zst")
    return tmp_path / "a.tar.zst"


@pytest.fixture
def of_sweep(tmp_path):
    sweep = make_sweep(tmp_path, points=("a", "b"))
    path = tmp_path / "s.tar.zst"
    write_archive(select_sweep(sweep, Choice()), path, Description())
    return path


def document(archive, **changes):
    held = next(data for name, (_, data) in entries(archive).items() if name.endswith("chive.json"))
    return {"archive.json": json.dumps({**json.loads(held), **changes}).encode()}


def sealed(path):
    with packed_side(path) as (side, found):
        return side, found.faults


def test_an_archive_that_is_as_it_was_packed_has_no_faults(tmp_path, of_bundle, of_sweep):
    for path in (of_bundle, of_sweep, forged(of_sweep, tmp_path / "x")):
        assert sealed(path)[1] == ()


@pytest.mark.parametrize("folder", ["config", "inputs", "outputs"])
def test_what_was_altered_in_an_archive_is_told(tmp_path, of_bundle, folder):
    of = f"/data/bundle/{folder}/"
    name = next(one.partition("/")[2] for one in entries(of_bundle) if of in one)
    path = forged(of_bundle, tmp_path / "x", {name: b"jello\n"})
    assert f"{name} (altered)" in sealed(path)[1]


@pytest.mark.parametrize("units", [[], ["points/nothing"], ["points/a", "points/nothing"]])
def test_units_that_the_sweep_does_not_have_are_refused(tmp_path, of_sweep, units):
    path = forged(of_sweep, tmp_path / "x.tar.zst", document(of_sweep, units=units))
    message = told(path)
    assert message.startswith(f"{path} is not as it was packed: archive.json names")


def test_units_that_are_packed_and_not_named_are_told(tmp_path, of_sweep):
    path = forged(of_sweep, tmp_path / "x.tar.zst", document(of_sweep, units=["points/a"]))
    side, faults = sealed(path)
    assert side.manifest.run_id == "a"
    assert "data/bundle/points/b (unexpected)" in faults


def test_units_that_are_named_and_not_packed_are_told(tmp_path, of_sweep):
    path = forged(of_sweep, tmp_path / "x.tar.zst", without="bundle/points/b/")
    assert "data/bundle/points/b/manifest.json (missing)" in sealed(path)[1]


@pytest.mark.parametrize("name", ["manifest.json", "sweep_manifest.json", "common.json"])
def test_faults_are_told_by_the_archive_and_the_path_in_it(tmp_path, of_bundle, of_sweep, name):
    archive = of_bundle if name == "manifest.json" else of_sweep
    place = f"data/bundle/{name}"
    for number, change in enumerate(({"changes": {place: b"{"}}, {"without": place})):
        path = forged(archive, tmp_path / f"{number}.tar.zst", **change)
        message = told(path)
        assert message.startswith(f"{path} is not as it was packed: ")
        assert "data/bundle" in message
        assert tempfile.gettempdir() + "/valska-" not in message


def test_what_fails_while_it_is_compared_is_told_by_its_path_in_the_archive(of_sweep):
    with pytest.raises(VerificationError) as caught, packed_side(of_sweep) as (side, _):
        load_json(side.sweep.path / "points/c/manifest.json")
    assert "s.tar.zst is not as it was packed: " in caught.value.message
    assert "data/bundle/points/c/manifest.json" in caught.value.message
    assert "valska-" not in caught.value.message


def test_what_is_no_fault_of_the_archive_stays_what_it_is(of_bundle):
    with pytest.raises(ZeroDivisionError), packed_side(of_bundle):
        raise ZeroDivisionError
    with pytest.raises(UsageError, match="elsewhere"), packed_side(of_bundle):
        raise UsageError("elsewhere")
