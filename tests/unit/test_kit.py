"""Kits: what is in them, what is refused, and what a build without a network lacks."""

import http.server
import json
import os
import re
import socketserver
import tarfile
import threading
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images.building.base import own_base
from valska.external_tools.core.images.definition import read_definition, shipped_definitions
from valska.external_tools.core.images.locking.document import read_lock
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.document import Kind, KitDocument, KitFile, sums_of
from valska.external_tools.core.kit.downloading import Downloads
from valska.external_tools.core.kit.fetching import fetch
from valska.external_tools.core.kit.loading import load
from valska.external_tools.core.kit.offline import lay_out_wheels, missing_parts, require_parts
from valska.external_tools.core.kit.parts import KitPlan, KitRequest, Part, Purpose
from valska.external_tools.core.kit.planning import plan_kit
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.kit.targets import Target
from valska.external_tools.core.kit.wheels import PackageFile, find_files, fits, requirements
from valska.external_tools.core.utils import sha256_bytes

PINNED = "c" * 64
PLATFORM = "linux/amd64"
WHEEL = b"a wheel"
LOCK = f"""\
# Locked by valska 0.2: valska lock tool.def
# base-digest: sha256:{PINNED}
# platform: linux/amd64
# python: 3.11
# source-date-epoch: 1767225600
tiny==1.0 \\
    --hash=sha256:{sha256_bytes(WHEEL)} \\
    --hash=sha256:{"e" * 64}
    # via -r tool.in
"""
DEFINITION = f"""\
Bootstrap: docker
From: 127.0.0.1:9/base@sha256:{PINNED}

%files
    tool.lock /opt/tool.lock

%post
    true
"""


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "store")


@pytest.fixture
def definition(tmp_path):
    (tmp_path / "tool.lock").write_text(LOCK)
    (tmp_path / "tool.def").write_text(DEFINITION)
    return tmp_path / "tool.def"


@pytest.fixture
def draft(store, definition):
    """As much of a build's draft as the kit asks for."""

    def draft(path=definition):
        read = read_definition(path)
        return SimpleNamespace(
            request=SimpleNamespace(store=store),
            definition=read,
            base=own_base(read, {}),
            files=tuple({"source": source} for source, _ in read.pairs({})),
        )

    return draft


def put_wheel(store, name="tiny-1.0-py3-none-any.whl", content=WHEEL):
    place = Supplies(store.root).wheel_place(sha256_bytes(content), name)
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    return place


def oci_archive(layer=b"a layer", change=None, extra=()):
    """Return an OCI archive and the digest by which it is pinned."""
    config = b'{"os": "linux", "architecture": "amd64"}'
    blobs = {sha256_bytes(data): data for data in (layer, config)}
    media = "application/vnd.oci.image"
    parts = [
        {"digest": f"sha256:{sha256_bytes(data)}", "size": len(data), "mediaType": f"{media}.x"}
        for data in (config, layer)
    ]
    manifest = json.dumps(
        {"mediaType": f"{media}.manifest.v1+json", "config": parts[0], "layers": parts[1:]}
    ).encode()
    pin = sha256_bytes(manifest)
    index = json.dumps({"manifests": [{"digest": f"sha256:{pin}"}]}).encode()
    files = {"index.json": index, "oci-layout": b"{}"}
    files |= {f"blobs/sha256/{name}": data for name, data in {**blobs, pin: manifest}.items()}
    if change:
        change(files)
    return pin, tar_of([*files.items(), *extra])


def tar_of(entries):
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return buffer.getvalue()


def entry(kind, path, content, name="x"):
    return KitFile(
        path=path, sha256=sha256_bytes(content), size=len(content), kind=Kind(kind), name=name
    )


def kit_of(*files, change=None, entries=None):
    """Return a kit of files (kind, path, content, name) as `valska fetch` would write it."""
    listed = tuple(entry(*file) for file in files)
    document = KitDocument(
        purpose="all",
        platform=PLATFORM,
        targets=({"kind": "definition", "name": "tool"},),
        files=listed,
    )
    data = document.to_bytes()
    if change:
        data = change(json.loads(data))
    parts = [("kit.json", data), ("SHA256SUMS", sums_of(data, listed))]
    parts += [(file[1], file[2]) for file in files]
    return tar_of(entries(parts) if entries else parts)


def wheel_file(content=WHEEL, name="tiny-1.0-py3-none-any.whl"):
    return ("wheel", f"wheels/sha256/{sha256_bytes(content)}", content, name)


def input_file(content=b"data"):
    return ("input", f"inputs/sha256/{sha256_bytes(content)}", content, "data")


def image_files(content=b"an image", **more):
    sha256 = sha256_bytes(content)
    record = ImageRecord(
        **{
            "sha256": sha256,
            "size": len(content),
            "name": "tool",
            "created_utc": "2026-01-02T03:04:05Z",
            "origin": "built",
            **more,
        }
    )
    place = f"images/sha256/{sha256}"
    return (
        ("image-file", f"{place}.def", DEFINITION.encode(), "tool.def"),
        ("image-file", f"{place}.json", record.to_bytes(), "tool.json"),
        ("image", f"{place}.sif", content, "tool"),
    )


def base_file():
    pin, archive = oci_archive()
    return ("base", f"bases/sha256/{pin}.oci.tar", archive, f"docker://x/base@sha256:{pin}")


def write(tmp_path, kit):
    path = tmp_path / "kit.tar"
    path.write_bytes(kit)
    return path


def files_in(store):
    """Return what can be seen in a store, but for its empty directories."""
    found = (path for path in store.root.rglob("*") if path.is_file())
    return sorted(path.relative_to(store.root).as_posix() for path in found)


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
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / input_file()[1]).read_bytes() == b"data"


def test_what_does_not_have_its_digest_is_not_packed(tmp_path, store):
    source = tmp_path / "data"
    source.write_bytes(b"atad")
    plan, request = plan_of(store, part_of(input_file(), source))
    with pytest.raises(VerificationError, match="has been altered"):
        fetch(plan, tmp_path / "kit.tar", request)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_place_that_cannot_be_written_is_named(tmp_path, store):
    plan, request = plan_of(store, part_of(input_file()))
    with pytest.raises(PrerequisiteError, match="no such directory"):
        fetch(plan, tmp_path / "none" / "kit.tar", request)
    with pytest.raises(PrerequisiteError, match="is a directory"):
        fetch(plan, tmp_path, request)


def test_a_build_without_a_network_names_all_that_it_lacks(draft, store):
    missing = missing_parts(draft())
    assert [(one.kind, one.name) for one in missing] == [
        ("base", f"docker://127.0.0.1:9/base@sha256:{PINNED}"),
        ("wheel", "tiny==1.0"),
    ]
    with pytest.raises(PrerequisiteError, match=r"base docker://.*; wheel tiny==1\.0") as caught:
        require_parts(draft())
    assert "valska fetch tool.def --for build" in caught.value.hint
    assert not store.root.exists()


def test_what_the_store_has_is_not_missing(draft, store, definition):
    pin, archive = oci_archive()
    place = Supplies(store.root).base_place(pin)
    place.parent.mkdir(parents=True)
    place.write_bytes(archive)
    definition.write_text(DEFINITION.replace(PINNED, pin))
    assert [one.kind for one in missing_parts(draft())] == ["wheel"]
    put_wheel(store)
    assert missing_parts(draft()) == ()
    require_parts(draft())
    place.write_bytes(archive[:-10240] + b"x" * 10240)
    with pytest.raises(VerificationError):
        require_parts(draft())


def test_wheels_for_another_python_do_not_count(draft, store, tmp_path):
    put_wheel(store, "tiny-1.0-cp312-cp312-manylinux_2_28_x86_64.whl")
    assert "tiny==1.0" in [one.name for one in missing_parts(draft())]
    assert lay_out_wheels(draft(), tmp_path / "none") == 0


def test_wheels_are_laid_out_as_copies(draft, store, tmp_path):
    place = put_wheel(store)
    put_wheel(store, "other-1.0-py3-none-any.whl", b"of another lock")
    assert lay_out_wheels(draft(), tmp_path / "w" / "wheels") == 1
    (copy,) = (tmp_path / "w" / "wheels").iterdir()
    copy.write_bytes(b"altered by a build")
    assert place.read_bytes() == WHEEL


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("# python: 3.11\n", "", "for which Python"),
        (
            f"\\\n    --hash=sha256:{sha256_bytes(WHEEL)} \\\n    --hash=sha256:{'e' * 64}",
            "",
            "no hash",
        ),
    ],
)
def test_a_lock_that_cannot_be_met_says_why(draft, definition, old, new, why):
    assert old in LOCK
    definition.with_suffix(".lock").write_text(LOCK.replace(old, new))
    told = [one.why or "" for one in missing_parts(draft()) if one.kind != "base"]
    assert any(why in text for text in told)
    with pytest.raises(PrerequisiteError) as caught:
        require_parts(draft())
    assert "No kit can bring that" in caught.value.hint


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("Bootstrap: docker\nFrom: debian:12", "not named by its digest"),
        ("Bootstrap: library\nFrom: x/y/z:sha256." + "a" * 64, "bases of library"),
        ("Bootstrap: docker-archive\nFrom: base.tar", None),
    ],
)
def test_bases_of_other_kinds(draft, definition, header, missing):
    definition.write_text(f"{header}\n%post\n    true\n")
    found = missing_parts(draft())
    assert [one.why is not None and missing in one.why for one in found] == [True] * bool(missing)


def test_the_shipped_locks_are_read_whole():
    for path in shipped_definitions().values():
        lock = read_lock(path.with_suffix(".lock"))
        found = requirements(lock.pins)
        assert len(found) == len(re.findall(r"(?m)^[a-z]", lock.pins)) > 5
        assert sum(len(one.hashes) for one in found) == lock.pins.count("--hash=")
        assert not any(one.conditional for one in found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.b[c]==1.0 --hash=sha256:" + "a" * 64, [("a.b==1.0", 1, False)]),
        ("a==1 ; sys_platform == 'win32' --hash=sha256:" + "a" * 64, [("a==1", 1, True)]),
        ("a @ https://x/a-1.zip#egg=a --hash=sha256:" + "a" * 64, [("a", 1, False)]),
        ("# a==1\n--index-url https://x\n\n", []),
    ],
)
def test_the_forms_of_a_requirement(line, expected):
    assert [(r.name, len(r.hashes), r.conditional) for r in requirements(line)] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-2-py3-none-any.whl", True),
        ("a-1-py2-none-any.whl", False),
        ("a-1-py311-none-any.whl", True),
        ("a-1-py312-none-any.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", True),
        ("a-1-cp311-cp311-linux_x86_64.whl", True),
        ("a-1-cp311-cp311-musllinux_1_2_x86_64.whl", True),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp312-abi3-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp311-cp311-macosx_11_0_x86_64.whl", False),
        ("a-1-cp311-cp311-win_amd64.whl", False),
        ("a-1-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
        ("a-1.tar.gz", True),
        ("a.whl", False),
    ],
)
def test_which_files_fit(name, expected):
    assert fits(name, "3.11", PLATFORM) is expected


@pytest.fixture
def index(tmp_path):
    """A package index on loopback, and what was asked of it."""
    root, asked, fails = tmp_path / "index", [], {}
    (root / "simple" / "tiny").mkdir(parents=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=root)

        def do_GET(self):
            asked.append(self.path)
            if fails.get(self.path, 0) > 0:
                fails[self.path] -= 1
                self.send_response(200)
                self.send_header("Content-Length", "999999")
                self.end_headers()
                self.wfile.write(b"only this")
                return
            super().do_GET()

        def log_message(self, *args):
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield SimpleNamespace(url=url, files=root / "simple" / "tiny", asked=asked, fails=fails)
        server.shutdown()
        thread.join()


def environ(index, tmp_path):
    return {
        **os.environ,
        "PIP_INDEX_URL": f"{index.url}/simple",
        "UV_CACHE_DIR": os.fspath(tmp_path / "uv"),
        "UV_HTTP_RETRIES": "0",
    }


def test_the_index_is_asked_for_the_files_of_the_lock(index, tmp_path):
    (index.files / "tiny-1.0-py3-none-any.whl").write_bytes(WHEEL)
    (index.files / "tiny-1.0.tar.gz").write_bytes(b"its source")
    env = environ(index, tmp_path)
    pins = LOCK.replace("e" * 64, sha256_bytes(b"its source"))
    (found,) = find_files(pins, "3.11", PLATFORM, tmp_path, environ=env)
    assert (found.name, found.sha256) == ("tiny-1.0-py3-none-any.whl", sha256_bytes(WHEEL))
    place = tmp_path / "place"
    Downloads(env).get(found, place)
    assert place.read_bytes() == WHEEL
    with pytest.raises(PrerequisiteError, match=r"no file of tiny==1\.0 with a digest"):
        find_files(
            LOCK.replace(sha256_bytes(WHEEL), "d" * 64), "3.11", PLATFORM, tmp_path, environ=env
        )
    with pytest.raises(UsageError, match="no packages are known for"):
        find_files(LOCK, "3.11", "plan9/mips", tmp_path, environ=env)


def test_a_download_that_breaks_off_is_tried_again(index, tmp_path):
    name = "tiny-1.0-py3-none-any.whl"
    (index.files / name).write_bytes(WHEEL)
    path = f"/simple/tiny/{name}"
    file = PackageFile(name, sha256_bytes(WHEEL), index.url + path)
    counts, pauses = [], []
    index.fails[path] = 2
    Downloads(os.environ, sleep=pauses.append).get(file, tmp_path / "x", counts.append)
    assert (tmp_path / "x").read_bytes() == WHEEL
    assert sum(counts) == len(WHEEL)
    assert pauses == [1.0, 2.0]
    index.fails[path] = 3
    with pytest.raises(PrerequisiteError, match="broke off") as caught:
        Downloads(os.environ, sleep=pauses.append).get(file, tmp_path / "x")
    assert caught.value.exit_code == 3


def test_a_download_with_another_digest_is_refused(index, tmp_path):
    name = "tiny-1.0-py3-none-any.whl"
    (index.files / name).write_bytes(b"another wheel")
    file = PackageFile(name, sha256_bytes(WHEEL), f"{index.url}/simple/tiny/{name}")
    with pytest.raises(VerificationError, match="does not serve the"):
        Downloads(os.environ).get(file, tmp_path / "x")
    gone = PackageFile(name, sha256_bytes(WHEEL), f"{index.url}/simple/none/{name}")
    with pytest.raises(PrerequisiteError, match="it answers 404"):
        Downloads(os.environ).get(gone, tmp_path / "x")
    assert index.asked.count("/simple/none/" + name) == 1


def test_what_the_store_has_needs_no_index(index, tmp_path, store, definition):
    pin, archive = oci_archive()
    place = Supplies(store.root).base_place(pin)
    place.parent.mkdir(parents=True)
    place.write_bytes(archive)
    definition.write_text(DEFINITION.replace(PINNED, pin))
    put_wheel(store)
    nowhere = {**environ(index, tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    target = Target(kind="definition", name="tool", identity="1" * 64, definition=definition)
    request = KitRequest(target=target, purpose=Purpose.BUILD, store=store, environ=nowhere)
    plan = plan_kit(request)
    assert [part.kind for part in plan.parts] == ["base", "definition", "definition", "wheel"]
    assert all(part.is_here for part in plan.parts)
    kit = fetch(plan, tmp_path / "kit.tar", request)
    there = ImageStore(tmp_path / "there")
    loaded = load(kit.path, there)
    built = Path(*loaded.definitions)
    assert built.read_text() == definition.read_text()
    assert built.with_suffix(".lock").read_text() == LOCK
    Path(Supplies(store.root).wheels([sha256_bytes(WHEEL)])[0]).unlink()
    with pytest.raises(PrerequisiteError, match="cannot be looked up"):
        plan_kit(request)


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
