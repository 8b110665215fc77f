"""What must not be packed: what is taken for a secret, what is not, and where it is named."""

import re

import pytest
from archives import finished, pack

from valska.external_tools.core.archive.errors import SecretsError
from valska.external_tools.core.archive.members import file_member, made
from valska.external_tools.core.archive.secrets import find_secrets, require_no_secrets
from valska.external_tools.core.archive.shapes import SHAPES

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
    "hvs." + "a" * 24,
    "sshpass -p " + "hunter22 ssh me@example.org",
    "sshpass -v -p" + "hunter22 ssh me@example.org",
    "openssl enc -pass " + "pass:hunter22",
    "curl --user=me:" + "hunter22 https://example.org",
    "pass: " + "hunter22",
    "  - pwd: " + "hunter22",
    "{'user': 'me', 'pass': '" + "hunter22'}",
    "Server=x;pwd=" + "hunter22;",
    "export PASS=" + "hunter22",
    "token=" + "ab12cd34",
    "token = " + "ab12cd34ef56",
    '"token": "' + 'ab12cd34"',
    "HFTOKEN=" + "abcd1234",
    "githubToken: " + "abcd1234",
    "password: '" + "&hunter22'",
    "api-key: " + "abcd1234",
    "<password>" + "hunter22</password>",
    "https://example.org/?token=" + "abcd1234",
    "PASSWORD := " + "hunter22",
    "'password' => '" + "hunter22'",
    'password: "' + "hunter22" + "z" * 600,
    'password: "' + "hunter22 " + "z" * 600 + '"',
    "password: [" + "hunter22]",
    "password: ['" + "hunter22']",
    "password = " + "ab(hunter22",
    "password = " + "ab(hunter22)",
    "password = https://" + "hunter22",
    "secret: https://hooks.example.org/" + "T0hunter22",
    "token: " + "1234567",
    "githubtoken: " + "abcd1234",
    "ldapsecret: " + "abcd1234",
    "consumersecret: " + "abcd1234",
    'os.environ["DB_' + 'PASSWORD"] = "hunter22"',
    "x['pass'] = '" + "hunter22'",
    'password = """' + 'hunter22"""',
    "token = '''" + "\nabcd1234\n'''",
    '"password":\n    "' + 'hunter22"',
    '{"token": \r\n"' + 'abcd1234"}',
    "password: |\n  " + "hunter22",
    "- secret: >-\n    " + "abcd1234\n  other: 1",
]
SECRETS += [
    "redis://:" + "hunter2hunter@example.org:6379/0",
    '"identitytoken": "' + 'abcd1234"',
    '"registrytoken": "' + 'abcd1234"',
    "docker login -u me -p " + "hunter22 example.org",
    "apptainer remote login -u me --password=" + "hunter22 oras://example.org",
    "podman login example.org -p" + "hunter22",
    "wandb login --relogin " + "0" * 40,
    "https://hooks.slack.com/services/" + "T0000000/B0000000/" + "x" * 24,
    "https://discord.com/api/webhooks/" + "1" * 18 + "/" + "y" * 68,
    "https://conda.example.org/t/" + "an-" + "0a1b2c3d-" * 4 + "/channel",
    "    client-key-data: " + "LS0t" * 20,
    "- name: DB_PASSWORD" + "\n  value: hunter22",
    '{"name": "password", ' + '"value": "hunter22"}',
]
PROGRAM = [
    'password: str = "' + 'hunter22"',
    'API_TOKEN: Final = "' + 'abcd1234"',
    'API_TOKEN: "Final[str]" = "' + 'abcd1234"',
    "    password: dict[str, list[int]] | None = '" + "hunter22'",
    'def f(user: str, password: Optional[str] = "' + 'hunter22"): ...',
    "# password: " + "hunter22",
    "x = 1  # the old token = " + "abcd1234",
    'password = "' + "hunter22" + "z" * 600 + '"',
    'os.environ["DB_' + 'PASSWORD"] = "hunter22"',
    'SECRET = """' + 'abcd1234"""',
]
HARMLESS_PROGRAM = [
    'def f(token: str, mode="fast"): ...',
    'def f(token: str = "", mode="fast"): ...',
    'def f(token: list[str], other: dict[str, int] = "x"): ...',
    "def f(password: Optional[str] = None): ...",
    "    password: str = field(default_factory=read2)",
    "    token: str | None = other2",
    "# the token: what a person gets",
    "# returns token: str",
    "# token = next(x2)",
    "token = tokens[place + 1]",
    'if config["token"] == "abcd1234":',
    'if config["token"]:\n    "x"',
    'class Secret:\n    """What must not be told."""',
    'password = """"""',
    "token = '''${TOKEN}\n'''",
]
HARMLESS = [
    "band_pass: butterworth",
    'low_pass: "fir"',
    "high-pass: 0.1",
    "pass: 1e-3",
    "pwd: work/run1",
    "- name: token\n  value: 2048",
    "name: password\nvalue: ${DB}",
    "https://example.org/t/index.html",
    "docker login -u me --password-stdin",
    "redis://example.org:6379/0",
    "password: null",
    "password:",
    "password: ${PASSWORD}",
    'token="$TOKEN"',
    "token_file: /etc/token",
    "tokens: 5",
    "max_token: 2048",
    "max_tokens = 4096",
    "token = next(x)",
    "    token = tokens[0]",
    "password = getpass.getpass()",
    "if token == other:",
    "passwd: files",
    "passwd:         files systemd",
    "passwd: compat",
    "PASS: test_one",
    "second pass: all of it",
    "pass: 3",
    "pass: ok",
    "PWD=/bundle/outputs",
    "OLDPWD=/bundle",
    "pwd: /bundle",
    "pwd = Path.cwd()",
    "sshpass -e ssh me@example.org",
    'sshpass -p "$PASSWORD" ssh me@example.org',
    "docker run -u root:root image",
    "cp /run/secrets/token: there",
    "password: '***'",
    "secret: *anchor",
    "<token></token>",
    '"api_key": []',
    "Authorization: " + "Bearer %s",
    "logs/local-<token>.json",
    '"ticketToken": "https://schema.org/ticketToken"',
    "std::token::kind",
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
    '"password":\n    "${PASSWORD}"',
    '"secret":\n  "name": of-it',
    "secret: |\n  What is said of it in some words.",
    "password: >\n  ${PASSWORD}",
    "password: |",
    '"credentials": [',
    "password: []",
    "# CONFIG PASSWD: [BOOL]",
    "[token]: the page on it",
    "secret: https://example.org/v1.2/on/secrets",
    "token: 12345",
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


@pytest.mark.parametrize("text", PROGRAM)
def test_secrets_in_a_program_are_found(text):
    (found,) = find_secrets(f"first = 1\n{text}\nlast = 2\n".encode(), "x.py")
    assert found.line == 2


@pytest.mark.parametrize("text", [*HARMLESS_PROGRAM, *HARMLESS])
def test_what_is_harmless_in_a_program_passes(text):
    assert list(find_secrets(f"first = 1\n{text}\nlast = 2\n".encode(), "x.py")) == []


def test_a_call_is_a_value_only_in_code():
    text = b"token = read_it(name, 2)\n"
    assert [len(list(find_secrets(text, f"x.{end}"))) for end in ("sh", "def", "yaml")] == [0, 0, 1]


def test_in_a_program_only_what_is_quoted_is_a_value():
    lines = ["def f(token: str, password: bytes = x): ...", "token = other", "secret: bool = y"]
    assert list(find_secrets("\n".join(lines).encode(), "run.py")) == []
    text = "password = '" + "hunter22'\nd = {'token': b'" + "abcd1234'}\n"
    assert [one.line for one in find_secrets(text.encode(), "run.py")] == [1, 2]


def test_what_tells_submissions_apart_is_no_secret():
    text = b'{"token": "ab12cd34"}'
    for path in ("jobs.json", "jobs_20260102T030405Z.json", "logs/local-ab12cd34.json"):
        assert list(find_secrets(text, path)) == []
    assert list(find_secrets(text, "inputs/x.json"))
    longer = b'{"token": "' + b"ab12cd34ab12cd34" + b'"}'
    assert list(find_secrets(longer, "jobs.json"))


@pytest.mark.parametrize(
    "part",
    [
        *("password ", "aB3_", "curl ", "curl -u a", "://a", "://a:b", "eyJ", "eyJ-", "login x "),
        *("login  ", 'password: "', "token='", "secret", "sshpass -v ", "-----BEGIN A A "),
        *('token="""', '"token":\t', "token: a[", "token: a | ", "# token=", "password: |"),
        *("authorization: ", "<secret>", "--token ", "0.123, ", "pass", "api_", "a_"),
    ],
)
def test_a_line_of_megabytes_is_looked_through(part):
    line = part.encode() * ((1 << 21) // len(part))
    assert len(list(find_secrets(line, "x.txt"))) <= 1


def test_each_line_is_named_once_and_each_by_its_number():
    line = b"password: " + b"hunter22 api_key=" + b"abcd1234 ghp_" + b"a" * 36
    found = list(find_secrets(b"\n".join([b"x", line, b"", line]), "x.txt"))
    assert [(one.line, one.kind) for one in found] == [(2, "password"), (4, "password")]


def test_a_file_that_begins_as_text_is_searched_to_its_end():
    secret = b"\npassword: " + b"hunter22"
    assert list(find_secrets(b"x" * 9000 + b"\0" + secret, "x.log"))
    assert list(find_secrets(b"\0" + secret, "x.log")) == []


def test_every_shape_begins_with_one_of_its_clues():
    for text in SECRETS:
        for shape in SHAPES:
            for match in re.finditer(shape.pattern, text.encode()):
                assert match[0].lower().startswith(shape.clues), shape.kind


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


def test_a_line_that_is_allowed_is_packed(tmp_path):
    bundle = finished(tmp_path)
    (bundle.logs / "mine.log").write_text("first\nsshpass -p " + "hunter22 ssh x\n")
    with pytest.raises(SecretsError, match=r"logs/mine\.log:2 \(password of an option\)") as caught:
        pack(bundle, tmp_path / "a.tar.zst")
    assert "--allow-secret FILE:LINE" in str(caught.value.hint)
    pack(bundle, tmp_path / "a.tar.zst", allowed_secrets=["logs/mine.log:2"])
    assert (tmp_path / "a.tar.zst").is_file()


def test_a_secret_among_very_many_small_files_is_found():
    plain = [made(f"data/bundle/config/{number:05}.yaml", b"x: 1\n") for number in range(9_000)]
    held = made("data/bundle/config/09000.yaml", b"y: 2\napi_key: 8f3kd92mQx7\n")
    with pytest.raises(SecretsError, match=r"config/09000\.yaml:2 "):
        require_no_secrets([*plain, held, *plain])


def test_files_of_one_name_in_bundle_and_archive_are_both_looked_into():
    secret = b"password: 8f3kd92mQx7\n"
    both = [made("data/bundle/data/a.yaml", secret), made("data/a.yaml", b"x: 1\n")]
    with pytest.raises(SecretsError):
        require_no_secrets(both)
