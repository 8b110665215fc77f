"""sign, and verify --signer, at a terminal."""

import json
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from valska.external_tools.core.schema import validate
from valska.external_tools.core.utils import sha256_file

WHO = "anna@example.org"
WHO_FILE = "allowed_signers"


@pytest.fixture
def signer(user, require, monkeypatch):
    """A user with a key of their own, and a file of allowed signers with it."""
    require(shutil.which("ssh-keygen"), "there is no ssh-keygen")
    for name in ("SSH_AUTH_SOCK", "GIT_CONFIG_GLOBAL", "GIT_DIR"):
        monkeypatch.delenv(name, raising=False)
    key = user.home / ".ssh" / "id_ed25519"
    key.parent.mkdir(mode=0o700)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", WHO, "-f", str(key)]
    subprocess.run(argv, check=True)
    public = key.with_suffix(".pub").read_text()
    user.write(WHO_FILE, f"{WHO} {public}")
    return user


@pytest.fixture
def archive(signer):
    signer.ok("archive", signer.bundle("--run-id", "r1"), "-o", "r1.tar.zst")
    return signer.cwd / "r1.tar.zst"


def files(user):
    return sorted(path.name for path in user.cwd.iterdir())


def test_sign_and_verify(signer, archive):
    done = signer.ok("sign", archive)
    assert done.stdout.splitlines() == [f"{archive}.intoto.json.sig"]
    assert "ED25519 SHA256:" in done.stderr
    for who in ((WHO_FILE,), (WHO, "--allowed-signers", WHO_FILE)):
        checked = signer.ok("verify", archive, "--signer", *who)
        assert f"Signed by {WHO}" in checked.stderr
        assert "as it was packed" in checked.stderr
    signer.ok("verify", archive, "--fast", "--signer", WHO_FILE)
    data = json.loads(signer.ok("verify", archive, "--signer", WHO_FILE, "--json").stdout)
    assert (data["intact"], data["signer"]) == (True, WHO)
    assert data["key"].startswith("ED25519 ")


def test_a_key_that_has_expired_or_was_revoked(signer, archive):
    signer.ok("sign", archive)
    public = (signer.cwd / WHO_FILE).read_text().split(maxsplit=1)[1]
    old = signer.cwd / "old"
    old.write_text(f'{WHO} valid-before="20250101" {public}')
    verify = ("verify", "--fast", archive, "--signer", old)
    expired = signer.run(*verify)
    assert expired.exit_code == 5
    assert "--signed-on DATE" in expired.stderr
    done = signer.ok(*verify, "--signed-on", "2024-05-06", "--receipt", "receipt.json")
    receipt = json.loads((signer.cwd / "receipt.json").read_text())
    validate(receipt, "receipt-1", "the receipt")
    assert receipt["subject"]["signed_on"] == "2024-05-06"
    assert "Only presence and sizes were compared" in done.stderr
    (signer.cwd / "revoked").write_text(public)
    revoked = signer.run(*verify, "--signed-on", "2024-05-06", "--revoked", "revoked")
    assert revoked.exit_code == 5
    assert "revoked revokes the ED25519 key" in revoked.stdout
    for option in (("--revoked", "revoked"), ("--signed-on", "2024-05-06")):
        assert "needs --signer" in signer.run("verify", archive, *option).stderr


@pytest.mark.parametrize("date", ["1960-01-01", "1970-01-01", "2999-01-01"])
def test_a_day_on_which_nothing_can_have_been_signed(signer, archive, date):
    signer.ok("sign", archive)
    done = signer.run("verify", "--fast", archive, "--signer", WHO_FILE, "--signed-on", date)
    assert done.exit_code == 2
    assert f"nothing can have been signed on {date}" in done.stderr
    today = f"{datetime.now():%Y-%m-%d}"
    signer.ok("verify", "--fast", archive, "--signer", WHO_FILE, "--signed-on", today)
    signer.ok("verify", "--fast", archive, "--signer", WHO_FILE, "--signed-on", "1970-01-02")


def test_a_statement_is_checked_with_its_archive(signer, archive):
    signer.ok("sign", archive)
    for suffix in (".intoto.json", ".intoto.json.sig"):
        done = signer.run("verify", f"{archive.name}{suffix}")
        assert done.exit_code == 2
        assert "`valska verify r1.tar.zst --signer WHO`" in done.stderr


def test_what_is_no_archive_is_told_in_few_words(signer):
    signer.write("x.txt", "hello")
    for verb in ("verify", "sign", "unpack"):
        done = signer.run(verb, "x.txt")
        assert (done.exit_code, "x.txt is not an archive" in done.stderr) == (2, True)
    done = signer.run("verify", "y.tar.zst")
    assert (done.exit_code, "no such bundle, sweep, archive or receipt" in done.stderr) == (3, True)


GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "sign-an-archive.md"


def test_the_guides_commands_without_valska_agree(signer, archive):
    text = GUIDE.read_text().partition("## Verify without valska")[2]
    block = re.search(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    argv = ["bash", "-ec", block]
    archive = archive.rename(signer.cwd / "run.tar.zst")
    signer.ok("sign", archive)
    assert subprocess.run(argv, cwd=signer.cwd, capture_output=True).returncode == 0
    statement, data = signer.cwd / "run.tar.zst.intoto.json", archive.read_bytes()
    archive.write_bytes(data + b"x")
    assert subprocess.run(argv, cwd=signer.cwd, capture_output=True).returncode == 1
    archive.write_bytes(data)
    statement.write_text(statement.read_text() + "\n")
    assert subprocess.run(argv, cwd=signer.cwd, capture_output=True).returncode == 255


def test_a_dry_run_shows_the_statement_and_writes_nothing(signer, archive):
    before = files(signer)
    text = signer.ok("sign", archive, "--dry-run").stdout
    head, _, statement = text.partition("\n")
    assert head.startswith("Would sign")
    assert json.loads(statement)["subject"][0]["digest"]["sha256"] == sha256_file(archive)
    data = json.loads(signer.ok("sign", archive, "--dry-run", "--json").stdout)
    assert data["dry_run"] is True
    assert data["content"] == json.loads(statement)
    assert data["fingerprint"] is None
    assert files(signer) == before


def test_sign_as_json(signer, archive):
    data = json.loads(signer.ok("sign", archive, "--json").stdout)
    assert data["sha256"] == sha256_file(archive)
    assert data["fingerprint"].startswith("ED25519 SHA256:")
    assert data["signature"] == f"{archive}.intoto.json.sig"
    assert json.loads((signer.cwd / "r1.tar.zst.intoto.json").read_text()) == data["content"]


def test_findings_end_with_5(signer, archive):
    unsigned = signer.run("verify", archive, "--signer", WHO_FILE)
    assert unsigned.exit_code == 5
    assert "missing: r1.tar.zst.intoto.json.sig" in unsigned.stdout
    assert "not signed as wanted" in unsigned.stderr
    signer.ok("sign", archive)
    options = ("--signer", "bert@example.org", "--allowed-signers", WHO_FILE)
    wrong = signer.run("verify", archive, *options, "--receipt", "receipt.json", "--json")
    assert wrong.exit_code == 5
    assert json.loads(wrong.stdout)["findings"][0]["kind"] == "wrong-signer"
    receipt = json.loads((signer.cwd / "receipt.json").read_text())
    validate(receipt, "receipt-1", "the receipt")
    assert receipt["intact"] is False
    assert receipt["subject"]["signer"] is None
    signer.ok("verify", archive)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    altered = signer.run("verify", archive, "--signer", WHO_FILE)
    assert altered.exit_code == 5
    assert "not as it was packed" in altered.stderr
    assert "the statement is about" in altered.stdout
    key = ("--key", signer.home / ".ssh/id_ed25519")
    assert "is signed already" in signer.run("sign", archive, *key).stderr
    (signer.cwd / "r1.tar.zst.intoto.json.sig").unlink()
    assert signer.run("sign", archive, *key).exit_code == 5


def test_a_receipt_is_signed_and_verified(signer, archive):
    signer.ok("sign", archive)
    signer.ok("verify", archive, "--signer", WHO_FILE, "--receipt", "receipt.json")
    receipt = json.loads((signer.cwd / "receipt.json").read_text())
    validate(receipt, "receipt-1", "the receipt")
    assert receipt["subject"]["signer"] == WHO
    done = signer.ok("sign", "receipt.json")
    assert done.stdout.splitlines() == [str(signer.cwd / "receipt.json.sig")]
    checked = signer.ok("verify", "receipt.json", "--signer", WHO_FILE)
    assert "r1.tar.zst" in checked.stderr
    assert "nothing wrong" in checked.stderr
    path = signer.cwd / "receipt.json"
    path.write_text(path.read_text().replace("r1.tar", "r2.tar"))
    assert signer.run("verify", path, "--signer", WHO_FILE).exit_code == 5
    assert signer.run("verify", path).exit_code == 2
    assert signer.run("verify", path, "--signer", WHO_FILE, "--receipt", "x").exit_code == 2


def test_wrong_options_end_with_2(signer, archive):
    assert signer.run("sign", archive, "--key", "none").exit_code == 2
    assert signer.run("verify", archive, "--allowed-signers", WHO_FILE).exit_code == 2
    assert signer.run("verify", archive, "--signer", WHO).exit_code == 2
    assert signer.run("verify", signer.cwd / "bundle", "--signer", WHO_FILE).exit_code == 2
    signer.ok("sign", archive)
    assert signer.run("sign", archive).exit_code == 2


def test_without_a_key_the_hint_says_how_to_make_one(signer, archive):
    shutil.rmtree(signer.home / ".ssh")
    done = signer.run("sign", archive)
    assert done.exit_code == 3
    assert "ssh-keygen -t ed25519" in done.stderr


def test_without_ssh_keygen_the_exit_code_is_3(signer, archive):
    done = signer.process("sign", archive, env={"HOME": str(signer.home), "PATH": "/nowhere"})
    assert done.returncode == 3
    assert "no ssh-keygen" in done.stderr
    assert "Traceback" not in done.stderr
