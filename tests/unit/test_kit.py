"""Kits: the same bytes for the same content; what is no kit, or no whole one, is refused."""

import json
import os
import re
import tarfile

import pytest
from kitmade import (
    DEFINITION,
    PINNED,
    PLATFORM,
    WHEEL,
    base_file,
    files_in,
    image_files,
    input_file,
    kit_of,
    oci_archive,
    tar_of,
    wheel_file,
    write,
)

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.document import Kind
from valska.external_tools.core.kit.fetching import fetch
from valska.external_tools.core.kit.loading import load
from valska.external_tools.core.kit.parts import KitPlan, KitRequest, Part, Purpose
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.kit.targets import Target
from valska.external_tools.core.utils import sha256_bytes


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "store")


def test_a_kit_is_taken_into_a_store_whole(tmp_path, store):
    files = (base_file(), *image_files(), input_file(), wheel_file())
    path = write(tmp_path, kit_of(*files))
    assert [file.path for file in load(path, store).new] == [file[1] for file in files]
    image = sha256_bytes(b"an image")
    assert store.get(image).name == "tool"
    assert store.sif(image).read_bytes() == b"an image"
    assert store.extras(image, ".def").read_text() == DEFINITION
    supplies = Supplies(store.root)
    assert supplies.input(sha256_bytes(b"data")).read_bytes() == b"data"
    assert [p.name for p in supplies.wheels([sha256_bytes(WHEEL)])] == ["tiny-1.0-py3-none-any.whl"]
    pin = files[0][1].rpartition("/")[2].partition(".")[0]
    assert supplies.base(pin, PLATFORM).read_bytes() == files[0][2]
    before = files_in(store)
    assert load(path, store).new == ()
    assert files_in(store) == before
    assert list(store.root.glob(".*")) == []


def test_a_dry_run_checks_all_and_stores_nothing(tmp_path, store):
    path = write(tmp_path, kit_of(input_file(), wheel_file()))
    assert len(load(path, store, dry_run=True).new) == 2
    assert files_in(store) == []


def link(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def renamed(old, new):
    def change(data):
        return json.dumps(data).replace(old, new).encode()

    return change


def changed(**fields):
    def change(data):
        data["files"][0].update(fields)
        return json.dumps(data).encode()

    return change


INPUT = input_file()
HOSTILE = {
    "not a tar": (lambda: b"no tar" * 200, "no header"),
    "empty": (lambda: b"", "cut short"),
    "another tar": (lambda: tar_of([("x", b"y")]), "not a kit"),
    "no JSON": (lambda: kit_of(INPUT, change=lambda _: b"{"), "not JSON"),
    "deep JSON": (lambda: kit_of(INPUT, change=lambda _: b"[" * 100_000), "not JSON"),
    "another version": (
        lambda: kit_of(INPUT, change=renamed('"schema_version": "1.0"', '"schema_version": "2.0"')),
        "schema_version",
    ),
    "a place above": (
        lambda: kit_of(INPUT, change=changed(path="inputs/sha256/../../../x")),
        "where no input belongs",
    ),
    "an absolute place": (
        lambda: kit_of(INPUT, change=changed(path="/etc/cron.d/x")),
        "where no input belongs",
    ),
    "an image's receipt": (
        lambda: kit_of(("image-file", f"images/sha256/{'a' * 64}.sif.receipt", b"x", "x")),
        "where no image-file belongs",
    ),
    "a name that is no file's": (lambda: kit_of(wheel_file(name="../x.whl")), "which is called"),
    "a place of another digest": (
        lambda: kit_of(("input", f"inputs/sha256/{'a' * 64}", b"data", "data")),
        "not its digest",
    ),
    "twice": (lambda: kit_of(INPUT, INPUT), "twice"),
    "another name in the tar": (
        lambda: kit_of(INPUT, entries=lambda p: [*p[:2], ("inputs/x", p[2][1])]),
        "where inputs/sha256/",
    ),
    "a link": (
        lambda: kit_of(INPUT, entries=lambda p: [*p[:2], (link(p[2][0], tarfile.SYMTYPE), b"")]),
        "no plain file",
    ),
    "a hard link": (
        lambda: kit_of(INPUT, entries=lambda p: [*p[:2], (link(p[2][0], tarfile.LNKTYPE), b"")]),
        "no plain file",
    ),
    "a device": (
        lambda: kit_of(INPUT, entries=lambda p: [*p[:2], (link(p[2][0], tarfile.CHRTYPE), b"")]),
        "no plain file",
    ),
    "a long name": (
        lambda: kit_of(INPUT, entries=lambda p: [*p[:2], ("x" * 300, b"data")]),
        "no plain file",
    ),
    "a size that is not stated": (
        lambda: kit_of(INPUT, entries=lambda p: [*p[:2], (p[2][0], b"data and more")]),
        "of 13 bytes where",
    ),
    "content that is not stated": (
        lambda: kit_of(INPUT, entries=lambda p: [*p[:2], (p[2][0], b"atad")]),
        "is altered",
    ),
    "sums that do not agree": (
        lambda: kit_of(INPUT, entries=lambda p: [p[0], (p[1][0], p[1][1][::-1]), *p[2:]]),
        "does not agree",
    ),
    "a file missing": (lambda: kit_of(INPUT, entries=lambda p: p[:2]), "ends before"),
    "a file more": (lambda: kit_of(INPUT, entries=lambda p: [*p, ("x", b"")]), "more files"),
    "something after the end": (lambda: kit_of(INPUT) + b"x" * 512, "goes on after its end"),
    "an image without a record": (lambda: kit_of(image_files()[2]), "no record of the image"),
    "an image with another's record": (
        lambda: kit_of(*image_files(size=7)),
        "record of another image",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_kit_is_refused_and_leaves_nothing(tmp_path, store, what):
    made, told = HOSTILE[what]
    with pytest.raises(VerificationError, match=re.escape(told)) as caught:
        load(write(tmp_path, made()), store)
    assert caught.value.exit_code == 5
    assert files_in(store) == []


def altered_blob(files):
    name = next(name for name, data in files.items() if data == b"a layer")
    files[name] = b"another"


def lost_blob(files):
    del files[next(name for name, data in files.items() if data == b"a layer")]


def other_index(files):
    files["index.json"] = json.dumps({"manifests": [{"digest": f"sha256:{'a' * 64}"}]}).encode()


@pytest.mark.parametrize(
    "made",
    [
        lambda: oci_archive(change=altered_blob),
        lambda: oci_archive(change=lost_blob),
        lambda: oci_archive(change=other_index),
        lambda: (PINNED, oci_archive()[1]),
        lambda: (PINNED, b"no archive"),
        lambda: oci_archive(extra=[("../evil", b"x")]),
        lambda: oci_archive(extra=[(link("blobs/x", tarfile.SYMTYPE), b"")]),
    ],
)
def test_a_base_that_is_not_what_its_pin_says_is_refused(tmp_path, store, made):
    pin, archive = made()
    kit = kit_of(("base", f"bases/sha256/{pin}.oci.tar", archive, "base"))
    with pytest.raises(VerificationError) as caught:
        load(write(tmp_path, kit), store)
    assert os.fspath(store.root) not in caught.value.message
    assert files_in(store) == []
    place = Supplies(store.root).base_place(pin)
    place.parent.mkdir(parents=True)
    place.write_bytes(archive)
    with pytest.raises(VerificationError):
        Supplies(store.root).base(pin, PLATFORM)


@pytest.mark.parametrize("kept", [511, 512, 5000, -1])
def test_a_kit_that_is_cut_short_is_refused(tmp_path, store, kept):
    whole = kit_of(*image_files(), input_file(b"d" * 5000), wheel_file())
    end = whole.rstrip(b"\0")
    with pytest.raises(VerificationError, match=r"cut short|ends before"):
        load(write(tmp_path, end[:kept]), store)
    assert files_in(store) == []


@pytest.mark.parametrize("place", range(0, 12_000, 997))
def test_a_kit_with_an_altered_byte_is_refused(tmp_path, store, place):
    kit = bytearray(kit_of(input_file(b"d" * 9000)))
    kit[place] ^= 1
    with pytest.raises(VerificationError):
        load(write(tmp_path, bytes(kit)), store)
    assert files_in(store) == []


def test_no_kit(tmp_path, store):
    with pytest.raises(PrerequisiteError, match="no such kit"):
        load(tmp_path / "none.tar", store)


def test_what_a_store_has_already_stays_as_it_is(tmp_path, store):
    load(write(tmp_path, kit_of(*image_files())), store)
    image = sha256_bytes(b"an image")
    stamp = store.sif(image).stat()
    other = image_files(created_utc="2027-01-01T00:00:00Z")
    loaded = load(write(tmp_path, kit_of(*other, input_file())), store)
    assert [file.kind for file in loaded.new] == [Kind.INPUT]
    assert store.sif(image).stat() == stamp
    assert store.get(image).created_utc == "2026-01-02T03:04:05Z"


def test_what_was_altered_in_the_store_is_replaced(tmp_path, store):
    files = (base_file(), *image_files(), input_file(), wheel_file())
    path = write(tmp_path, kit_of(*files))
    load(path, store)
    for place in store.root.rglob("*"):
        if place.is_file() and place.suffix not in (".json", ".receipt"):
            place.write_bytes(place.read_bytes()[::-1] + b"x")
    loaded = load(path, store)
    assert {file.kind for file in loaded.new} == {"base", "image", "image-file", "input", "wheel"}
    assert load(path, store).new == ()
    store.check(sha256_bytes(b"an image"))


def plan_of(store, *parts):
    target = Target(kind="definition", name="tool", identity="1" * 64)
    plan = KitPlan(target=target, purpose=Purpose.ALL, platform=PLATFORM, parts=parts)
    return plan, KitRequest(target=target, purpose=Purpose.ALL, store=store)


def part_of(file, source=None):
    kind, path, content, name = file
    return Part(
        kind=Kind(kind),
        path=path,
        name=name,
        origin="here",
        source=content if source is None else source,
        sha256=sha256_bytes(content),
        size=len(content),
    )


def test_the_same_parts_give_the_same_kit_which_tar_reads(tmp_path, store):
    plan, request = plan_of(store, part_of(input_file()), part_of(wheel_file()))
    kits = [fetch(plan, tmp_path / name, request) for name in ("one.tar", "two.tar")]
    one, two = (kit.path.read_bytes() for kit in kits)
    assert one == two
    assert kits[0].sha256 == load(kits[0].path, store).sha256
    with tarfile.open(kits[0].path) as tar:
        assert tar.extractfile(input_file()[1]).read() == b"data"


def test_what_does_not_have_its_digest_is_not_packed(tmp_path, store):
    source = tmp_path / "data"
    source.write_bytes(b"atad")
    plan, request = plan_of(store, part_of(input_file(), source))
    with pytest.raises(VerificationError, match="has been altered"):
        fetch(plan, tmp_path / "kit.tar", request)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_place_that_cannot_be_written_is_named(tmp_path, store):
    plan, request = plan_of(store, part_of(input_file()))
    with pytest.raises(UsageError, match="no such directory"):
        fetch(plan, tmp_path / "none" / "kit.tar", request)
    with pytest.raises(PrerequisiteError, match="is a directory"):
        fetch(plan, tmp_path, request)


def test_a_store_without_room_is_named(tmp_path, store):
    path = write(tmp_path, kit_of(input_file(b"")))
    data = path.read_bytes()
    huge = kit_of(input_file(b""), change=changed(size=10**15))
    assert len(huge) == len(data)
    path.write_bytes(huge)
    with pytest.raises(ValskaError, match="has room for") as caught:
        load(path, store)
    assert caught.value.exit_code == 1
    assert files_in(store) == []
