"""Findings about a definition: each kind, and what must not be taken for one."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.definition import (
    DefinitionError,
    read_definition,
    shipped_definitions,
    spython_sections,
)
from valska.external_tools.core.images.linting import CODES, lint
from valska.external_tools.core.images.linting.shell import read_script
from valska.external_tools.core.images.sections import Line, read_sections
from valska.external_tools.core.images.syntax import SYNTAX_CODES

DIGEST = "a" * 64
COMMIT = "b" * 40
TEXT = f"""\
Bootstrap: docker
From: registry.example/library/python@sha256:{DIGEST}

%arguments
    lock=tool.lock

%files
    {{{{ lock }}}} /opt/tool.lock

%post
    true
POST
%labels
    org.opencontainers.image.title tool
    org.opencontainers.image.description A tool
    org.opencontainers.image.source https://example.org/tool
    org.opencontainers.image.version 1
    org.opencontainers.image.licenses BSD-3-Clause
    org.opencontainers.image.base.name registry.example/library/python:3.11
    org.opencontainers.image.base.digest sha256:{DIGEST}

%test
    true
"""
CLEAN = TEXT.replace("POST\n", "")
FIRST = TEXT.splitlines().index("POST") + 1
LOCK = f"click==8.1 \\\n    --hash=sha256:{DIGEST} \\\n    --hash=sha256:{COMMIT}{'c' * 24}\n"


@pytest.fixture
def look(tmp_path):
    def look(text, lock=LOCK, **arguments):
        (tmp_path / "tool.lock").write_text(lock)
        path = tmp_path / "tool.def"
        path.write_text(text)
        return lint(path, arguments)

    return look


@pytest.fixture
def post(look):
    """Look at lines of %post; return line within them and code of each finding."""

    def post(lines, **more):
        found = look(TEXT.replace("POST\n", lines + "\n"), **more)
        return [(finding.line - FIRST + 1, finding.code) for finding in found]

    return post


def test_a_clean_definition_has_no_findings(look):
    assert look(CLEAN) == ()


@pytest.mark.parametrize("name", sorted(shipped_definitions()))
def test_shipped_definitions_are_clean(name):
    assert lint(shipped_definitions()[name]) == ()


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        lint(tmp_path / "none.def")


def test_bytes_that_are_no_text_have_their_line(tmp_path):
    path = tmp_path / "x.def"
    path.write_bytes(b"Bootstrap: docker\nFrom: \xff\n")
    assert [(finding.line, finding.code) for finding in lint(path)] == [(2, "text")]


def test_a_byte_order_mark_is_named_and_nothing_else(look):
    assert [(finding.line, finding.code) for finding in look(f"\ufeff{CLEAN}")] == [
        (1, "byte-order-mark")
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "code", "words"),
    [
        ("From:", "Frm:", 2, "header", "'from'"),
        (f"From: registry.example/library/python@sha256:{DIGEST}\n", "", 1, "no-from", "From:"),
        ("Bootstrap: docker\n", "", 1, "no-bootstrap", "no Bootstrap"),
        ("Bootstrap: docker\n", "Bootstrap: dokcer\n", 1, "agent", "'docker'"),
        ("Bootstrap: docker\n", "Bootstrap: elsewhere\n", 1, "agent", "localimage"),
        ("Bootstrap: docker\n", "Bootstrap: docker\nBootstrap: docker\n", 2, "header-twice", "1"),
        ("From:", "From: x\nFrom:", 3, "header-twice", "line 2"),
        ("Bootstrap: docker\n", "Bootstrap: docker\nhello\n", 2, "header", "hello"),
        ("%test", "%tset", 21, "section", "'test'"),
        ("%test\n", "Bootstrap: docker\nFrom: x\n%test\n", 21, "stages", "stage"),
        ("    lock=tool.lock", "    lock tool.lock", 5, "argument-form", "NAME=VALUE"),
        ("    lock=", "    lock=a\n    lock=", 6, "argument-twice", "line 5"),
        ("    true\n%labels", "    echo {{ lock\n%labels", 11, "braces", "{{ name }}"),
        (f"@sha256:{DIGEST}\n\n", ":3.11\n\n", 2, "base-tag", "valska lock"),
        (f"@sha256:{DIGEST}\n\n", "@sha256:abc\n\n", 2, "base-tag", "64 digits"),
        (f"@sha256:{DIGEST}\n\n", f":3@sha256:{DIGEST}\n\n", 2, "base-both", "label"),
        (f"digest sha256:{DIGEST}", f"digest sha256:{'0' * 64}", 19, "base-labels", "digest"),
        (
            "base.name registry.example/library",
            "base.name registry.example/o",
            18,
            "base-labels",
            "",
        ),
        ("    org.opencontainers.image.title tool\n", "", 12, "labels", "image.title"),
        ("{{ lock }} /opt", "{{ lcok }} /opt", 8, "argument-undeclared", "'lock'"),
        ("lock=tool.lock", "lock=tool.lock\n    more=1", 6, "argument-unused", "{{ more }}"),
        ("lock=tool.lock", "lock=other.lock", 8, "files", "valska lock"),
        ("%test\n    true\n", "%test\n    # later\n", 21, "test", "%test"),
        ("%test\n    true\n", "", 1, "test", "%test"),
    ],
)
def test_each_finding_has_its_line_and_a_hint(look, old, new, line, code, words):
    assert old in CLEAN
    finding = {finding.code: finding for finding in look(CLEAN.replace(old, new, 1))}[code]
    assert finding.line == line
    assert words in f"{finding.message} {finding.hint}"
    assert code in CODES or code in SYNTAX_CODES


@pytest.mark.parametrize(
    ("source", "more", "why"),
    [
        ("/etc/hostname", "", "whole path"),
        ("/etc/*name", "", "whole path"),
        ("sub/../tool.lock", "", "down and up"),
        ("tool.lock", "%setup\n    true\n\n", "there is a %setup"),
        ("tool.lock", "%pre\n    true\n\n", "there is a %pre"),
        ("../*/tool.lock", "", None),
        ("./tool.lock", "", None),
        ("tool.lock", "", None),
    ],
)
def test_a_mode_of_this_machine_is_found(look, tmp_path, source, more, why):
    (tmp_path / "sub").mkdir()
    text = CLEAN.replace("{{ lock }}", source).replace("%test\n", f"{more}%test\n")
    found = [one for one in look(text) if one.code == "files-mode"]
    assert [(one.line, one.level) for one in found] == ([(8, "warning")] if why else [])
    assert all(why in one.message for one in found)
    allowed = text.replace("%files\n", "%files\n    # valska: allow files-mode chmod follows\n")
    assert {one.code for one in look(allowed)}.isdisjoint({"files-mode"} if why else ())


def test_all_findings_come_at_once_sorted_by_line(look):
    text = "Bootstrap: docker\nFrom: python:3\n%post\n pip install x\n%tset\n"
    found = [(finding.line, finding.code) for finding in look(text)]
    assert found == [(1, "labels"), (1, "test"), (2, "base-tag"), (4, "pip-name"), (5, "section")]


def test_reading_a_definition_names_the_line_of_its_first_error(tmp_path):
    path = tmp_path / "x.def"
    path.write_text("Bootstrap: docker\nFrom: x\n%pots\n true\n%tset\n true\n")
    with pytest.raises(DefinitionError, match=r"line 3: .*%pots") as caught:
        read_definition(path)
    assert "1 more" in caught.value.hint


def test_the_hint_on_a_tag_is_a_command_that_can_be_pasted(look, tmp_path):
    found = look(CLEAN.replace(f"@sha256:{DIGEST}\n\n", ":3.11\n\n"))
    (finding,) = [finding for finding in found if finding.code == "base-tag"]
    assert shlex.split(finding.hint.partition(": ")[2]) == [
        "valska",
        "lock",
        f"{tmp_path}/tool.def",
    ]


@pytest.mark.parametrize(
    ("agent", "base", "codes"),
    [
        ("localimage", "/images/base.sif", ["base-local"]),
        ("scratch", "", []),
        ("debootstrap", "", ["base-packages"]),
        ("library", "library/default/alpine:3", ["base-tag"]),
        ("library", f"library/default/alpine:sha256.{DIGEST}", []),
        ("oras", "127.0.0.1:5000/x:1", ["base-tag"]),
    ],
)
def test_every_kind_of_base(look, agent, base, codes):
    header = f"Bootstrap: {agent}\n" + (f"From: {base}\n" if base else "")
    text = header + CLEAN.partition("\n\n")[2]
    assert [finding.code for finding in look(text)] == codes


def test_docker_hub_is_meant_where_no_host_is(look):
    text = CLEAN.replace("registry.example/library/python:3.11", "docker.io/library/python:3.11")
    assert look(text.replace("registry.example/library/python", "python")) == ()


def test_build_arguments_are_filled_in(look, tmp_path):
    (tmp_path / "other.lock").write_text("click\n")
    assert look(CLEAN, lock="other.lock") == ()
    assert [finding.code for finding in look(CLEAN, lcok="x")] == ["argument-unknown"]


HASHED = "pip install --require-hashes --no-deps -r /opt/tool.lock"
CHECKED = f"echo '{DIGEST}  x.tgz' | sha256sum -c -"


@pytest.mark.parametrize(
    "lines",
    [
        HASHED,
        f"/opt/venv/bin/{HASHED}",
        f"python3 -m {HASHED}",
        f"uv {HASHED}",
        "python3 -m pip --no-cache-dir install \\\n   --require-hashes \\\n   -r /opt/tool.lock",
        "d=/opt\npip install --require-hashes -r $d/tool.lock",
        "export PIP_REQUIRE_HASHES=1\npip install -r /opt/tool.lock",
        "PIP_REQUIRE_HASHES=1 pip install -r /opt/tool.lock",
        "uv pip sync --require-hashes /opt/tool.lock",
        "uv sync --locked",
        "pip install --no-deps .",
        "pip install --no-index --find-links /wheels tool",
        f"pip install --no-deps https://x.org/a.whl#sha256={DIGEST}",
        f"pip install --no-deps git+https://x.org/a@{COMMIT}",
        "pip check; pip list; python -m pip --version; pip config set a b",
        "# pip install x",
        "echo pip install x",
        "echo 'a\n  pip install x\n'",
        "cat >/opt/README <<END\npip install x\ncurl -O https://x.org/x\nEND",
        "cat <<-'END'\n\tpip install x\n\tEND",
        "cat <<A; cat <<B\npip install x\nA\ncurl https://x.org/x\nB",
        f"curl -O https://x.org/x.tgz\n{CHECKED}",
        f"curl -fsSLo /tmp/x.tgz https://x.org/x && cd /tmp && {CHECKED}",
        f"wget https://x.org/x.tgz \\\n    && {CHECKED}",
        f"wget -qO x.tgz https://x.org/y\n{CHECKED}",
        f"curl https://x.org/x >x.tgz\n{CHECKED}",
        f"v=1.2\ncurl -O https://x.org/x-$v.tgz\necho '{DIGEST}  x-1.2.tgz' | sha256sum --check",
        f'f=x.tgz; curl -o "$f" https://x.org/x; echo "{DIGEST}  $f" | sha256sum -c',
        f"curl -o x.tgz https://x.org\ncat >sums <<E\n{DIGEST}  x.tgz\nE\nsha256sum -c sums",
        f"for f in a b; do curl -O https://x.org/$f; done\nprintf '%s\\n' '{DIGEST}  a' "
        f"'{DIGEST}  b' >sums\nsha256sum --check --strict sums",
        f'curl -o x.tgz https://x.org\n[ "$(sha256sum x.tgz | cut -c-64)" = {DIGEST} ] || exit 1',
        f"curl -o x.tgz https://x.org\nopenssl dgst -sha256 x.tgz | grep -q {DIGEST}",
        f'curl -o x.tgz https://x.org\ns=$(openssl dgst -sha256 x.tgz)\ntest "$s" = "x= {DIGEST}"',
        f"curl https://x.org | tee x.tgz >/dev/null; {CHECKED}",
        "curl --version; wget --help; curl -o x file:///opt/x",
        f"aria2c --checksum=sha-256={DIGEST} https://x.org/x",
        f"git clone https://x.org/x\ngit -C x checkout {COMMIT}",
        f"git init x; git fetch --depth 1 https://x.org/x {COMMIT}; git checkout FETCH_HEAD",
        "git config --global a b; git submodule update --init",
        "apt-get update && apt-get install -y --no-install-recommends curl=7.88.1-10 b=1",
        "apt-get install -y /opt/x.deb",
        "apk add --no-cache --virtual .b curl=8.5.0-r0",
        "dnf install -y bash-5.1.8-6.el9 x-1:2.0-1.el9.x86_64",
        "apt-get clean; apt-get update; dnf clean all; apk --version",
        "p='a=1 b=2'\napt-get install -y $p",
        "micromamba create -p /opt/c --file /opt/explicit.lock",
        f"python3 - <<E\nimport hashlib\nurlopen('x')\nassert h == '{DIGEST}'\nE",
        "conda clean --all; conda info",
        "rsync -a /a /b; cp -r a b",
    ],
)
def test_what_is_pinned_is_not_complained_of(post, lines):
    assert post(lines) == []


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("pip install -r /opt/tool.lock", [(1, "pip-hashes")]),
        ("pip install click", [(1, "pip-name")]),
        (
            "true\n\npython3 -m pip install \\\n    click \\\n    x",
            [(3, "pip-name"), (3, "pip-name")],
        ),
        ("if true; then pip3 install click; fi", [(1, "pip-name")]),
        ("x=$(pip install click)", [(1, "pip-name")]),
        ("x=`pip install click`", [(1, "pip-name")]),
        ("(cd / && sudo -u me pip install click)", [(1, "pip-name")]),
        ("bash -euc 'cd /\npip install click'", [(1, "pip-name")]),
        ("bash <<E\ncd /\npip install click\nE", [(3, "pip-name")]),
        ("f() {\n  pip install click\n}\nf", [(2, "pip-name")]),
        ("cat <<E | bash\ntrue\nE\npip install click", [(4, "pip-name")]),
        ("echo 'a\nb' # c\npip install click", [(3, "pip-name")]),
        ("pip install .", [(1, "pip-name")]),
        ("pip install -e /opt/x", [(1, "pip-name")]),
        ("xargs pip install </opt/names", [(1, "pip-name")]),
        ("pip install --no-deps https://x.org/a.whl", [(1, "fetch-unchecked")]),
        ("pip install --no-deps git+https://x.org/a@main", [(1, "fetch-unchecked")]),
        ("uv pip install click", [(1, "pip-name")]),
        ("uv tool install ruff", [(1, "pip-name")]),
        ("uv sync", [(1, "pip-hashes")]),
        ("uvx ruff", [(1, "pip-name")]),
        ("conda install -y -c conda-forge multinest", [(1, "conda")]),
        ("micromamba create -p /opt/c -f /opt/tool.lock", [(1, "conda")]),
        ("conda env create -f /opt/tool.lock", [(1, "conda")]),
        ("curl -O https://x.org/x.tgz\ntar xf x.tgz", [(1, "fetch-unchecked")]),
        ("curl -sSf https://x.org/install.sh | sh", [(1, "fetch-unchecked")]),
        ('bash -c "$(curl -fsSL https://x.org/install.sh)"', [(1, "fetch-unchecked")]),
        ("bash <(curl https://x.org/install.sh)", [(1, "fetch-unchecked")]),
        ("curl https://x.org/x.tgz | tar xz", [(1, "fetch-unchecked")]),
        ("/usr/bin/wget https://x.org/x.tgz", [(1, "fetch-unchecked")]),
        ("wget -i /opt/list", [(1, "fetch-unchecked")]),
        (f"{CHECKED}\ncurl -O https://x.org/x.tgz", [(2, "fetch-unchecked")]),
        (f"curl -O https://x.org/y.tgz\n{CHECKED}", [(1, "fetch-unchecked")]),
        (
            "curl -O https://x.org/x.tgz\ncurl -O https://x.org/SUMS\nsha256sum -c SUMS",
            [(1, "fetch-unchecked"), (2, "fetch-unchecked")],
        ),
        (
            "curl -O https://x.org/x.tgz; curl -o s https://x.org/S\ngrep x.tgz s | sha256sum -c -",
            [(1, "fetch-unchecked"), (1, "fetch-unchecked")],
        ),
        (
            "curl -O https://x.org/x.tgz\nsha256sum x.tgz >sums\nsha256sum -c sums",
            [(1, "fetch-unchecked")],
        ),
        ("curl -O https://x.org/x.tgz\nsha256sum x.tgz", [(1, "fetch-unchecked")]),
        ("conda env create -f env.yml", [(1, "conda")]),
        ("curl -o x https://x.org\nmd5sum -c sums", [(1, "fetch-unchecked")]),
        ("git clone https://x.org/x", [(1, "fetch-unchecked")]),
        ("git clone --branch v1 https://x.org/x\ngit checkout v1", [(1, "fetch-unchecked")]),
        (
            f"git clone https://x.org/x\ngit clone https://x.org/y\ngit -C y checkout {COMMIT}",
            [(1, "fetch-unchecked")],
        ),
        ("git -C /x pull", [(1, "fetch-unchecked")]),
        ("apt-get update && apt-get install -y \\\n  curl \\\n  git", [(1, "packages")]),
        ("apt-get -y install curl='7.*'", [(1, "packages")]),
        ("apt-get -y upgrade", [(1, "packages")]),
        ("apk add 'curl>8'", [(1, "packages")]),
        ("dnf -y install bash", [(1, "packages")]),
        ("apt-get install -y $(cat /opt/list)", [(1, "packages")]),
        ("python3 - <<E\nimport urllib\n\nurlopen('x')\nE", [(4, "fetch-python")]),
        ("python3 -c 'requests.get(1)'", [(1, "fetch-python")]),
        ("npm install x", [(1, "fetch-other")]),
        ("R -e 'install.packages(\"x\")'", [(1, "fetch-other")]),
        ("scp host:/x .", [(1, "fetch-other")]),
    ],
)
def test_what_is_not_pinned_is_found(post, lines, found):
    assert post(lines) == found


def test_checksums_that_are_copied_in_count(post):
    fetch = "curl -O https://x.org/x.tgz\n"
    sums = f"{DIGEST}  x.tgz\n"
    for check in ("sha256sum -c /opt/tool.lock", "grep x.tgz /opt/tool.lock | sha256sum -c"):
        assert post(fetch + check, lock=sums) == []
        assert post(fetch + check, lock=sums.replace("x.", "y.")) == [(1, "fetch-unchecked")]


def test_a_script_in_python_is_looked_at_as_one(look):
    text = CLEAN.replace("%post\n    true\n", "%post -c /usr/bin/python3\nurlopen('x')\n")
    assert [(finding.line, finding.code) for finding in look(text)] == [(11, "fetch-python")]


def test_a_list_without_every_hash_is_found(post):
    found = post(HASHED, lock=f"{LOCK}six==1.16\n# a comment\n--index-url https://x.org\n")
    assert found == [(1, "pip-hashes")]


def test_an_explicit_list_of_conda_packages_is_pinned(post):
    explicit = f"@EXPLICIT\n# a comment\nhttps://x.org/a.conda#{'d' * 32}\n"
    install = "conda create -p /c --file /opt/tool.lock"
    assert post(install, lock=explicit) == []
    assert post(install, lock=explicit + "https://x.org/b.conda\n") == [(1, "conda")]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("# valska: allow packages the archive is a snapshot\napt-get install -y x", []),
        ("apt-get install -y x  # valska: allow packages a snapshot", []),
        ("# valska: allow packages a snapshot\n# more\n\napt-get install -y \\\n  x", []),
        ("# valska: allow packages\napt-get install -y x", [(1, "excuse"), (2, "packages")]),
        ("# valska: allow package why\napt-get install x", [(1, "excuse"), (2, "packages")]),
        ("# valska: permit packages why\ntrue", [(1, "excuse")]),
        ("# valska: allow packages why\ntrue", [(1, "excuse")]),
        ("# valska: allow packages why\ntrue\napt-get install x", [(1, "excuse"), (3, "packages")]),
        ("python3 - <<E\n# valska: allow fetch-python why\nurlopen(1)\nE", []),
    ],
)
def test_a_comment_with_a_reason_excuses(post, lines, found):
    assert post(lines) == found


def test_every_code_is_explained():
    page = (Path(__file__).parents[2] / "docs/how-to/lock-an-image.md").read_text()
    rows = [f"| `{code}` | {text} |" for code, text in CODES.items()]
    assert [row for row in page.splitlines() if row.startswith("| `")] == rows


def test_both_readers_give_the_same_sections():
    for path in shipped_definitions().values():
        text = path.read_text()
        ours = [(s.name, [line.text.strip() for line in s.said()]) for s in read_sections(text)]
        theirs = [
            (s.name, [line.text.strip() for line in s.said()]) for s in spython_sections(text)
        ]
        assert ours == theirs


def test_a_line_with_a_percent_sign_begins_a_section_in_a_heredoc_too(post):
    """Apptainer 1.4 cuts there, and then refuses the section."""
    assert (2, "section") in post("cat <<E\n%load_ext x\nE")


@given(st.text(alphabet=st.sampled_from("ab \t\n\\'\"`$(){}<>|&;#=-E/:"), max_size=120))
def test_no_script_makes_the_reader_fail(text):
    lines = [Line(number, line) for number, line in enumerate(text.split("\n"), 1)]
    for command in read_script(lines):
        assert 1 <= command.line <= command.last <= len(lines)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_no_text_makes_the_lint_fail(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any-lint.def"
    path.write_text(f"Bootstrap: docker\nFrom: x\n%post\n{text}")
    found = lint(path)
    assert [finding.line for finding in found] == sorted(finding.line for finding in found)


def test_deep_nesting_is_survived():
    (command,) = read_script([Line(1, "echo " + "$(" * 500 + "x")])[-1:]
    assert command.line == 1


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("yum install -y https://x.example/y.rpm", "fetch-unchecked"),
        ("rpm -ivh https://x.example/y.rpm", "fetch-unchecked"),
        ("dnf module install nodejs:18", "packages"),
        ("dnf builddep foo", "packages"),
        ("zypper -n in foo", "packages"),
        ("pacman -Sy --noconfirm foo", "packages"),
        ('apt-get satisfy -y "foo (>= 1)"', "packages"),
        ("eatmydata apt-get install -y foo", "packages"),
        ("chroot /rootfs apt-get install -y foo", "packages"),
        ("nice -n 10 ionice -c3 wget https://x.example/y", "fetch-unchecked"),
        ("conda run -n base pip install foo", "pip-name"),
        ("/opt/bin/micromamba run --prefix /opt/e pip install foo", "pip-name"),
        ("python3 -Im pip install foo", "pip-name"),
        ("conda update -y --all", "conda"),
        ("easy_install foo", "fetch-other"),
        ("git submodule update --init --remote", "fetch-unchecked"),
        (
            f"curl -O https://x.example/f; echo '{DIGEST}  f' | sha256sum -c || true",
            "fetch-unchecked",
        ),
    ],
)
def test_what_is_installed_in_roundabout_ways_is_found(post, line, code):
    assert post(line) == [(1, code)]


@pytest.mark.parametrize(
    "lines",
    [
        'get() {\n    curl -o "$2" "$1"\n    echo "$3  $2" | sha256sum -c -\n}',
        "curl -sf http://localhost:8080/health",
        "git clone /opt/local.git /opt/x",
        "yum install -y /opt/foo.rpm && rpm -qa && rpm -ivh /opt/x.rpm",
        "conda run -n base python -c 'import numpy'",
        f"curl -O https://x.example/f; echo '{DIGEST}  f' | sha256sum -c && ls",
    ],
)
def test_what_stays_on_this_machine_or_is_checked_is_not_found(post, lines):
    assert post(lines) == []
