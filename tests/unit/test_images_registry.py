"""Registries: references, logins, answers that are no answer, and documents with one digest."""

import base64
import json
import os
import socket
import stat
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.registry import credentials, transport
from valska.external_tools.core.images.registry.archive import check_archive, write_archive
from valska.external_tools.core.images.registry.client import (
    INDEX,
    MANIFEST,
    Manifest,
    choose,
    connect,
    environment,
    resolve,
    this_platform,
)
from valska.external_tools.core.images.registry.options import Http, http_options
from valska.external_tools.core.images.registry.progress import advancing, part_of
from valska.external_tools.core.images.registry.pushing import (
    Pushed,
    note_published,
    read_published,
    read_target,
)
from valska.external_tools.core.images.registry.reference import Reference, is_loopback, parse
from valska.external_tools.core.images.registry.referrers import (
    LISTING_TYPE,
    RECORD_TYPE,
    fetch_attached,
    list_referrers,
)
from valska.external_tools.core.images.registry.sifs import sif_layer, sif_manifest
from valska.external_tools.core.images.registry.transport import NoAnswerError, retried
from valska.external_tools.core.images.registry.uploading import upload_blob
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.utils import sha256_bytes

DIGEST = "sha256:" + "a" * 64
HUB = "docker.io/library/python"


def reference(registry="r.org", repository="a/b", **rest):
    return Reference(registry, repository, **rest)


# References


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python", "docker.io/library/python"),
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("docker://python:3.11", "docker.io/library/python:3.11"),
        ("index.docker.io/python", "docker.io/library/python"),
        ("someone/python", "docker.io/someone/python"),
        ("localhost/x", "localhost/x"),
        ("localhost:5000/x/y:1", "localhost:5000/x/y:1"),
        ("127.0.0.1:5000/base", "127.0.0.1:5000/base"),
        ("[::1]:5000/base:1", "[::1]:5000/base:1"),
        ("ghcr.io/a/b/c__d-e.f:v1", "ghcr.io/a/b/c__d-e.f:v1"),
        (f"{HUB}:3.11@{DIGEST}", f"{HUB}:3.11@{DIGEST}"),
        (f"docker://{HUB}@{DIGEST}", f"{HUB}@{DIGEST}"),
        ("oras://host/x", "host/x"),
        ("ORAS://host/x", "host/x"),
    ],
)
def test_a_reference_is_read_as_docker_and_apptainer_read_it(text, expected):
    assert str(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no such name"),
        ("oras://python:3.11", "its registry is missing"),
        ("ghcr.io/A/b", "lower case"),
        ("ghcr.io/a//b", "no such name"),
        ("ghcr.io/a/../b", "no such name"),
        ("ghcr.io/a:", "tag"),
        ("ghcr.io/a:-x", "tag"),
        ("ghcr.io/a:1/b", "tag"),
        ("ghcr.io/a@", "digest"),
        ("ghcr.io/a@sha256:abc", "digest"),
        (f"ghcr.io/a@sha512:{'a' * 128}", "digest"),
        ("gh cr.io/a", "no host"),
        ("ghcr.io:port/a", "no host"),
        ("library://a/b/c", "library://"),
        ("file:///etc/passwd", "file://"),
    ],
)
def test_what_is_no_reference_is_refused(text, told):
    with pytest.raises(UsageError, match=told) as caught:
        parse(text)
    assert "REPOSITORY" in caught.value.hint


def test_a_password_in_a_reference_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="user name or password") as caught:
        parse("oras://me:horse@ghcr.io/a/b:1")
    assert "horse" not in f"{caught.value.message} {caught.value.hint}"


component = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,5})?", fullmatch=True)


@given(
    host=st.sampled_from(["r.org", "r:5000", "localhost", "[::1]:80", "127.0.0.1:1"]),
    parts=st.lists(component, min_size=1, max_size=4),
    tag=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    digest=st.sampled_from([None, DIGEST]),
    scheme=st.sampled_from(["docker", "oras"]),
)
def test_a_reference_that_is_written_is_read_again(host, parts, tag, digest, scheme):
    original = Reference(host, "/".join(parts), tag, digest, scheme)
    assert parse(original.uri) == original


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_refused(text):
    try:
        found = parse(text)
    except UsageError:
        return
    assert parse(found.uri) == parse(str(found.uri))
    assert found.registry
    assert "\n" not in str(found)


def test_a_digest_comes_before_a_tag_and_a_tag_before_latest():
    assert parse(f"r.org/x:1@{DIGEST}").identifier == DIGEST
    assert parse("r.org/x:1").identifier == "1"
    assert parse("r.org/x").identifier == "latest"
    assert str(parse("r.org/x:1").at(DIGEST)) == f"r.org/x@{DIGEST}"


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("10.0.0.1:5000", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org:5000", False),
    ],
)
def test_loopback_is_this_machine_only(registry, expected):
    assert is_loopback(registry) is expected


def test_an_image_is_pushed_to_latest_without_a_tag():
    assert read_target("oras://r.org/x").tag == "latest"


# How a registry is asked


@pytest.mark.parametrize(
    ("name", "options", "root"),
    [
        ("python", {}, "https://registry-1.docker.io/v2/library/python"),
        ("r.org/x", {}, "https://r.org/v2/x"),
        ("r.org/x", {"no_https": True}, "http://r.org/v2/x"),
        ("r.org/x", {"environ": {"APPTAINER_NOHTTPS": "true"}}, "http://r.org/v2/x"),
        ("r.org/x", {"environ": {"APPTAINER_NOHTTPS": "no"}}, "https://r.org/v2/x"),
        ("127.0.0.1:5000/x", {}, "http://127.0.0.1:5000/v2/x"),
    ],
)
def test_plain_http_is_for_loopback_or_when_asked_for(name, options, root):
    http = http_options(**{"environ": {}, **options})
    assert connect(name, http).root == root


def test_the_environment_names_the_certificates(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    assert http_options(environ={"SSL_CERT_FILE": os.fspath(bundle)}).ca_bundle == bundle
    with pytest.raises(PrerequisiteError, match="no such CA bundle"):
        http_options(ca_bundle=tmp_path / "none.pem", environ={})


def test_a_registry_that_does_not_answer_is_asked_again_after_pauses_that_double(monkeypatch):
    pauses, answers = [], [NoAnswerError("gone")] * 3 + ["here"]
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    assert retried(Http(attempts=4, pause=0.5), lambda: given_or_raised(answers)) == "here"
    assert pauses == [0.5, 1.0, 2.0]


def test_a_registry_that_says_when_to_come_back_is_believed_within_reason(monkeypatch):
    pauses, answers = [], [NoAnswerError("busy", wait=7), NoAnswerError("busy", wait=9000), "here"]
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    assert retried(Http(attempts=4), lambda: given_or_raised(answers)) == "here"
    assert pauses == [7, transport.MAX_PAUSE_S]


def test_a_refusal_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: pytest.fail("it waits"))
    answers = [PrerequisiteError("private"), "here"]
    with pytest.raises(PrerequisiteError, match="private"):
        retried(Http(), lambda: given_or_raised(answers))
    assert answers == ["here"]


@pytest.mark.parametrize(
    ("code", "times", "told"),
    [
        (socket.EAI_NONAME, 1, "no such name"),
        (socket.EAI_NODATA, 1, "no such name"),
        (socket.EAI_AGAIN, 3, "looked up now"),
    ],
)
def test_a_name_that_nobody_has_is_not_asked_for_again(monkeypatch, code, times, told):
    """A stand-in for the resolver: a real one is as it is."""
    asked = []

    def look_up(host, *rest):
        asked.append(host)
        raise socket.gaierror(code, "told by the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(PrerequisiteError, match=told):
        resolve("registry.invalid/x:1", http=Http(attempts=3, pause=0.0, environ={}))
    assert asked == ["registry.invalid"] * times


def test_a_name_that_nobody_can_have_is_named():
    with pytest.raises(PrerequisiteError, match="there is no such name"):
        resolve(f"{'a' * 64}.org/x:1", http=Http(attempts=1, environ={}))


def given_or_raised(answers):
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_who_counts_bytes_is_told_the_difference_also_where_they_go_again():
    told = []
    progress = advancing(told.append)
    for done in (3, 7, 0, 7):
        progress(done, 7)
    assert told == [3, 4, -7, 7]


def test_a_part_tells_of_the_whole():
    told = []
    part = part_of(lambda done, total: told.append((done, total)), 10, 30)
    part(5, 20)
    assert told == [(15, 30)]
    assert part_of(None, 10, 30) is None


# Logins


def write_logins(path, **auths):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: {"auth": word} for host, word in auths.items()}}))


def test_logins_are_read_from_all_files_apptainers_first(tmp_path):
    write_logins(tmp_path / ".docker/config.json", a="docker", b="docker", c="docker")
    write_logins(tmp_path / ".apptainer/docker-config.json", a="apptainer", b="apptainer")
    write_logins(tmp_path / "named.json", a="named")
    environ = {
        "HOME": os.fspath(tmp_path),
        "APPTAINER_AUTHFILE": os.fspath(tmp_path / "named.json"),
    }
    found = credentials.read_logins(Http(environ=environ))["auths"]
    assert {host: entry["auth"] for host, entry in found.items()} == {
        "a": "named",
        "b": "apptainer",
        "c": "docker",
    }


def test_apptainers_variables_are_a_login_for_every_registry(tmp_path):
    environ = {
        "HOME": os.fspath(tmp_path),
        "APPTAINER_DOCKER_USERNAME": "me",
        "APPTAINER_DOCKER_PASSWORD": "horse",
    }
    found = credentials.read_logins(Http(environ=environ))
    (key,) = credentials.account_keys("r.org", found)
    assert base64.b64decode(found["auths"][key]["auth"]) == b"me:horse"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"auths": null, "credHelpers": 3}'])
def test_a_file_of_logins_that_is_none_is_left_out(tmp_path, text):
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(text)
    found = credentials.read_logins(Http(environ={"HOME": os.fspath(tmp_path)}))
    assert found["auths"] == {}


def test_docker_hub_keeps_its_logins_under_another_name():
    logins = {"auths": {"https://index.docker.io/v1/": {}, "r.org": {}}, "credHelpers": {}}
    assert credentials.account_keys("docker.io", logins) == ("https://index.docker.io/v1/",)
    assert credentials.account_keys("r.org", logins) == ("r.org",)
    assert credentials.account_keys("s.org", logins) == ()
    assert credentials.account_keys("s.org", {**logins, "credsStore": "x"}) == ("s.org",)


@pytest.mark.parametrize("keeper", ["credsStore", "credHelpers"])
def test_a_password_that_a_program_keeps_is_asked_of_it(stand_in, tmp_path, monkeypatch, keeper):
    registry = stand_in((401, {"WWW-Authenticate": 'Basic realm="r"'}, b""), FOUND)
    helper = tmp_path.parent / "docker-credential-vault"
    helper.write_text(
        "#!/bin/sh\n"
        f'[ "$1 $(cat)" = "get {registry.host}" ] || exit 1\n'
        'echo \'{"Username": "me", "Secret": "horse"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    (tmp_path / ".docker").mkdir()
    kept = "vault" if keeper == "credsStore" else {registry.host: "vault"}
    (tmp_path / ".docker/config.json").write_text(json.dumps({keeper: kept}))
    resolve(f"{registry.host}/x:1", http=Http(attempts=1, environ={"HOME": os.fspath(tmp_path)}))
    word = registry.asked[1][1]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(word) == b"me:horse"


@pytest.mark.parametrize("login", ["x", 3, {"auth": 3}, {"auth": ""}, {"auth": "not base 64"}])
def test_a_login_that_is_none_does_not_keep_anyone_from_reading(stand_in, tmp_path, login):
    registry = stand_in(FOUND)
    (tmp_path / ".docker").mkdir()
    text = json.dumps({"auths": {registry.host: login}})
    (tmp_path / ".docker/config.json").write_text(text)
    http = Http(attempts=1, environ={"HOME": os.fspath(tmp_path)})
    assert resolve(f"{registry.host}/x:1", http=http) == f"sha256:{sha256_bytes(DOCUMENT)}"


def test_the_options_do_not_show_passwords():
    assert "horse" not in repr(Http(environ={"APPTAINER_DOCKER_PASSWORD": "horse"}))


# Documents


def manifest_of(content, kind=MANIFEST):
    data = json.dumps({"mediaType": kind, **content}).encode()
    return Manifest(reference().at(f"sha256:{sha256_bytes(data)}"), kind, data)


def entry(data, **rest):
    return {"digest": f"sha256:{sha256_bytes(data)}", "size": len(data), **rest}


def platform_of(system, architecture, variant=None):
    return {"os": system, "architecture": architecture, "variant": variant}


def index_of(*platforms):
    entries = [entry(name.encode(), platform=platform_of(*name.split("/"))) for name in platforms]
    return manifest_of({"manifests": entries}, INDEX)


@pytest.mark.parametrize(
    ("platform", "chosen"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm/v7", "linux/arm/v7"),
    ],
)
def test_the_platform_is_chosen_with_any_variant_unless_one_is_named(platform, chosen):
    index = index_of("linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8")
    assert choose(index, platform)["digest"] == f"sha256:{sha256_bytes(chosen.encode())}"


def test_a_platform_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(PrerequisiteError, match="no image for linux/riscv64") as caught:
        choose(index_of("linux/amd64", "unknown/unknown", "linux/arm64/v8"), "linux/riscv64")
    assert caught.value.hint == "It has: linux/amd64, linux/arm64/v8."


@pytest.mark.parametrize("manifests", [None, 3, [], [3], [{"platform": 3}]])
def test_an_index_of_nonsense_has_no_image(manifests):
    with pytest.raises(ValskaError):
        choose(manifest_of({"manifests": manifests}, INDEX), "linux/amd64")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"[" * 100_000, b"\xff"])
def test_a_manifest_that_is_none_is_a_clear_error(data):
    with pytest.raises(ValskaError, match=r"r\.org/a/b.* is not"):
        _ = Manifest(reference(), MANIFEST, data).content


def test_the_environment_of_an_image():
    facts = {"config": {"Env": ["PYTHON_VERSION=3.11.9", "A=b=c", "EMPTY="]}}
    assert environment(facts) == {"PYTHON_VERSION": "3.11.9", "A": "b=c", "EMPTY": ""}
    assert environment({}) == environment({"config": None}) == {}
    assert environment({"config": ["x"]}) == environment({"config": {"Env": 3}}) == {}


def test_this_machine_has_a_platform():
    assert this_platform().startswith("linux/")
    assert "x86" not in this_platform()


def test_a_sif_is_laid_out_as_apptainer_does():
    """The manifest that ``apptainer push`` of 1.4.5 made of the same file, field by field."""
    data = sif_manifest("30fa" + "0" * 60, 2572288, "tiny.sif", {})
    assert json.loads(data) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.sylabs.sif.config.v1+json",
            "size": 2,
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
        "layers": [
            {
                "mediaType": "application/vnd.sylabs.sif.layer.v1.sif",
                "size": 2572288,
                "digest": "sha256:30fa" + "0" * 60,
                "annotations": {"org.opencontainers.image.title": "tiny.sif"},
            }
        ],
    }


def test_the_order_of_labels_does_not_change_a_digest():
    one = sif_manifest("0" * 64, 1, "x.sif", {"a": "1", "b": "2"})
    other = sif_manifest("0" * 64, 1, "x.sif", {"b": "2", "a": "1"})
    assert one == other


@pytest.mark.parametrize("layers", [None, 3, [], [3], [{"mediaType": "tar"}]])
def test_what_holds_no_sif_is_told_so(layers):
    with pytest.raises(PrerequisiteError, match="is not a SIF"):
        sif_layer(manifest_of({"layers": layers}))


# Archives


@pytest.fixture
def parts(tmp_path):
    """A manifest of two blobs, an index that lists it, and the blobs' files."""
    blobs = {}
    for data in (b"{}", b"layer" * 1000):
        path = tmp_path / sha256_bytes(data)
        path.write_bytes(data)
        blobs[f"sha256:{path.name}"] = path
    configuration, layer = (entry(path.read_bytes()) for path in blobs.values())
    image = manifest_of({"config": configuration, "layers": [layer, layer]})
    platform = {"os": "linux", "architecture": "amd64"}
    index = manifest_of({"manifests": [{**image.descriptor, "platform": platform}]}, INDEX)
    return image, index, blobs


def archive_of(image, index, blobs, path):
    with path.open("wb") as file:
        write_archive(file, image, index, blobs)
    return path


def test_an_archive_has_one_form_whatever_its_files_are_like(parts, tmp_path):
    image, index, blobs = parts
    one = archive_of(image, index, blobs, tmp_path / "one").read_bytes()
    for path in blobs.values():
        path.chmod(stat.S_IRUSR)
        os.utime(path, (1, 1))
    turned = dict(reversed(blobs.items()))
    assert archive_of(image, index, turned, tmp_path / "other").read_bytes() == one


def test_an_archive_is_checked_by_the_digest_of_index_or_image(parts, tmp_path):
    image, index, blobs = parts
    path = archive_of(image, index, blobs, tmp_path / "base")
    check_archive(path, index.digest, "linux/amd64")
    check_archive(path, image.digest, "linux/amd64")
    for digest, platform in ((DIGEST, "linux/amd64"), (index.digest, "linux/arm64")):
        with pytest.raises(ValskaError):
            check_archive(path, digest, platform)


def test_no_byte_of_an_archives_image_can_change_unseen(parts, tmp_path):
    image, index, blobs = parts
    path = archive_of(image, index, blobs, tmp_path / "base")
    data = path.read_bytes()
    for document in (index.data, image.data, b"layer" * 1000):
        at = data.index(document) + len(document) // 2
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValskaError):
            check_archive(path, index.digest, "linux/amd64")
    for length in (0, 100, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(ValskaError):
            check_archive(path, index.digest, "linux/amd64")


def test_what_is_no_archive_is_none(tmp_path):
    path = tmp_path / "base"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(ValskaError, match="not a whole OCI archive"):
        check_archive(path, DIGEST, "linux/amd64")


# Where an image was pushed to


@pytest.fixture
def store(tmp_path):
    """A store with one image."""
    store = ImageStore(tmp_path / "images")
    data = b"image"
    record = ImageRecord(
        sha256=sha256_bytes(data),
        size=len(data),
        name="tool",
        created_utc="2026-01-02T03:04:05Z",
        origin="built",
    )
    with store.workspace() as work:
        (work / "x.sif").write_bytes(data)
        store.add(work / "x.sif", record)
    return store


def test_where_an_image_was_pushed_to_is_noted_once_for_each_place(store):
    sha256 = sha256_bytes(b"image")
    for tag in ("1", "2", "1"):
        path = note_published(store, Pushed(reference().at(DIGEST), tag, sha256))
    notes = read_published(path)
    assert [note["tag"] for note in notes] == ["2", "1"]
    assert {note["uri"] for note in notes} == {f"oras://r.org/a/b@{DIGEST}"}


def test_an_image_that_the_store_does_not_have_is_not_noted(store):
    assert note_published(store, Pushed(reference().at(DIGEST), "1", "0" * 64)) is None
    assert not list(store.directory.glob("0*"))


def test_a_note_that_is_none_is_not_written_over(store):
    sha256 = sha256_bytes(b"image")
    path = store.extras(sha256, ".published.json")
    path.write_text('{"published": 3}')
    with pytest.raises(ValskaError, match="does not say"):
        note_published(store, Pushed(reference().at(DIGEST), "1", sha256))
    assert path.read_text() == '{"published": 3}'


# A stand-in for a registry, for answers that a real one cannot be made to give


class StandIn:
    """Answers requests from a list of (status, headers, body), and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stand_in.asked.append((self.path, dict(self.headers)))
                status, headers, body = stand_in.answers.pop(0)
                self.send_response(status)
                for name, value in {"Content-Length": len(body), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stand_in():
    made = []

    def make(*answers):
        made.append(StandIn(*answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


PATIENT = Http(attempts=3, pause=0.01, environ={"HOME": "/nonexistent"})
DOCUMENT = json.dumps({"mediaType": MANIFEST}).encode()
FOUND = (200, {"Content-Type": MANIFEST}, DOCUMENT)


def test_bytes_that_go_again_to_another_place_count_once(stand_in, tmp_path):
    uploads = "/v2/x/blobs/uploads/"
    to_one, to_other = {"Location": f"{uploads}one"}, {"Location": f"{uploads}other"}
    registry = stand_in((404, {}, b""), (202, to_one, b""), (307, to_other, b""), (201, {}, b""))
    path, size, told = tmp_path / "blob", 100_000, []
    path.write_bytes(bytes(size))
    connection = connect(f"{registry.host}/x:1", PATIENT)

    def progress(*counts):
        told.append(counts)

    assert upload_blob(connection, "0" * 64, size, lambda: path.open("rb"), progress)
    assert [place.partition("?")[0][-5:] for place, _ in registry.asked[2:]] == ["s/one", "other"]
    assert max(told) == told[-1] == (size, size)
    assert any(one > other for one, other in pairwise(told))


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_registry_that_cannot_answer_now_is_asked_again(stand_in, status):
    registry = stand_in((status, {}, b""), (status, {"Retry-After": "0"}, b"{"), FOUND)
    digest = resolve(f"{registry.host}/x:1", http=PATIENT)
    assert digest == f"sha256:{sha256_bytes(DOCUMENT)}"
    assert len(registry.asked) == 3


def test_a_registry_that_never_can_is_given_up_with_what_it_says(stand_in):
    told = json.dumps({"errors": [{"code": "X", "message": "come back in May"}]}).encode()
    registry = stand_in(*[(503, {}, told)] * 3)
    with pytest.raises(PrerequisiteError, match=r"answers 503 for .*/x:1 .come back in May"):
        resolve(f"{registry.host}/x:1", http=PATIENT)
    assert not registry.answers


def test_an_answer_that_is_cut_short_is_asked_for_again(stand_in):
    registry = stand_in((200, {"Content-Length": 5000}, DOCUMENT), FOUND)
    assert resolve(f"{registry.host}/x:1", http=PATIENT) == f"sha256:{sha256_bytes(DOCUMENT)}"


def test_a_document_without_end_is_not_read_to_its_end(stand_in):
    registry = stand_in((200, {}, b" " * (9 << 20)))
    with pytest.raises(ValskaError, match="too large"):
        resolve(f"{registry.host}/x:1", http=PATIENT)


def secret_logins(directory, host):
    word = base64.b64encode(b"me:horse").decode()
    write_logins(directory / ".docker/config.json", **{host: word})
    return Http(attempts=2, pause=0.01, environ={"HOME": os.fspath(directory)})


def test_a_password_goes_to_its_own_registry_only(stand_in, tmp_path):
    elsewhere = stand_in(FOUND)
    moved = {"Location": f"http://{elsewhere.host}/blob"}
    registry = stand_in((401, {"WWW-Authenticate": 'Basic realm="r"'}, b""), (307, moved, b""))
    http = secret_logins(tmp_path, registry.host)
    assert resolve(f"{registry.host}/x:1", http=http) == f"sha256:{sha256_bytes(DOCUMENT)}"
    assert "Authorization" in registry.asked[1][1]
    assert "Authorization" not in elsewhere.asked[0][1]


def test_a_token_service_that_cannot_answer_now_is_asked_again(stand_in, tmp_path):
    tokens = stand_in((503, {}, b""), (200, {}, b'{"token": "t"}'))
    challenge = f'Bearer realm="http://{tokens.host}/token",service="s",scope="repository:x:pull"'
    refused = (401, {"WWW-Authenticate": challenge}, b"")
    registry = stand_in(refused, refused, FOUND)
    http = secret_logins(tmp_path, registry.host)
    assert resolve(f"{registry.host}/x:1", http=http) == f"sha256:{sha256_bytes(DOCUMENT)}"
    assert registry.asked[-1][1]["Authorization"] == "Bearer t"


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", 'Bearer realm="ftp://x"', "Basic", "Negotiate", 'Bearer realm=""']
)
def test_a_challenge_that_cannot_be_met_says_that_a_login_is_wanted(stand_in, challenge):
    registry = stand_in(*[(401, {"WWW-Authenticate": challenge}, b"")] * 2)
    with pytest.raises(PrerequisiteError, match=r"does not give you .*/x:1") as caught:
        resolve(f"{registry.host}/x:1", http=PATIENT)
    assert "Log in" in caught.value.hint


def test_what_a_registry_says_cannot_drive_a_terminal_or_fill_the_memory(stand_in):
    told = json.dumps({"errors": [{"message": "\x1b]0;owned\x07 red"}]}).encode()
    with pytest.raises(PrerequisiteError) as caught:
        resolve(f"{stand_in((400, {}, told)).host}/x:1", http=PATIENT)
    assert "owned" in caught.value.message
    assert caught.value.message.isprintable()
    with pytest.raises(PrerequisiteError, match=r"answers 400 for \S+/x:1$"):
        resolve(f"{stand_in((400, {}, b' ' * (9 << 20) + told)).host}/x:1", http=PATIENT)


def attachments(stand_in, *layers):
    """Have a registry that attaches a manifest with some layers to an image."""
    manifest = json.dumps({"mediaType": MANIFEST, "layers": layers}).encode()
    listed = {**entry(manifest), "artifactType": RECORD_TYPE}
    index = json.dumps({"mediaType": INDEX, "manifests": [listed]}).encode()
    registry = stand_in((200, {}, index), (200, {"Content-Type": MANIFEST}, manifest))
    named = reference(registry.host, "x", digest=DIGEST)
    return registry, connect(named, PATIENT), Manifest(named, MANIFEST, b"{}")


def test_what_refers_to_an_image_without_end_is_not_read_to_its_end(stand_in):
    registry = stand_in((200, {}, b" " * (9 << 20)))
    named = reference(registry.host, "x", digest=DIGEST)
    with pytest.raises(ValskaError, match="too large"):
        list_referrers(connect(named, PATIENT), Manifest(named, MANIFEST, b"{}"))


def test_files_that_are_large_together_are_not_fetched(stand_in):
    layers = [{**entry(b"x"), "size": 8 << 20, "mediaType": LISTING_TYPE}] * 9
    registry, connection, subject = attachments(stand_in, *layers)
    with pytest.raises(ValskaError, match="too large"):
        fetch_attached(connection, subject)
    assert len(registry.asked) == 2


@pytest.mark.parametrize("notes", ["text", ["a"], 3, None, {"org.opencontainers.image.title": 1}])
def test_notes_on_a_file_that_are_none_are_a_clear_error(stand_in, notes):
    registry, connection, subject = attachments(
        stand_in,
        {**entry(b"{}"), "mediaType": RECORD_TYPE, "annotations": notes},
        {**entry(b"{}"), "mediaType": ["odd"]},
    )
    registry.answers.append((200, {}, b"{}"))
    with pytest.raises(ValskaError, match="the record with"):
        fetch_attached(connection, subject)
