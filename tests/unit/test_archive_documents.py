"""A fuzzer for what archives say of themselves: manifests, records, crate; all digests hold."""

import json
from contextlib import suppress

import pytest
from archives import entries, finished, pack
from forged import forged, sha256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweeps import make_sweep

from valska.external_tools.core.archive import bag
from valska.external_tools.core.archive.document import parse_document
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.selection import Choice, select_sweep
from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.archive.verification import verify_archive
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.comparison.packed import packed_side
from valska.external_tools.core.errors import ValskaError, VerificationError
from valska.external_tools.core.signing.making import prepare

CRATE = "data/ro-crate-metadata.json"
SUMS = "data/bundle/SHA256SUMS"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The archive of a run, and that of a sweep."""
    folder = tmp_path_factory.mktemp("archives")
    pack(finished(folder), folder / "run.tar.zst")
    sweep = make_sweep(folder)
    write_archive(select_sweep(sweep, Choice()), folder / "sweep.tar.zst", Description())
    return {name: Read(folder / f"{name}.tar.zst") for name in ("run", "sweep")}


class Read:
    """An archive, and the JSON documents in it."""

    def __init__(self, path):
        self.path = path
        self.files = {
            name.partition("/")[2]: content
            for name, (_, content) in entries(path).items()
            if content is not None
        }
        self.documents = sorted(name for name in self.files if name.endswith(".json"))


def places(document, place=()):
    """Yield the place of everything in a document."""
    yield place
    inside = ()
    if isinstance(document, dict | list):
        inside = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inside:
        yield from places(value, (*place, key))


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "../..",
            "/etc/passwd",
            "a\0b",
            "\ud800",
            "\x1b[2J",
            "0" * 64,
            "2026-13-45T99:99:99Z",
            "..",
        ]
    ),
    st.sampled_from([[], {}, [None], [[]], {"a": 1}, {"sha256": "0" * 64}, ["x"] * 3]),
)


def changed(data, document):
    """Replace, remove or rename something in a document."""
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(places(document))))
        odd = data.draw(ODD)
        if not place:
            return odd
        holder = document
        for key in place[:-1]:
            holder = holder[key]
        last = place[-1]
        how = data.draw(st.sampled_from(["replace", "remove", "rename"]))
        if how == "remove":
            del holder[last]
        elif how == "rename" and isinstance(holder, dict):
            holder[str(odd)] = holder.pop(last)
        else:
            holder[last] = odd
        if not isinstance(document, dict | list):
            return document
    return document


def agreeing(files, name, content):
    """Return all that has to change with a document, for every digest to hold."""
    new = {**files, name: content}
    for sums in (one for one in files if one.endswith("SHA256SUMS")):
        base = sums.removesuffix("SHA256SUMS")
        lines = [line.split("  ", 1) for line in new[sums].decode().splitlines()]
        new[sums] = "".join(
            f"{sha256(new[base + path]) if base + path in new else digest}  {path}\n"
            for digest, path in lines
        ).encode()
    if name != "archive.json":
        said = {**json.loads(new["archive.json"]), "seal": sha256(new[SUMS])}
        new["archive.json"] = json.dumps(said).encode()
    if name != CRATE:
        crate = json.loads(new[CRATE])
        for one in crate["@graph"]:
            file = new.get(f"data/{one['@id']}")
            if file is not None and "sha256" in one:
                one |= {"sha256": sha256(file), "contentSize": str(len(file))}
        new[CRATE] = json.dumps(crate).encode()
    return {one: content for one, content in new.items() if content != files[one]}


def survives(path):
    """Read an archive in every way; only errors of ours may come."""
    for fast in (False, True):
        with suppress(ValskaError):
            verify_archive(path, fast)
    with suppress(ValskaError), packed_side(path):
        pass
    with suppress(ValskaError):
        prepare(path)
    with suppress(ValskaError):
        unpack_archive(path, path.parent, path.parent / "there")


@pytest.mark.parametrize("kind", ["run", "sweep"])
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_document_makes_a_reader_fail(archives, kind, tmp_path_factory, data):
    read = archives[kind]
    name = data.draw(st.sampled_from(read.documents))
    document = changed(data, json.loads(read.files[name]))
    content = json.dumps(document).encode()
    path = tmp_path_factory.mktemp("fuzz") / "x.tar.zst"
    forged(read.path, path, instead=agreeing(read.files, name, content))
    survives(path)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_half_of_a_surrogate_pair_makes_no_reader_fail(archives, kind, tmp_path):
    """Jobs write it into their records for a byte that is not of UTF-8."""
    read = archives[kind]
    for name in read.documents:
        document = json.loads(read.files[name])
        for more in ("more", *(key for key, value in document.items() if isinstance(value, str))):
            path = tmp_path / "x.tar.zst"
            content = json.dumps({**document, more: "\ud800"}).encode()
            forged(read.path, path, instead=agreeing(read.files, name, content))
            survives(path)


def test_a_record_with_bytes_that_are_not_of_utf_8_is_packed(tmp_path):
    bundle = finished(tmp_path)
    (path,) = bundle.records.glob("*.json")
    record = json.loads(path.read_text())
    record["job"]["name"] = record["runner"]["command"][0] = "caf\udce9"
    path.write_text(json.dumps(record))
    pack(bundle, tmp_path / "x.tar.zst")
    assert verify_archive(tmp_path / "x.tar.zst").findings == ()
    packed = {
        name.partition("/")[2]: data for name, (_, data) in entries(tmp_path / "x.tar.zst").items()
    }
    assert "caf\\udce9" in packed[CRATE].decode()
    json.loads(packed[CRATE])


LINES = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.builds(
            "{}  {}".format,
            st.one_of(st.just("0" * 64), st.text("0123456789abcdefABCDEF", max_size=66)),
            st.one_of(
                st.text(max_size=20), st.sampled_from(["data/bundle", "../x", "manifest.json"])
            ),
        ),
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["manifest-sha256.txt", "tagmanifest-sha256.txt", "bag-info.txt", SUMS]),
    text=st.one_of(LINES.map("\n".join), LINES.map("\r\n".join)),
    keep=st.booleans(),
)
def test_no_list_of_digests_makes_a_reader_fail(archives, tmp_path_factory, name, text, keep):
    read = archives["run"]
    content = text.encode("utf-8", "surrogatepass")
    content = read.files[name] + content if keep else content
    path = tmp_path_factory.mktemp("fuzz") / "x.tar.zst"
    forged(read.path, path, after={name: content})
    survives(path)


@settings(max_examples=500)
@given(st.binary() | LINES.map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_manifest_or_refused(data):
    with suppress(bag.BagError):
        assert all(len(digest) == 64 for digest in bag.parse_manifest(data).values())


@settings(max_examples=500)
@given(st.binary() | ODD.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_document_or_refused(data):
    with suppress(VerificationError):
        assert parse_document(data).schema_version
