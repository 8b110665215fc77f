"""The store with real images, keys and permissions, as an ordinary user has them."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images import adopt
from valska.external_tools.core.images.sif import read_sif
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.importing import import_images
from valska.external_tools.core.images.store.signing import sign_image, signers

pytestmark = pytest.mark.apptainer


@pytest.fixture
def user(account, request):
    """The account, with a store and a keyring of its own."""
    user = account.in_directory(request.node.originalname)
    env = {
        **user.env,
        "VALSKA_IMAGES": user.work / "images",
        "APPTAINER_CONFIGDIR": user.work / "apptainer",
    }
    yield replace(user, env=env)
    user.run("chmod", "-R", "u+rwX", user.work, check=False)


@pytest.fixture
def image(user, tiny_image):
    """The digest of an image in the user's store."""
    place = user.valska("image", "import", tiny_image).stdout.strip()
    return Path(place).stem


def new_key(run, name, password=""):
    """Make a key and return its fingerprint."""
    mail = f"{name}@example.org"
    words = ("--name", name, "--email", mail, "--comment", "test", "--password", password)
    run("apptainer", "key", "newpair", "--bit-length", "2048", "--push=false", *words)
    lines = run("apptainer", "key", "list", "--secret").stdout.splitlines()
    return next(line.split()[-1] for line in reversed(lines) if "Fingerprint" in line)


def shown(user, *args, code=0):
    done = user.valska("image", *args, "--json", check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_an_image_from_a_file_is_described_runs_and_goes_on(user, image, tiny_image):
    found = shown(user, "show", image)
    assert found["record"]["origin"] == "adopted"
    assert found["record"]["apptainer_version"]
    assert found["unchanged"] is True
    assert [Path(name).suffix for name in found["files"]] == [".def", ".json", ".sif", ".receipt"]
    assert user.run("apptainer", "exec", found["path"], "echo", "hello").stdout == "hello\n"
    user.valska("image", "export", image, "-o", "out.tar")
    user.valska("image", "import", "out.tar", "--images", user.work / "other")
    there = user.work / "other" / "sha256" / f"{image}.sif"
    assert there.read_bytes() == tiny_image.read_bytes()


def test_a_bundle_keeps_its_image_and_runs_with_it(user, image):
    bundle = user.lines(image=f"sha256:{image}")
    gc = ("image", "gc", "--older-than", "0", "--execute")
    assert f"{bundle} uses it" in user.valska(*gc).stderr
    user.valska("submit", bundle, "--scheduler", "local", "--wait")
    assert set(user.states(bundle).values()) == {"completed"}
    shutil.rmtree(bundle)
    assert f"used by {bundle}, which is gone or moved" in user.valska(*gc).stderr
    assert image[:12] in user.valska(*gc, "--gone").stdout
    assert user.valska("image", "list").stdout == ""


def test_a_file_that_is_cut_off(user, tiny_image):
    data = tiny_image.read_bytes()
    for size in (0, 100, 5000, 40_000, len(data) // 2, len(data) - 1):
        path = user.work / f"cut-{size}.sif"
        path.write_bytes(data[:size])
        user.own(path)
        done = user.valska("image", "import", path, check=False)
        assert done.returncode == 3, (size, done.stderr)
        assert done.stderr.count("Error:") == 1
        assert "cut off" in done.stderr or "not a SIF" in done.stderr
    assert user.valska("image", "list").stdout == ""


def test_a_file_that_may_not_be_read(user, tiny_image):
    path = user.work / "secret.sif"
    shutil.copy(tiny_image, path)
    user.own(path)
    path.chmod(0)
    done = user.valska("image", "import", path, check=False)
    assert done.returncode == 3
    assert "cannot read the image" in done.stderr


def test_a_store_that_is_only_read(user, image, tiny_image):
    user.run("chmod", "-R", "a-w", user.work / "images")
    assert [one["sha256"] for one in shown(user, "list")] == [image]
    assert [one["ok"] for one in shown(user, "verify", image)] == [True]
    other = user.work / "other.sif"
    other.write_bytes(tiny_image.read_bytes() + b"more")
    user.own(other)
    for args in (("import", other), ("sign", image)):
        done = user.valska("image", *args, check=False)
        assert done.returncode == 3, (args, done.stderr)
        assert "cannot be written: Permission denied" in done.stderr
    assert "has it already" in user.valska("image", "import", tiny_image).stderr
    done = user.valska("image", "gc", "--older-than", "0", "--execute")
    assert "it cannot be cleared away" in done.stderr
    assert shown(user, "show", image)["unchanged"] is True
    assert user.lines(image=f"sha256:{image}").is_dir()


def test_signed_with_a_key_and_verified(user, image):
    done = user.valska("image", "sign", image, check=False)
    assert done.returncode == 3
    assert "there is no key" in done.stderr
    fingerprint = new_key(user.run, "me")
    assert len(fingerprint) == 40
    signed = shown(user, "sign", image)
    assert signed["fingerprint"] == fingerprint
    assert signed["unsigned_sha256"] == image != signed["sha256"]
    record = shown(user, "show", signed["sha256"])["record"]
    assert record["signature"] == {"fingerprint": fingerprint, "unsigned_sha256": image}
    check = ("verify", signed["sha256"], "--signature")
    assert shown(user, *check)[0]["signers"] == [fingerprint]
    assert shown(user, *check, "--signer", fingerprint[-16:].lower())[0]["ok"]
    assert not shown(user, *check, "--signer", "0" * 40, code=5)[0]["ok"]
    (unsigned,) = shown(user, "verify", image, "--signature", code=5)
    assert "is not signed" in unsigned["faults"][0]
    assert user.run("apptainer", "verify", "--local", signed["path"]).returncode == 0
    assert user.run("apptainer", "exec", signed["path"], "echo", "hello").stdout == "hello\n"


def test_a_key_that_is_not_known_and_one_that_is_not_there(user, image):
    new_key(user.run, "me")
    signed = shown(user, "sign", image)["sha256"]
    stranger = replace(user, env={**user.env, "APPTAINER_CONFIGDIR": user.work / "stranger"})
    (found,) = shown(stranger, "verify", signed, "--signature", code=5)
    assert "not in the keyring" in found["faults"][0]
    done = user.valska("image", "sign", image, "--keyidx", "7", check=False)
    assert done.returncode == 2
    assert "no key of that number" in done.stderr


def test_a_passphrase_and_what_is_altered_after_signing(apptainer, tiny_image, place, monkeypatch):
    """In this process: a passphrase is asked for at a terminal."""
    folder = place / "signing"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("APPTAINER_CONFIGDIR", str(folder / "apptainer"))

    def run(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True)

    fingerprint = new_key(run, "locked", password="open sesame")
    store = ImageStore(folder / "images")
    (imported,) = import_images(tiny_image, store)
    for passphrase in (None, "wrong"):
        with pytest.raises(UsageError, match="passphrase"):
            sign_image(store, imported.record, passphrase=passphrase)
    signed = sign_image(store, imported.record, passphrase="open sesame")
    assert signed.signature["fingerprint"] == fingerprint
    sif = store.sif(signed.sha256)
    assert signers(sif) == (fingerprint,) == read_sif(sif).signatures
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == []
    altered = folder / "altered.sif"
    data = bytearray(sif.read_bytes())
    data[read_sif(sif).system.offset + 5000] ^= 1
    altered.write_bytes(data)
    with pytest.raises(Exception, match="altered since it was signed") as caught:
        signers(altered)
    assert caught.value.exit_code == 5
    assert adopt(altered, store).sha256 != signed.sha256
