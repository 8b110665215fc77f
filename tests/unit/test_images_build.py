"""Bases, the build's command and environment, and what a failed build's log is taken to mean."""

import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from valska.external_tools.core.errors import (
    ConfigError,
    PrerequisiteError,
    UsageError,
    ValskaError,
)
from valska.external_tools.core.images.apptainer import clean_environment
from valska.external_tools.core.images.building.base import replacement_base, tree_sha256
from valska.external_tools.core.images.building.draft import BuildRequest, draft_build
from valska.external_tools.core.images.building.environment import build_environment, find_ca_bundle
from valska.external_tools.core.images.building.transcript import explain_failure
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.utils import sha256_file

ORIGINAL = "docker://registry/python@sha256:" + "b" * 64
PIN = "sha256:" + "a" * 64


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "sh").write_text("shell")
    (root / "sh").symlink_to("bin/sh")
    return root


@pytest.mark.parametrize(
    ("text", "bootstrap", "source", "reference", "digest"),
    [
        (f"docker://r/p@{PIN}", "docker", f"r/p@{PIN}", f"docker://r/p@{PIN}", PIN[7:]),
        ("docker://r/p:1", "docker", "r/p:1", "docker://r/p:1", None),
        (f"oras://r/p@{PIN}", "oras", f"r/p@{PIN}", f"oras://r/p@{PIN}", PIN[7:]),
        ("library://e/c/i:1", "library", "e/c/i:1", "library://e/c/i:1", None),
    ],
)
def test_a_base_by_uri(text, bootstrap, source, reference, digest):
    base = replacement_base(text, ORIGINAL)
    assert (base.bootstrap, base.source, base.reference) == (bootstrap, source, reference)
    assert base.facts["sha256"] == digest
    assert base.facts["replaced"] is True
    assert base.facts["original"] == ORIGINAL


def test_credentials_are_not_recorded():
    base = replacement_base("docker://me:secret@host/p:1", ORIGINAL)
    assert "secret" in base.source
    assert "secret" not in str(base.facts) + str(base.labels)


def test_an_unknown_kind_of_base_has_a_near_miss():
    with pytest.raises(UsageError) as caught:
        replacement_base("doker://x/y", ORIGINAL)
    assert "'docker'" in caught.value.hint


def test_local_bases_are_known_by_content_and_recorded_without_their_place(tree, tmp_path):
    sandbox = replacement_base(os.fspath(tree), ORIGINAL)
    assert (sandbox.kind, sandbox.reference, sandbox.source) == ("sandbox", "root", str(tree))
    tar = tmp_path / "base.tar.gz"
    subprocess.run(["tar", "-czf", os.fspath(tar), "-C", os.fspath(tree), "."], check=True)
    packed = replacement_base(os.fspath(tar), ORIGINAL)
    assert (packed.kind, packed.sha256) == ("tar", sha256_file(tar))
    assert os.fspath(tmp_path) not in str(packed.facts) + str(sandbox.labels)


@pytest.mark.parametrize("content", [b"", b"not a base", b"#!/bin/sh\n" * 20])
def test_a_file_that_is_no_base(tmp_path, content):
    path = tmp_path / "base"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a base"):
        replacement_base(os.fspath(path), ORIGINAL)


def test_a_base_that_is_not_there(tmp_path):
    with pytest.raises(PrerequisiteError) as caught:
        replacement_base(os.fspath(tmp_path / "none.tar"), ORIGINAL)
    assert "bootstrap-base.sh" in caught.value.hint
    with pytest.raises(UsageError, match="root of a file system"):
        replacement_base(os.fspath(tmp_path), ORIGINAL)


def test_a_tree_has_one_digest_of_names_modes_and_contents(tree, tmp_path):
    first = tree_sha256(tree)
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, symlinks=True)
    assert tree_sha256(copy) == first
    (copy / "bin" / "sh").chmod(0o755)
    changed = tree_sha256(copy)
    (copy / "bin" / "sh").rename(copy / "bin" / "bash")
    (tree / "sh").unlink()
    (tree / "sh").symlink_to("bin/bash")
    assert len({first, changed, tree_sha256(copy), tree_sha256(tree)}) == 4


def test_the_users_settings_do_not_reach_a_build(tmp_path):
    environ = {
        "PATH": "/bin",
        "HTTPS_PROXY": "proxy",
        "PYTHONPATH": "/evil",
        "APPTAINERENV_PYTHONPATH": "/evil",
        "APPTAINER_BIND": "/evil",
        "SINGULARITY_BINDPATH": "/evil",
        "APPTAINER_CACHEDIR": "/cache",
        "PIP_INDEX_URL": "index",
        "PIP_TARGET": "/evil",
    }
    built = build_environment(environ, tmp_path, None, "12")
    assert "/evil" not in built.values()
    assert built == {
        "PATH": "/bin",
        "HTTPS_PROXY": "proxy",
        "APPTAINER_CACHEDIR": "/cache",
        "APPTAINERENV_PIP_INDEX_URL": "index",
        "APPTAINERENV_PIP_PROGRESS_BAR": "off",
        "APPTAINERENV_SOURCE_DATE_EPOCH": "12",
        "APPTAINERENV_LC_ALL": "C.UTF-8",
        "APPTAINERENV_TZ": "UTC",
        "APPTAINERENV_PYTHONHASHSEED": "0",
        "APPTAINERENV_PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": "12",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "APPTAINER_TMPDIR": os.fspath(tmp_path),
    }
    assert "APPTAINER_BIND" not in clean_environment(environ)


def test_certificates_are_put_where_a_build_finds_them(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("certificate")
    work = tmp_path / "work"
    (work / "tmp").mkdir(parents=True)
    built = build_environment({"SSL_CERT_FILE": "other"}, work, bundle, "0")
    inside = built["APPTAINERENV_PIP_CERT"]
    assert inside.startswith("/tmp/")
    assert (work / inside.lstrip("/")).read_text() == "certificate"
    assert built["APPTAINERENV_SSL_CERT_FILE"] == inside
    assert built["SSL_CERT_FILE"] == os.fspath(bundle)


def test_certificates_are_those_named_else_those_of_the_environment(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    environ = {"PIP_CERT": "/no/such", "REQUESTS_CA_BUNDLE": os.fspath(bundle)}
    assert find_ca_bundle(None, environ) == bundle
    assert find_ca_bundle(None, {}) is None
    with pytest.raises(PrerequisiteError, match="CA bundle"):
        find_ca_bundle(tmp_path / "none", environ)


LOGS = {
    "no-name": (
        'FATAL:   While performing build: conveyor failed to get: Get "https://registry/v2/": dial '
        "tcp: lookup registry: no such host",
        PrerequisiteError,
        "cannot be fetched",
        "--base",
    ),
    "no-https": (
        "FATAL:   While performing build: conveyor failed to get: tls: failed to verify "
        "certificate: x509: certificate signed by unknown authority",
        PrerequisiteError,
        "certificate",
        "ca_bundle",
    ),
    "no-such-image": (
        "FATAL:   While performing build: conveyor failed to get: GET https://r/v2/x/manifests/1: "
        "MANIFEST_UNKNOWN: manifest unknown",
        PrerequisiteError,
        "does not have",
        "digest",
    ),
    "not-allowed": (
        "FATAL:   While performing build: conveyor failed to get: GET https://r/v2/x: UNAUTHORIZED:"
        " authentication required; unauthorized",
        PrerequisiteError,
        "does not give",
        "login",
    ),
    "full": (
        "cp: error writing '/opt/x': No space left on device\n"
        "FATAL:   While performing build: while running engine: while running %post section: exit",
        ValskaError,
        "disk is full",
        "TMPDIR",
    ),
    "root-without-capabilities": (
        "\x1b[91mERROR  : Requesting capability set 0x1ff while permitted capability set is 0xfe\n"
        "\x1b[0mFATAL:   While performing build: while running engine: exit status 1",
        PrerequisiteError,
        "cannot build images here",
        "doctor",
    ),
    "no-namespace": (
        "INFO:    /etc/subuid mapping can be ignored with --ignore-subuid\n"
        "FATAL:   /etc/subuid mapping found but no user namespace available for fakeroot",
        PrerequisiteError,
        "no user namespace",
        "administrator",
    ),
    "no-more-namespaces": (
        "ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded, "
        "check /proc/sys/user/max_user_namespaces\nunshare failed: No space left on device",
        PrerequisiteError,
        "no user namespace",
        "user.max_user_namespaces",
    ),
    "hash": (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
        "FATAL:   While performing build: while running engine: while running %post section: exit",
        ValskaError,
        "lock",
        "lock",
    ),
    "no-index": (
        "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
        "FATAL:   While performing build: while running engine: while running %post section: exit",
        PrerequisiteError,
        "package index",
        "PIP_INDEX_URL",
    ),
    "test": (
        "FATAL:   While performing build: failed to execute %test script: exit status 1",
        ValskaError,
        "own test",
        "it ends",
    ),
    "post": (
        "cat: can't open '/nope'\n"
        "FATAL:   While performing build: while running engine: while running %post section: exit",
        ValskaError,
        "%post",
        "can't open '/nope'",
    ),
    "words of a command in post": (
        "INFO:    Running post scriptlet\nUnpacking newuidmap\nwhile fetching it: access denied\n"
        "FATAL:   While performing build: while running engine: while running %post section: exit",
        ValskaError,
        "%post",
        "access denied",
    ),
    "bind": (
        "INFO:    Running post scriptlet\n"
        "FATAL:   container creation failed: mount hook function failure: mount /c->/c"
        " error: while mounting /c: destination /c doesn't exist in container\n"
        "FATAL:   While performing build: while running engine: while running %post section: "
        "exit status 255\n",
        PrerequisiteError,
        "bound to where docker://registry/x has nothing",
        "--bind SRC:DST",
    ),
    "nothing": ("", ValskaError, "failed", "it ends"),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_failed_build_is_explained(tmp_path, name):
    text, kind, told, hint = LOGS[name]
    log = tmp_path / "build.log"
    log.write_text(text)
    error = explain_failure(log, "docker://registry/x")
    assert type(error) is kind
    assert told in error.message
    assert "\n" not in error.message
    assert hint in error.hint
    assert os.fspath(log) in error.hint
    assert "\x1b" not in error.hint


@pytest.mark.parametrize("name", ["nosuch", "x" * 300])
def test_a_path_to_bind_that_is_not_there_is_refused_before_anything_is_built(tmp_path, name):
    definition = tmp_path / "x.def"
    definition.write_text(f"Bootstrap: docker\nFrom: r/p@{PIN}\n")
    request = BuildRequest(
        definition=definition,
        store=ImageStore(tmp_path / "store"),
        binds=("/usr:/usr:ro", f"/proc/self/cwd/{name}:/mnt"),
        apptainer="no-such-apptainer",
    )
    with pytest.raises(PrerequisiteError, match=f"there is no /proc/self/cwd/{name} to bind"):
        draft_build(request)
    with pytest.raises(ConfigError, match="not usable"):
        draft_build(replace(request, binds=(name,)))
    with pytest.raises(PrerequisiteError, match="no such program"):
        draft_build(replace(request, binds=("/usr:/usr:ro",)))
    assert not (tmp_path / "store").exists()
