"""Authors, licences, citations, and what must not be packed."""

import time

import pytest
import yaml

from valska.external_tools.core.archive.errors import SecretsError
from valska.external_tools.core.archive.members import file_member, made
from valska.external_tools.core.archive.people import (
    Author,
    Description,
    Organisation,
    check_license,
    citation_text,
    merged,
    parse_author,
    parse_organisation,
    read_citation,
)
from valska.external_tools.core.archive.secrets import find_secrets, require_no_secrets
from valska.external_tools.core.errors import UsageError

ORCID = "0000-0002-1825-0097"


@pytest.mark.parametrize(
    ("text", "author"),
    [
        ("Ada", Author("Ada")),
        (f"Josiah Carberry <{ORCID}>", Author("Josiah Carberry", ORCID)),
        (f"J. C. <https://orcid.org/{ORCID}>", Author("J. C.", ORCID)),
        (f"J <{ORCID}>, Brown", Author("J", ORCID, Organisation("Brown"))),
        ("J, Brown <https://b.edu>", Author("J", None, Organisation("Brown", "https://b.edu"))),
    ],
)
def test_authors_are_read(text, author):
    assert parse_author(text) == author


@pytest.mark.parametrize(
    "text", ["", "<x>", "A <0000-0002-1825-0098>", "A <1>", "A <>", "A\nB", f"<{ORCID}>"]
)
def test_other_authors_are_refused(text):
    with pytest.raises(UsageError):
        parse_author(text)


def test_organisations_and_licences_are_checked():
    assert parse_organisation("Zenodo <https://zenodo.org>").url == "https://zenodo.org"
    assert check_license("CC-BY-4.0") == "CC-BY-4.0"
    assert check_license("https://example.org/l") == "https://example.org/l"
    for text in ("", "all rights", "ftp://x"):
        with pytest.raises(UsageError):
            check_license(text)
    with pytest.raises(UsageError):
        parse_organisation("<https://zenodo.org>")


def test_a_citation_is_written_and_read_again(tmp_path):
    about = Description(
        title="Sky: noise",
        authors=(Author("Josiah Carberry", ORCID, Organisation("Brown")), Author("Plato")),
        license="CC-BY-4.0",
    )
    path = tmp_path / "CITATION.cff"
    path.write_bytes(citation_text(about, "2026-01-02T03:04:05Z", "toy"))
    data = yaml.safe_load(path.read_text())
    assert data["cff-version"] == "1.2.0"
    assert data["date-released"] == "2026-01-02"
    again = read_citation(path)
    assert (again.title, again.authors, again.license) == (
        about.title,
        about.authors,
        about.license,
    )
    asked = merged(again, Description(title="Other"))
    assert asked.title == "Other"
    assert asked.authors == about.authors


@pytest.mark.parametrize("text", ["", "a: [", "title: x\n", "authors: 3\ntitle: x\n", "[1]"])
def test_other_citations_are_refused(tmp_path, text):
    path = tmp_path / "CITATION.cff"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_citation(path)


# Put together here, so that nothing in this file looks like a secret itself.
SECRETS = [
    "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "-----BEGIN " + "PRIVATE KEY-----",
    "key = AKIA" + "ABCDEFGHIJKLMNOP",
    "export T=ghp_" + "a" * 36,
    "github_pat_" + "A" * 22 + "_x",
    "glpat-" + "a" * 20,
    "xoxb-" + "1" * 12,
    "AIza" + "b" * 35,
    "hf_" + "c" * 34,
    "sk-proj-" + "d" * 24,
    "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 20,
    "git clone https://me:" + "hunter2hunter@example.org/x",
    "Authorization: " + "Bearer abcdef",
    "password: " + "hunter22",
    "DB_PASSWORD=" + "hunter22",
    "  api_key : '" + "abcd1234'",
    '{"access_token": "' + 'abcd1234"}',
    "export aws_secret_access_key=" + "w" * 40,
    '"site_env": "export MY_TOKEN=' + 'abcd1234\\n"',
    "export PGPASSWORD=" + "hunter22",
    "DB_PASS=" + "hunter22",
    "MYSQL_PWD=" + "hunter22",
    "dbPassword: " + "hunter22",
    "accessToken: " + "abcd1234",
    "clientSecret: " + "abcd1234",
    "//npm.example.org/:_authToken=" + "abcd1234",
    '"auth": "' + 'bWU6aHVudGVyMjI="',
    "AccountKey=" + "abcd1234" * 4 + "==",
    "mysql --password " + "hunter22",
    "curl -s -u me:" + "hunter22 https://example.org",
    "machine example.org login me password " + "hunter22",
    "Authorization: " + "token abcd1234",
    "AGE-SECRET-KEY-" + "1" + "Q" * 58,
    "PuTTY-User-" + "Key-File-3: ssh-ed25519",
    "sk_" + "live_" + "a" * 24,
    "sk-ant-" + "api03-" + "a" * 40,
    "SG." + "a" * 22 + "." + "b" * 43,
    "ya29." + "a" * 40,
    "GOCSPX-" + "a" * 28,
    "dop_v1_" + "0" * 64,
]
HARMLESS = [
    "password: null",
    "password:",
    "password: ${PASSWORD}",
    'token="$TOKEN"',
    "token_file: /etc/token",
    '"token": "ab12cd34"',
    "tokens: 5",
    "secretary: Bob",
    "https://example.org:8080/a@b",
    "sha256: " + "a" * 64,
    "the password is asked for",
    "risk-" + "a" * 30,
    "passwordless: true",
    "--mount /etc/passwd:/etc/passwd",
    "bypass: none of it",
    "first_pass: ${PASS}",
    "curl -fsSL https://example.org/x",
    '"auth": "none"',
    "task-" + "a" * 30,
    "--token ${TOKEN}",
    "api_key: <your key>",
    '"base-passwd": "3.6.1"',
    '"passwd": "1:4.13+dfsg1-1+deb12u2"',
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_found(text):
    (found,) = find_secrets(f"first: 1\n{text}\nlast: 2\n".encode(), "x.yaml")
    assert (found.path, found.line) == ("x.yaml", 2)
    assert "hunter" not in str(found)
    assert "abcd1234" not in str(found)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_passes(text):
    assert list(find_secrets(f"first: 1\n{text}\nlast: 2\n".encode(), "x.yaml")) == []


@pytest.mark.parametrize(
    "line", ["password " + "aB3_" * 300_000, "://" + "a" * 1_000_000, "curl " * 100_000]
)
def test_a_long_line_is_looked_through_in_a_moment(line):
    started = time.monotonic()
    assert list(find_secrets(line.encode(), "x.txt")) == []
    assert time.monotonic() - started < 30


def test_secrets_stop_the_archive_with_their_places(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: 1\npassword: " + "hunter22\n")
    members = [
        file_member("data/bundle/config/run.yaml", str(path)),
        made("data/bundle/submit_x.sh", b"#!/bin/bash\nexport X=ghp_" + b"a" * 36),
        made("data/bundle/outputs/x.txt", b"password: " + b"hunter22"),
        made("data/bundle/inputs/sky.bin", b"\0password: " + b"hunter22"),
    ]
    with pytest.raises(SecretsError) as caught:
        require_no_secrets(members)
    message = caught.value.message
    assert "config/run.yaml:2 (password)" in message
    assert "submit_x.sh:2 (GitHub token)" in message
    assert "outputs" not in message
    assert "hunter" not in message
    require_no_secrets(members, ["config/run.yaml:2", "submit_x.sh:2"])
