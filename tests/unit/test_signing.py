"""Signing archives: the statement, every kind of key, and who may have signed."""

import json
import os
import random
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from archives import finished, pack
from hypothesis import given
from hypothesis import strategies as st
from sweeps import make_sweep
from toy import bundle as toy_bundle
from toy import stage

from valska.external_tools.core.archive.errors import NoArchiveError
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.selection import Choice, select_sweep
from valska.external_tools.core.archive.verification import receipt
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.errors import PrerequisiteError, UsageError, VerificationError
from valska.external_tools.core.process import run
from valska.external_tools.core.run_directory import TakenError
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.signing.keygen import SigningError
from valska.external_tools.core.signing.keys import Trust, find_key, find_trust
from valska.external_tools.core.signing.making import MOST_RECEIPT_BYTES, prepare, sign
from valska.external_tools.core.signing.places import signature_of, statement_of
from valska.external_tools.core.signing.provenance import MOST_OUTPUTS
from valska.external_tools.core.signing.statement import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    signed_digests,
)
from valska.external_tools.core.signing.verification import (
    verify_archive_signature,
    verify_signature,
)
from valska.external_tools.core.utils import sha256_bytes, sha256_file, write_json_atomic

WHO = "anna@example.org"
PASSPHRASE = "a long one"


@pytest.fixture(autouse=True)
def alone(require, tmp_path, monkeypatch):
    """No agent, no keys and no settings but those that a test makes."""
    require(shutil.which("ssh-keygen"), "there is no ssh-keygen")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    for name in ("SSH_AUTH_SOCK", "GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME", "GIT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("signing")


@pytest.fixture(scope="module")
def made(folder):
    """The archive of a run with one stage."""
    bundle = finished(folder)
    pack(bundle, folder / "a.tar.zst")
    return folder / "a.tar.zst"


@pytest.fixture(scope="module")
def keys(folder):
    """A key of each kind, and one with a passphrase."""
    found = {}
    for name in ("ed25519", "ecdsa", "rsa", "other", "locked"):
        kind = name if name in ("ecdsa", "rsa") else "ed25519"
        phrase = PASSPHRASE if name == "locked" else ""
        found[name] = folder / name
        argv = ["ssh-keygen", "-q", "-t", kind, "-N", phrase, "-C", name, "-f", str(found[name])]
        subprocess.run(argv, check=True)
    return found


@pytest.fixture
def archive(made, tmp_path):
    return Path(shutil.copy(made, tmp_path / "a.tar.zst"))


def signed(path, key):
    """Sign, and return the fingerprint."""
    return sign(prepare(path), find_key(key, run))


def line(key, who=WHO, options=""):
    public = " ".join(key.with_name(f"{key.name}.pub").read_text().split()[:2])
    return " ".join(filter(None, (who, options, public))) + "\n"


def trust(folder, text, identity=WHO):
    path = folder / "allowed signers"
    path.write_text(text)
    return Trust(path, identity)


def kinds(checked):
    return [(one.kind.value, one.path) for one in checked.findings]


# --- The statement ---


def statement(path):
    return json.loads(prepare(path).data)


def judged(data):
    """Read a statement with the reference implementation; a field it does not know is an error."""
    from google.protobuf.json_format import Parse, ParseDict
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    found = Statement.copy_from_pb(Parse(data, Message()))
    found.validate()
    provenance = ParseDict(json.loads(data)["predicate"], provenance_pb2.Provenance())
    resources = [
        *provenance.build_definition.resolved_dependencies,
        *provenance.run_details.byproducts,
    ]
    for one in resources:
        ResourceDescriptor.copy_from_pb(one).validate()
        assert one.digest
    return found.pb, provenance


def test_the_statement_is_valid_for_in_toto_and_slsa(archive):
    found, provenance = judged(prepare(archive).data)
    assert found.type == "https://in-toto.io/Statement/v1"
    assert found.predicate_type == "https://slsa.dev/provenance/v1"
    assert found.subject[0].digest["sha256"] == sha256_file(archive)
    assert provenance.build_definition.build_type.startswith("urn:valska:")
    assert provenance.run_details.builder.id == "urn:valska:runs:none"
    assert provenance.run_details.metadata.started_on.seconds > 0
    assert provenance.run_details.metadata.finished_on.seconds > 0


def test_the_statement_says_what_the_bundle_and_its_records_say(folder, archive):
    found = statement(archive)
    bundle = folder / "bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    record = json.loads(next((bundle / "records").iterdir()).read_text())
    assert found["subject"][1]["digest"]["sha256"] == sha256_file(bundle / "SHA256SUMS")
    assert found["subject"][0]["annotations"]["bundle_id"] == manifest["bundle_id"]
    definition = found["predicate"]["buildDefinition"]
    asked = definition["externalParameters"]
    assert asked["tool"] == "toy"
    assert asked["parameters"] == manifest["spec"]
    assert [one["argv"] for one in asked["stages"]] == [["cp", "../inputs/data.txt", "out.txt"]]
    done = definition["internalParameters"]["runs"]["simulate"]
    assert (done["state"], done["job"]) == ("completed", record["job"])
    resources = {one["name"]: one["digest"] for one in definition["resolvedDependencies"]}
    for name in ("inputs/data.txt", "config/run.yaml", "manifest.json", "submit_simulate.sh"):
        assert resources[name] == {"sha256": sha256_file(bundle / name)}
    details = found["predicate"]["runDetails"]
    assert details["metadata"] == {
        "invocationId": manifest["instance"],
        "startedOn": record["started_utc"],
        "finishedOn": record["ended_utc"],
    }
    assert details["byproducts"][0]["digest"]["sha256"] == record["outputs"][0]["sha256"]


def test_the_statement_depends_on_the_archives_bytes_alone(archive, tmp_path):
    other = tmp_path / "elsewhere" / "renamed.tar.zst"
    other.parent.mkdir()
    shutil.copy(archive, other)
    assert prepare(other).data == prepare(archive).data


def test_image_definition_and_lock_are_dependencies(tmp_path):
    sif = tmp_path / "tool.sif"
    sif.write_bytes(b"no image")
    digest, where = sha256_file(sif), "oras://registry.example.org/tool@sha256:" + "1" * 64
    files = {"toy.def": ("definition", b"def\n"), "toy.lock": ("lock", b"lock\n")}
    image = BundledImage(sif, digest, 8, {"base": {"digest": "sha256:b"}}, files)
    bundle = toy_bundle(tmp_path, runner=RunnerKind.CONTAINER, image=image)
    pack(bundle, tmp_path / "c.tar.zst", find_image=lambda sha256: (sif, (where,)))
    data = prepare(tmp_path / "c.tar.zst").data
    judged(data)
    found = {
        one["name"]: one
        for one in json.loads(data)["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    assert found["image"]["digest"] == {"sha256": digest}
    assert found["image"]["uri"] == where
    assert found["image"]["annotations"]["base"] == {"digest": "sha256:b"}
    for name, (role, content) in files.items():
        entry = found[f"containers/{name}"]
        assert (entry["digest"]["sha256"], entry["annotations"]["role"]) == (
            sha256_bytes(content),
            role,
        )


def test_what_never_ran_has_no_times(tmp_path):
    pack(toy_bundle(tmp_path), tmp_path / "n.tar.zst")
    data = prepare(tmp_path / "n.tar.zst").data
    judged(data)
    details = json.loads(data)["predicate"]["runDetails"]
    assert details["builder"] == {"id": "urn:valska:runs:nothing"}
    assert set(details["metadata"]) == {"invocationId"}


def test_the_statement_of_a_sweep_names_its_points(tmp_path):
    sweep = make_sweep(tmp_path, points=("records", "b"))
    argv = ["bash", "submit_simulate.sh", "points/records"]
    subprocess.run(argv, cwd=sweep.path, check=True, capture_output=True)
    write_archive(select_sweep(sweep, Choice()), tmp_path / "s.tar.zst", Description())
    data = prepare(tmp_path / "s.tar.zst").data
    judged(data)
    definition = json.loads(data)["predicate"]["buildDefinition"]
    points = definition["externalParameters"]["points"]
    assert set(points) == {"records", "b"}
    assert points["records"]["bundle_id"] != points["b"]["bundle_id"]
    assert definition["internalParameters"]["runs"] == {"simulate": {"completed": 1}}


def test_too_many_outputs_are_not_listed(tmp_path):
    many = f"for i in $(seq {MOST_OUTPUTS + 1}); do echo $i >$i.txt; done; echo >out.txt"
    bundle = finished(tmp_path, [stage(argv=("bash", "-c", many))])
    pack(bundle, tmp_path / "m.tar.zst")
    assert "byproducts" not in statement(tmp_path / "m.tar.zst")["predicate"]["runDetails"]


@pytest.mark.parametrize(
    "data",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "subject": []}',
        *(
            b'{"_type": "https://in-toto.io/Statement/v1", "predicateType": '
            b'"https://slsa.dev/provenance/v1", "subject": %s}' % subject
            for subject in (b"[]", b"1", b"[1]", b'[{"digest": []}]', b'[{"digest": {}}]', b"[{}]")
        ),
    ],
)
def test_what_is_no_statement_is_refused(data):
    with pytest.raises(VerificationError):
        signed_digests(data)


_PARTS = st.sampled_from(["_type", "predicateType", "subject", "digest", "sha256"])
_TYPES = st.sampled_from([STATEMENT_TYPE, PREDICATE_TYPE])
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | _TYPES,
    lambda part: st.lists(part) | st.dictionaries(st.text() | _PARTS, part),
)


@given(st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_statement_is_read_or_refused(data):
    with suppress(VerificationError):
        assert all(isinstance(one, str) for one in signed_digests(data))


@given(_JSON)
def test_any_subject_is_read_or_refused(subject):
    head = {"_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE}
    with suppress(VerificationError):
        assert signed_digests(json.dumps({**head, "subject": subject}).encode())


# --- Signing ---


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key_signs_and_openssh_agrees(archive, keys, tmp_path, kind):
    said = signed(archive, keys[kind])
    assert said.lower().startswith(kind)
    statement, signature = statement_of(archive), signature_of(statement_of(archive))
    allowed = trust(tmp_path, line(keys[kind]))
    argv = ["ssh-keygen", "-Y", "verify", "-n", "valska", "-I", WHO]
    argv += ["-f", str(allowed.allowed), "-s", str(signature)]
    done = subprocess.run(argv, input=statement.read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    checked = verify_archive_signature(archive, allowed)
    assert (checked.findings, checked.signer, checked.key) == ((), WHO, said)
    mine = [path.name for path in archive.parent.iterdir() if path.name.startswith(archive.name)]
    assert sorted(mine) == [archive.name, statement.name, signature.name]


def test_a_signed_archive_is_not_signed_again(archive, keys):
    signed(archive, keys["ed25519"])
    before = signature_of(statement_of(archive)).read_bytes()
    with pytest.raises(TakenError, match="signed already"):
        prepare(archive)
    assert signature_of(statement_of(archive)).read_bytes() == before


def test_another_statement_is_not_replaced(archive, keys):
    statement_of(archive).write_text("mine\n")
    with pytest.raises(TakenError, match="something else"):
        prepare(archive)
    assert statement_of(archive).read_text() == "mine\n"
    statement_of(archive).unlink()
    signed(archive, keys["ed25519"])
    signature_of(statement_of(archive)).unlink()
    signed(archive, keys["rsa"])


def test_an_altered_archive_is_not_signed(archive):
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(VerificationError, match="is not signed"):
        prepare(archive)


def agent(monkeypatch, *keys):
    """Start an agent that holds keys; return its process id."""
    done = subprocess.run(["ssh-agent", "-s"], check=True, capture_output=True, text=True)
    said = dict(part.strip().split("=") for part in done.stdout.split(";") if "=" in part)
    monkeypatch.setenv("SSH_AUTH_SOCK", said["SSH_AUTH_SOCK"])
    for key in keys:
        subprocess.run(["ssh-add", "-q", str(key)], check=True)
    return int(said["SSH_AGENT_PID"])


@pytest.fixture
def askpass(tmp_path, monkeypatch):
    """A program that knows the passphrase."""
    program = tmp_path / "ask"
    program.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    return program


def test_an_agent_signs_with_a_key_whose_file_is_away(archive, keys, tmp_path, monkeypatch):
    public = Path(shutil.copy(f"{keys['ed25519']}.pub", tmp_path / "away.pub"))
    with pytest.raises(PrerequisiteError, match="private half") as caught:
        signed(archive, public)
    assert "ssh-add" in caught.value.hint
    assert not statement_of(archive).exists()
    process = agent(monkeypatch, keys["ed25519"])
    try:
        signed(archive, public)
    finally:
        os.kill(process, 15)
    assert not verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"]))).findings


def test_a_passphrase_is_asked_for(archive, keys, tmp_path, askpass):
    signed(archive, keys["locked"])
    assert not verify_archive_signature(archive, trust(tmp_path, line(keys["locked"]))).findings


def test_a_wrong_passphrase_is_an_error(archive, keys, askpass):
    askpass.write_text("#!/bin/sh\necho wrong\n")
    with pytest.raises(UsageError, match="passphrase") as caught:
        signed(archive, keys["locked"])
    assert "ssh-add" in caught.value.hint
    assert not statement_of(archive).exists()


def test_faulty_keys_are_told_apart(archive, keys, tmp_path):
    wide = Path(shutil.copy(keys["ed25519"], tmp_path / "wide"))
    wide.chmod(0o644)
    with pytest.raises(UsageError, match="others can read") as caught:
        signed(archive, wide)
    assert "chmod 600" in caught.value.hint
    (tmp_path / "text").write_text("no key\n")
    with pytest.raises(UsageError, match="not an SSH key"):
        signed(archive, tmp_path / "text")
    with pytest.raises(UsageError, match="there is no key"):
        find_key(tmp_path / "none", run)


@pytest.fixture
def stand_in(tmp_path_factory, monkeypatch):
    """Put another ssh-keygen before the real one: for faults that this one does not have."""

    def put(script):
        # The test's own directory has a colon in its name, which ends an entry of the path.
        program = tmp_path_factory.mktemp("bin") / "ssh-keygen"
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return put


@pytest.mark.parametrize(
    "text", ["unknown option -- Y", 'Unsupported operation for -Y: "sign"', "illegal option -- Y"]
)
def test_an_old_ssh_keygen_is_named(archive, keys, stand_in, text):
    stand_in(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
    with pytest.raises(PrerequisiteError, match="too old") as caught:
        signed(archive, keys["ed25519"])
    assert "8.2" in caught.value.hint


def test_the_words_of_openssh_8_4_for_an_absent_private_half(archive, keys, stand_in):
    stand_in("#!/bin/sh\necho 'Load key \"x\": No such file or directory' >&2\nexit 255\n")
    with pytest.raises(PrerequisiteError, match="private half"):
        signed(archive, keys["ed25519"])


def test_other_failures_are_quoted(archive, keys, stand_in):
    stand_in("#!/bin/sh\nprintf 'one\\nout of luck\\n' >&2\nexit 1\n")
    with pytest.raises(SigningError, match="out of luck"):
        signed(archive, keys["ed25519"])


def test_a_signature_that_does_not_hold_is_not_kept(archive, keys, stand_in):
    stand_in("#!/bin/sh\necho '-----BEGIN SSH SIGNATURE-----'\n")
    with pytest.raises(SigningError, match="does not hold"):
        signed(archive, keys["ed25519"])
    assert not statement_of(archive).exists()


def test_without_ssh_keygen(archive, keys, tmp_path, monkeypatch):
    ready, key = prepare(archive), find_key(keys["ed25519"], run)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(PrerequisiteError, match="no ssh-keygen") as caught:
        sign(ready, key)
    assert "openssh" in caught.value.hint


# --- Which key, and whom to trust ---


def settings(**values):
    """Tell git something, in the home of the test."""
    for name, value in values.items():
        argv = ["git", "config", "--global", name.replace("__", "."), str(value)]
        subprocess.run(argv, check=True)


def test_git_names_the_key(alone, keys):
    settings(gpg__format="ssh", user__signingkey=keys["rsa"])
    assert find_key(None, run).path == keys["rsa"]
    settings(gpg__format="ssh", user__signingkey="~/mine")
    with pytest.raises(UsageError, match="mine"):
        find_key(None, run)
    (alone / "mine").write_text("")
    assert find_key(None, run).path == alone / "mine"


@pytest.mark.parametrize("prefix", ["", "key::"])
def test_git_holds_the_public_key_itself(alone, archive, keys, tmp_path, monkeypatch, prefix):
    text = Path(f"{keys['ed25519']}.pub").read_text().strip()
    settings(gpg__format="ssh", user__signingkey=prefix + text)
    key = find_key(None, run)
    assert str(key) == " ".join(text.split()[:2])
    process = agent(monkeypatch, keys["ed25519"])
    try:
        sign(prepare(archive), key)
    finally:
        os.kill(process, 15)
    assert not verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"]))).findings


def test_the_first_default_key_is_taken(alone, keys):
    with pytest.raises(PrerequisiteError, match="no SSH key") as caught:
        find_key(None, run)
    assert "ssh-keygen -t ed25519" in caught.value.hint
    settings(gpg__format="openpgp", user__signingkey="ABCD1234")
    (alone / ".ssh").mkdir()
    for name in ("id_rsa.pub", "id_rsa", "id_ecdsa", "id_ed25519"):
        (alone / ".ssh" / name).write_text("")
        assert find_key(None, run).path == alone / ".ssh" / name


def test_a_public_half_is_taken_if_the_private_one_is_held(alone, keys, monkeypatch):
    (alone / ".ssh").mkdir()
    public = Path(shutil.copy(f"{keys['ed25519']}.pub", alone / ".ssh" / "id_ed25519.pub"))
    private = Path(shutil.copy(keys["rsa"], alone / ".ssh" / "id_rsa"))
    assert find_key(None, run).path == private
    process = agent(monkeypatch, keys["other"])
    try:
        assert find_key(None, run).path == private
        private.unlink()
        assert find_key(None, run).text.split()[2] == "other"
        subprocess.run(["ssh-add", "-q", str(keys["ed25519"])], check=True)
        assert find_key(None, run).path == public
    finally:
        os.kill(process, 15)


def test_without_git_the_default_key_is_taken(alone, tmp_path, monkeypatch):
    (alone / ".ssh").mkdir()
    (alone / ".ssh" / "id_rsa").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_key(None, run).path == alone / ".ssh" / "id_rsa"


def test_the_one_key_of_an_agent_is_taken(alone, archive, keys, tmp_path, monkeypatch):
    process = agent(monkeypatch, keys["ed25519"])
    try:
        sign(prepare(archive), find_key(None, run))
        subprocess.run(["ssh-add", "-q", str(keys["other"])], check=True)
        with pytest.raises(PrerequisiteError, match="an agent has 2 keys") as caught:
            find_key(None, run)
    finally:
        os.kill(process, 15)
    assert "ssh-add -L" in caught.value.hint
    assert not verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"]))).findings


def test_a_certificate_beside_a_key_of_an_agent_is_no_second_one(
    alone, keys, tmp_path, monkeypatch
):
    mine = Path(shutil.copy(keys["ed25519"], tmp_path / "mine"))
    public = Path(shutil.copy(f"{keys['ed25519']}.pub", tmp_path / "mine.pub"))
    argv = ["ssh-keygen", "-q", "-s", str(keys["other"]), "-I", "x", "-n", "anna", str(public)]
    subprocess.run(argv, check=True, capture_output=True)
    process = agent(monkeypatch, mine)
    try:
        held = subprocess.run(["ssh-add", "-L"], check=True, capture_output=True, text=True).stdout
        assert len(held.splitlines()) == 2
        assert str(find_key(None, run)) == " ".join(public.read_text().split()[:2])
    finally:
        os.kill(process, 15)


def test_the_home_of_a_user_whom_nobody_knows(alone, tmp_path):
    place = "~nobody-of-this-name/x"
    settings(gpg__format="ssh", user__signingkey=place)
    with pytest.raises(UsageError, match=f"no key {place}"):
        find_key(None, run)
    settings(gpg__ssh__allowedSignersFile=place)
    with pytest.raises(UsageError, match=f"allowed signers cannot be read from {place}"):
        find_trust(WHO, None, run)
    settings(gpg__ssh__revocationFile=place)
    with pytest.raises(UsageError, match=f"revoked keys cannot be read from {place}"):
        find_trust(WHO, tmp_path, run)


def test_an_agent_that_does_not_answer_has_no_key(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "none"))
    with pytest.raises(PrerequisiteError, match="no SSH key"):
        find_key(None, run)


def test_revoked_keys_and_a_date_go_with_who_may_sign(alone, tmp_path):
    allowed, revoked = tmp_path / "allowed", tmp_path / "revoked"
    allowed.write_text("")
    with pytest.raises(UsageError, match="the revoked keys cannot be read"):
        find_trust(WHO, allowed, run, revoked=revoked)
    settings(gpg__ssh__revocationFile=revoked)
    with pytest.raises(UsageError, match="the revoked keys cannot be read"):
        find_trust(WHO, allowed, run)
    revoked.write_text("")
    assert find_trust(WHO, allowed, run, date="20260301").revoked == revoked
    assert find_trust(str(allowed), None, run, date="20260301").date == "20260301"


@pytest.mark.parametrize("form", ["cut", "rubbish", "rubbish after", "options", "other type"])
def test_revoked_keys_that_are_not_understood_are_refused(alone, keys, tmp_path, form):
    """Before anything is verified; ssh-keygen does not tell them from keys that are revoked."""
    public = Path(f"{keys['other']}.pub").read_bytes()
    listed = tmp_path / "list"
    argv = ["ssh-keygen", "-k", "-q", "-f", listed, f"{keys['other']}.pub"]
    subprocess.run(argv, check=True)
    text, words = {
        "cut": (listed.read_bytes()[:-10], "incomplete message"),
        "rubbish": (b"# mine\n\nrubbish\n", "its line 3 is not a public key"),
        "rubbish after": (public + b"rubbish\n", "its line 2 is not a public key"),
        "options": (b"no-pty " + public, "its line 1 is not a public key"),
        "other type": (b"ssh-dss " + public.split()[1], "its line 1 is not a public key"),
    }[form]
    (tmp_path / "revoked").write_bytes(text)
    (tmp_path / "allowed").touch()
    with pytest.raises(UsageError, match=f"not understood: {words}") as caught:
        find_trust(str(tmp_path / "allowed"), None, run, revoked=tmp_path / "revoked")
    assert "ssh-keygen -k" in caught.value.hint
    good = (listed.read_bytes(), b"", public, b"\n# mine\n \n  " + public + public.rstrip())
    for content in good:
        (tmp_path / "revoked").write_bytes(content)
        find_trust(str(tmp_path / "allowed"), None, run, revoked=tmp_path / "revoked")


def test_a_revoked_key_before_a_line_that_is_not_understood_is_named(archive, keys, tmp_path):
    signed(archive, keys["ed25519"])
    revoked = tmp_path / "revoked"
    for key, words in (("ed25519", "revoked revokes"), ("other", "revoked is not understood: ")):
        revoked.write_text(Path(f"{keys[key]}.pub").read_text() + "rubbish\n")
        trusted = replace(trust(tmp_path, line(keys["ed25519"])), revoked=revoked)
        checked = verify_archive_signature(archive, trusted)
        assert checked.findings[0].detail.startswith(words)


@pytest.mark.parametrize("fault", ["broken", "directory", "variable"])
def test_what_git_cannot_read_is_not_taken_for_nothing(alone, keys, tmp_path, monkeypatch, fault):
    """It can name keys that are revoked."""
    (alone / "allowed").touch()
    settings(gpg__ssh__revocationFile=alone / "revoked", gpg__ssh__allowedSignersFile="allowed")
    config = alone / ".gitconfig"
    if fault == "broken":
        config.write_text(config.read_text() + "[gpg\n")
    elif fault == "directory":
        config.unlink()
        config.mkdir()
    else:
        monkeypatch.setenv("GIT_CONFIG_COUNT", "many")
    for ask in (
        lambda: find_trust(WHO, None, run),
        lambda: find_trust(str(alone / "allowed"), None, run),
        lambda: find_key(None, run),
    ):
        with pytest.raises(UsageError, match="git does not say whether") as caught:
            ask()
        assert "--revoked" in caught.value.hint
    (alone / "revoked").touch()
    find_trust(str(alone / "allowed"), None, run, revoked=alone / "revoked")
    assert find_key(keys["rsa"], run).path == keys["rsa"]


def test_a_signer_is_a_file_or_an_identity(alone, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.write_text("")
    assert find_trust(str(allowed), None, run) == Trust(allowed, None)
    assert find_trust(WHO, allowed, run) == Trust(allowed, WHO)
    with pytest.raises(UsageError, match="no file"):
        find_trust(WHO, None, run)
    settings(gpg__ssh__allowedSignersFile=allowed)
    assert find_trust(WHO, None, run) == Trust(allowed, WHO)
    with pytest.raises(UsageError, match="No such file"):
        find_trust(WHO, tmp_path / "none", run)
    with pytest.raises(UsageError, match="directory"):
        find_trust(WHO, tmp_path, run)
    with pytest.raises(UsageError, match="no identity"):
        find_trust("", allowed, run)


# --- Verifying ---


@dataclass(frozen=True)
class Case:
    """Lines of the file of allowed signers, as functions of the keys; and what is found."""

    lines: str
    kind: str | None
    identity: str | None = WHO
    said: str = ""


CASES = {
    "by the one": Case("{mine}", None),
    "by any": Case("{other}{mine}", None, identity=None),
    "by a pattern": Case("{pattern}", None),
    "by any of a pattern": Case("{pattern}", None, identity=None),
    "the second line": Case("{expired}{mine}", None),
    "for this purpose": Case("{purpose}", None),
    "unknown": Case("{other}", "unknown-signer", said="does not allow"),
    "unknown to all": Case("{other}", "unknown-signer", identity=None, said="does not allow"),
    "nobody": Case("", "unknown-signer"),
    "no such line": Case("rubbish\n", "unknown-signer", said="line 1 is not understood"),
    "another": Case("{mine}{other}", "wrong-signer", identity="bert@example.org", said=WHO),
    "expired": Case("{expired}", "expired-key", said="until 2020-01-01"),
    "expired for all": Case("{expired}", "expired-key", identity=None, said="until 2020"),
    "not yet": Case("{early}", "unknown-signer", said="before 2090"),
    "for git": Case("{git}", "unknown-signer", said="not allowed for valska"),
    "for git, any": Case("{git}", "unknown-signer", identity=None, said="not allowed for valska"),
    "an authority": Case("{authority}", "unknown-signer"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_who_signed(archive, keys, tmp_path, case):
    signed(archive, keys["ed25519"])
    mine, other = keys["ed25519"], keys["other"]
    text = case.lines.format(
        mine=line(mine),
        other=line(other),
        pattern=line(mine, "*@example.org"),
        expired=line(mine, options='valid-before="20200101Z"'),
        early=line(mine, options='valid-after="20900101Z"'),
        git=line(mine, options='namespaces="git"'),
        purpose=line(mine, options='namespaces="git,valska"'),
        authority=line(mine, options="cert-authority"),
    )
    checked = verify_archive_signature(archive, trust(tmp_path, text, case.identity))
    assert checked.key.startswith("ED25519 SHA256:")
    if case.kind is None:
        assert checked.findings == ()
        assert checked.signer in (WHO, "*@example.org")
        return
    assert checked.signer is None
    assert kinds(checked) == [(case.kind, "a.tar.zst.intoto.json.sig")]
    assert case.said in checked.findings[0].detail


@pytest.mark.parametrize("identity", [WHO, None])
@pytest.mark.parametrize("form", ["public keys", "list", "no list"])
def test_a_revoked_key_does_not_count(archive, keys, tmp_path, identity, form):
    signed(archive, keys["ed25519"])
    trusted = trust(tmp_path, line(keys["ed25519"]), identity)
    revoked = tmp_path / "revoked"

    def revoke(key):
        public = keys[key].with_name(f"{key}.pub")
        if form == "list":
            subprocess.run(["ssh-keygen", "-k", "-q", "-f", revoked, public], check=True)
        else:
            revoked.write_text(public.read_text() if form == "public keys" else "rubbish\n")

    revoke("ed25519")
    checked = verify_archive_signature(archive, replace(trusted, revoked=revoked))
    assert kinds(checked) == [("unknown-signer", "a.tar.zst.intoto.json.sig")]
    detail = checked.findings[0].detail
    if form == "no list":
        assert detail == "revoked is not understood: its line 1 is not a public key"
    else:
        assert re.fullmatch(r"revoked revokes the ED25519 key SHA256:\S+", detail)
    assert checked.signer is None
    if form != "no list":
        revoke("other")
        assert verify_archive_signature(archive, replace(trusted, revoked=revoked)).signer == WHO


@pytest.mark.parametrize("identity", [WHO, None])
def test_a_key_counts_as_of_the_day_that_is_named(archive, keys, tmp_path, identity):
    signed(archive, keys["ed25519"])
    text = line(keys["ed25519"], options='valid-after="20200101",valid-before="20210101"')
    trusted = trust(tmp_path, text, identity)
    for date, kind in (("", "expired-key"), ("20190601", "unknown-signer"), ("20200601", None)):
        checked = verify_archive_signature(archive, replace(trusted, date=date))
        assert [one.kind.value for one in checked.findings] == ([kind] if kind else [])


@pytest.mark.parametrize("identity", [WHO, None])
def test_a_key_that_expired_and_was_revoked_is_told_to_be_revoked(
    archive, keys, tmp_path, identity
):
    signed(archive, keys["ed25519"])
    text = line(keys["ed25519"], options='valid-after="20200101",valid-before="20210101"')
    trusted = trust(tmp_path, text, identity)
    for key, kind in (("ed25519", "unknown-signer"), ("other", "expired-key")):
        revoked = keys[key].with_name(f"{key}.pub")
        checked = verify_archive_signature(archive, replace(trusted, revoked=revoked))
        assert [one.kind.value for one in checked.findings] == [kind]
        assert ("revokes" in checked.findings[0].detail) == (key == "ed25519")
        assert checked.signer is None
        assert checked.key


def test_several_identities_of_a_key(archive, keys, tmp_path):
    signed(archive, keys["ed25519"])
    for who in ("eve@example.org,anna@example.org", "!eve@example.org,anna@example.org"):
        text = line(keys["ed25519"], who)
        assert verify_archive_signature(archive, trust(tmp_path, text)).signer == WHO
        anybody = verify_archive_signature(archive, trust(tmp_path, text, None)).signer
        assert anybody == who.split(",")["!" in who]
    shut_out = verify_archive_signature(archive, trust(tmp_path, text, "eve@example.org"))
    assert [one.kind.value for one in shut_out.findings] == ["wrong-signer"]


def replaced(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def test_an_archive_without_a_signature(archive, keys, tmp_path):
    by = trust(tmp_path, line(keys["ed25519"]))
    names = [f"{archive.name}.intoto.json", f"{archive.name}.intoto.json.sig"]
    assert kinds(verify_archive_signature(archive, by)) == [("missing", name) for name in names]
    signed(archive, keys["ed25519"])
    signature_of(statement_of(archive)).unlink()
    assert kinds(verify_archive_signature(archive, by)) == [("missing", names[1])]


def test_an_altered_archive_is_not_the_signed_one(archive, keys, tmp_path):
    signed(archive, keys["ed25519"])
    by = trust(tmp_path, line(keys["ed25519"]))
    archive.write_bytes(archive.read_bytes() + b"x")
    checked = verify_archive_signature(archive, by)
    assert kinds(checked) == [("altered", archive.name)]
    assert checked.signer is None
    assert kinds(verify_archive_signature(archive, by, "0" * 64)) == [("altered", archive.name)]


def test_a_statement_about_another_archive(archive, keys, tmp_path):
    """A whole, signed statement is laid beside an archive that it is not about."""
    signed(archive, keys["ed25519"])
    other = tmp_path / "b.tar.zst"
    bundle = finished(tmp_path)
    pack(bundle, other)
    shutil.copy(statement_of(archive), statement_of(other))
    shutil.copy(signature_of(statement_of(archive)), signature_of(statement_of(other)))
    checked = verify_archive_signature(other, trust(tmp_path, line(keys["ed25519"])))
    assert kinds(checked) == [("altered", "b.tar.zst")]


def test_an_altered_statement(archive, keys, tmp_path):
    signed(archive, keys["ed25519"])
    statement = statement_of(archive)
    replaced(statement, b'"tool": "toy"', b'"tool": "tot"')
    checked = verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"])))
    assert kinds(checked) == [("altered", statement.name)]


def test_a_statement_that_was_made_to_fit_another_archive(archive, keys, tmp_path):
    signed(archive, keys["ed25519"])
    digest = sha256_file(archive).encode()
    archive.write_bytes(archive.read_bytes() + b"x")
    replaced(statement_of(archive), digest, sha256_file(archive).encode())
    checked = verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"])))
    assert kinds(checked) == [("altered", statement_of(archive).name)]


def test_every_altered_byte_of_the_statement_is_found(archive, keys, tmp_path):
    signed(archive, keys["ed25519"])
    statement = statement_of(archive)
    data, by = statement.read_bytes(), trust(tmp_path, line(keys["ed25519"]))
    chance = random.Random(7)
    for place in [0, len(data) - 1, *chance.sample(range(len(data)), 40)]:
        altered = bytearray(data)
        altered[place] ^= 1 << chance.randrange(8)
        statement.write_bytes(altered)
        assert verify_archive_signature(archive, by).findings, place
    for end in (0, 1, len(data) - 1):
        statement.write_bytes(data[:end])
        assert verify_archive_signature(archive, by).findings, end


@pytest.mark.parametrize("text", [b"", b"rubbish", b"-----BEGIN SSH SIGNATURE-----\nU1N\n"])
def test_what_is_no_signature(archive, keys, tmp_path, text):
    signed(archive, keys["ed25519"])
    signature = signature_of(statement_of(archive))
    signature.write_bytes(text)
    checked = verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"])))
    assert kinds(checked) == [("unreadable", signature.name)]


def test_a_signature_for_something_else(archive, keys, tmp_path):
    signed(archive, keys["ed25519"])
    statement = statement_of(archive)
    signature_of(statement).unlink()
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(keys["ed25519"])]
    subprocess.run([*argv, str(statement)], check=True, capture_output=True)
    checked = verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"])))
    assert kinds(checked) == [("altered", signature_of(statement).name)]
    assert "something else" in checked.findings[0].detail


def test_a_signed_text_that_is_no_statement(archive, keys, tmp_path):
    statement = statement_of(archive)
    statement.write_text("{}")
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", "valska", "-f", str(keys["ed25519"])]
    subprocess.run([*argv, str(statement)], check=True, capture_output=True)
    checked = verify_archive_signature(archive, trust(tmp_path, line(keys["ed25519"])))
    assert kinds(checked) == [("unreadable", statement.name)]
    assert checked.signer is None


# --- Receipts ---


@pytest.fixture
def written(tmp_path):
    """A receipt."""
    data = receipt(
        kind="bundle",
        name="x",
        subject={"seal": "0" * 64},
        fast=False,
        findings=[],
        units=1,
        outputs={},
    )
    write_json_atomic(tmp_path / "r.json", data)
    return tmp_path / "r.json"


def test_a_receipt_is_signed_as_it_is(written, keys, tmp_path):
    signed(written, keys["ecdsa"])
    by = trust(tmp_path, line(keys["ecdsa"]))
    assert verify_signature(written, by).signer == WHO
    replaced(written, b'"intact": true', b'"intact": null')
    assert kinds(verify_signature(written, by)) == [("altered", "r.json")]


@pytest.mark.parametrize("text", ["{}", "{", '{"schema_version": "9.0"}', '{"a": "\\'])
def test_other_files_are_not_signed(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(NoArchiveError, match="is not an archive"):
        prepare(path)


def test_a_file_that_only_begins_like_a_receipt_is_not_read_whole(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.write(b"{")
        file.truncate(MOST_RECEIPT_BYTES * 8)
    with pytest.raises(NoArchiveError):
        prepare(path)
