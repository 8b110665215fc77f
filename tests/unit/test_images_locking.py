"""Locks: their form, what is rewritten in a definition, and pins made by the real uv."""

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpleindex import add_wheel

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.images.definition import (
    DefinitionError,
    read_definition,
    shipped_definitions,
)
from valska.external_tools.core.images.linting import lint
from valska.external_tools.core.images.locking.document import (
    Lock,
    LockError,
    parse_lock,
    read_lock,
)
from valska.external_tools.core.images.locking.lock import (
    LockRequest,
    draft_lock,
    lock_path,
    write_lock,
)
from valska.external_tools.core.images.locking.pins import (
    check_pins,
    pinned_versions,
    unhashed,
)
from valska.external_tools.core.images.locking.rewriting import rewrite
from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.utils import sha256_file

DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
NOWHERE = Http(attempts=1, timeout=(1, 1), environ={"HOME": "/nonexistent"})
TEXT = f"""\
Bootstrap: docker
From: 127.0.0.1:9/library/python@{DIGEST}  # pinned

%arguments
    lock=tool.lock
%files
    {{{{ lock }}}} /opt/tool.lock
%post
    pip install --require-hashes -r /opt/tool.lock
%labels
\torg.opencontainers.image.base.name 127.0.0.1:9/library/python:3.11
\torg.opencontainers.image.base.digest {DIGEST}
%test
    true
"""
LOCK = Lock(
    version="0.3",
    command="valska lock tool.def",
    base="127.0.0.1:9/library/python:3.11",
    base_digest=DIGEST,
    platform="linux/amd64",
    python="3.11",
    source_date_epoch=1767225600,
    requirements=("tool.in", "c" * 64),
    resolver="uv 1.2.3",
    pins_sha256="d" * 64,
    pins="click==8.1 \\\n    --hash=sha256:00\n    # via -r tool.in\n",
)


def test_a_lock_is_read_as_it_is_written():
    assert parse_lock(LOCK.to_text(), "x") == LOCK
    assert LOCK.to_text().startswith("# Locked by valska 0.3: valska lock tool.def\n# base: 127")
    assert parse_lock(replace(LOCK, pins="").to_text(), "x") == replace(LOCK, pins="")


def test_requirements_without_our_header_are_a_lock_that_says_nothing():
    text = "# base: not ours\nclick==8.1\n"
    assert parse_lock(text, "x") == Lock(pins=text)
    assert Lock(pins=text).to_text() == text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base-digest", "sha256:12"),
        ("source-date-epoch", "yesterday"),
        ("source-date-epoch", "-1"),
        ("requirements", "x.in"),
        ("pins", "many"),
    ],
)
def test_a_field_without_a_meaning_is_refused(tmp_path, key, value):
    path = tmp_path / "x.lock"
    path.write_text(f"# Locked by valska 1: valska lock x.def\n# {key}: {value}\n")
    with pytest.raises(LockError, match=f"x.lock says {key}") as caught:
        read_lock(path)
    assert caught.value.exit_code == 2


def test_a_field_of_a_later_version_is_passed_over():
    text = LOCK.to_text().replace("# python:", "# colour: red\n# python:")
    assert parse_lock(text, "x") == LOCK


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r"), max_size=300))
def test_no_text_makes_the_reader_fail_otherwise(text):
    for one in (text, f"# Locked by valska 1: x\n{text}"):
        try:
            lock = parse_lock(one, "x")
        except LockError:
            continue
        assert parse_lock(lock.to_text(), "x") == lock


def test_only_the_base_and_its_labels_change():
    labels = {
        "org.opencontainers.image.base.name": "127.0.0.1:9/library/python:3.11",
        "org.opencontainers.image.base.digest": OTHER,
    }
    text = rewrite(TEXT, f"127.0.0.1:9/library/python@{OTHER}", labels)
    assert text == TEXT.replace(DIGEST, OTHER)
    windows = TEXT.replace("\n", "\r\n")
    assert rewrite(windows, f"127.0.0.1:9/library/python@{OTHER}", labels) == windows.replace(
        DIGEST, OTHER
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("%labels\n  a b\n\n%test\n  true\n", "%labels\n  a b\n  x 1\n\n%test\n  true\n"),
        ("%labels\n%test\n  true\n", "%labels\n    x 1\n%test\n  true\n"),
        ("%test\n  true\n", "%test\n  true\n\n%labels\n    x 1\n"),
        ("%test\n  true", "%test\n  true\n\n%labels\n    x 1\n"),
        ("%labels\n  x 0", "%labels\n  x 1"),
    ],
)
def test_a_label_that_is_missing_is_added_after_the_others(before, after):
    header = "Bootstrap: docker\nFrom: x\n\n"
    assert rewrite(header + before, "x", {"x": "1"}) == header + after


@pytest.fixture
def index(tmp_path):
    index = tmp_path / "index"
    add_wheel(index, "tiny-tool", "1.0", ["leaf>=1"])
    add_wheel(index, "leaf", "1.0")
    return index


@pytest.fixture
def environ(index):
    return {"PATH": os.environ["PATH"], "HOME": str(index), "UV_DEFAULT_INDEX": index.as_uri()}


@pytest.fixture
def written(tmp_path):
    (tmp_path / "tool.in").write_text("tiny-tool\n")
    path = tmp_path / "tool.def"
    path.write_text(TEXT)
    return path


@pytest.fixture
def draft(written, environ):
    def draft(**options):
        environment = {**environ, **options.pop("environ", {})}
        options = {"python": "3.11", "platform": "linux/amd64", "http": NOWHERE, **options}
        return draft_lock(LockRequest(definition=written, environ=environment, **options))

    return draft


@pytest.fixture
def lock(draft):
    def lock(**options):
        drafted = draft(**options)
        write_lock(drafted)
        return drafted

    return lock


def whats(drafted):
    return {change.what: (change.old, change.new) for change in drafted.changes}


def test_a_pinned_definition_is_locked_without_asking_its_registry(written, lock, draft):
    made = read_lock(lock().path)
    assert (made.base, made.base_digest) == ("127.0.0.1:9/library/python:3.11", DIGEST)
    assert (made.python, made.platform, made.resolver[:3]) == ("3.11", "linux/amd64", "uv ")
    assert made.requirements == ("tool.in", sha256_file(written.with_suffix(".in")))
    assert pinned_versions(made.pins) == {"leaf": "1.0", "tiny-tool": "1.0"}
    assert unhashed(made.pins) == []
    assert "# via -r tool.in" in made.pins
    assert written.read_text() == TEXT
    assert not [finding for finding in lint(written) if finding.code not in ("labels",)]


def test_the_same_again_gives_the_same_bytes_and_asks_nobody(written, lock, draft):
    first = lock().path.read_bytes()
    again = draft(environ={"UV_DEFAULT_INDEX": "http://127.0.0.1:9/"}, python=None, platform=None)
    assert (again.changes, dict(again.texts)) == ((), {})
    lock()
    assert written.with_suffix(".lock").read_bytes() == first


def test_another_version_of_valska_or_uv_makes_no_difference(lock, draft):
    path = lock().path
    path.write_text(
        path.read_text().replace("by valska ", "by valska 99.").replace(" uv ", " uv 9.")
    )
    assert draft().changes == ()


def test_pins_stay_until_they_are_to_be_upgraded(index, written, lock, draft):
    lock()
    add_wheel(index, "leaf", "1.1")
    add_wheel(index, "tiny-tool", "1.1", ["leaf>=1"])
    assert draft().changes == ()
    written.with_suffix(".in").write_text("tiny-tool\n# more\n")
    assert set(whats(draft())) == {"requirements"}
    assert whats(draft(upgrade_packages=("Leaf",)))["leaf"] == ("1.0", "1.1")
    assert "tiny-tool" not in whats(draft(upgrade_packages=("leaf",)))


def test_pins_that_were_edited_are_made_anew_with_their_hashes(lock, draft):
    path = lock().path
    good = path.read_text()
    digest = good.partition("--hash=sha256:")[2][:64]
    path.write_text(good.replace(digest, "0" * 64))
    assert set(whats(draft())) == {"hashes or comments"}
    lock()
    assert path.read_text() == good


def test_a_lock_made_by_uv_alone_keeps_its_pins(index, lock, draft):
    path = lock().path
    path.write_text("# This file was autogenerated by uv\n" + read_lock(path).pins)
    add_wheel(index, "leaf", "1.1")
    drafted = draft()
    assert drafted.lock.pins == read_lock(path).pins.partition("\n")[2]
    assert "leaf" not in whats(drafted)
    assert whats(drafted)["python"] == (None, "3.11")


def test_what_pip_says_of_the_index_holds(draft, index):
    drafted = draft(environ={"UV_DEFAULT_INDEX": "", "PIP_INDEX_URL": index.as_uri()})
    assert "tiny-tool" in whats(drafted)


@pytest.mark.parametrize(
    ("variables", "argument", "epoch"),
    [
        ({}, "", 1800000000 // 86400 * 86400),
        ({"SOURCE_DATE_EPOCH": "77"}, "", 77),
        ({"SOURCE_DATE_EPOCH": "77"}, "    source_date_epoch=99\n", 99),
    ],
)
def test_a_new_lock_has_a_time_and_keeps_it(written, lock, variables, argument, epoch):
    written.write_text(TEXT.replace("%files", f"{argument}%files"))
    assert lock(environ=variables, clock=lambda: 1800000000).lock.source_date_epoch == epoch
    kept = lock(environ={"SOURCE_DATE_EPOCH": "1"}, clock=lambda: 0, upgrade_packages=("leaf",))
    assert kept.lock.source_date_epoch == epoch


def test_a_definition_without_requirements_has_a_lock_of_its_base_alone(tmp_path):
    path = tmp_path / "plain.def"
    path.write_text(TEXT.partition("%arguments")[0] + "%test\n true\n")
    request = LockRequest(definition=path, http=NOWHERE, clock=lambda: 0, platform="linux/amd64")
    write_lock(draft_lock(request))
    made = read_lock(tmp_path / "plain.lock")
    assert (made.base_digest, made.source_date_epoch, made.pins) == (DIGEST, 0, "")
    assert (
        f"base.name 127.0.0.1:9/library/python\n    org.opencontainers.image.base.digest {DIGEST}"
        in (path.read_text())
    )
    assert draft_lock(request).changes == ()


def test_a_base_that_is_in_no_registry_is_left_alone(written, lock):
    written.write_text(TEXT.replace("Bootstrap: docker", "Bootstrap: localimage"))
    before = written.read_text()
    assert (lock().lock.base, written.read_text()) == (None, before)


def test_the_requirements_are_missing(written, draft):
    written.with_suffix(".in").unlink()
    with pytest.raises(UsageError, match=r"tool\.in, which tool\.lock is made from, is not there"):
        draft()


def test_requirements_that_cannot_be_met_are_told_in_uvs_words(written, lock):
    written.with_suffix(".in").write_text("leaf==7\n")
    with pytest.raises(UsageError, match=r"tool.in cannot be resolved: .*: .*leaf==7") as caught:
        lock()
    assert " cause: " not in caught.value.message
    assert caught.value.hint == "Change tool.in."
    assert not written.with_suffix(".lock").exists()


def test_pins_of_the_lock_are_named_only_where_they_may_be_in_the_way(written, lock):
    lock()
    written.with_suffix(".in").write_text("leaf==7\n")
    with pytest.raises(UsageError) as caught:
        lock()
    assert caught.value.hint is not None
    assert "--upgrade" in caught.value.hint
    written.with_suffix(".in").write_text("leaf==\n")
    with pytest.raises(UsageError) as caught:
        lock()
    assert caught.value.hint == "Change tool.in."


def test_requirements_that_are_none(written, lock):
    written.with_suffix(".in").write_text("leaf==\n")
    with pytest.raises(UsageError, match=r"tool\.in"):
        lock()


@pytest.mark.parametrize("login", ["bob:s3cret", "t0ken", "t0ken:"])
def test_no_password_is_written_or_told(login):
    with pytest.raises(UsageError, match=r"a login would be written.*\*\*\*\*@") as caught:
        check_pins(
            f"leaf @ https://{login}@host/leaf.whl \\\n    --hash=sha256:{'0' * 64}\n", "x.in"
        )
    assert login.rstrip(":") not in caught.value.message + str(caught.value.hint)


def test_an_address_with_variables_is_written_as_it_is():
    check_pins(f"a @ https://${{U}}:${{P}}@h/a.whl \\\n    --hash=sha256:{'0' * 64}\n", "x.in")


def test_settings_of_uv_do_not_put_an_index_into_the_lock(written, lock, index):
    (written.parent / "uv.toml").write_text(
        f'[[index]]\nurl = "{index.as_uri()}"\ndefault = true\n'
        "[pip]\nemit-index-url = true\nemit-find-links = true\n"
    )
    assert "index-url" not in lock().lock.pins


@pytest.mark.parametrize("line", ["./local", "-e ./local"])
def test_what_cannot_have_a_hash_is_not_locked(written, lock, line):
    local = written.parent / "local"
    local.mkdir()
    (local / "pyproject.toml").write_text(
        '[project]\nname = "local"\nversion = "1"\ndependencies = []\n'
    )
    written.with_suffix(".in").write_text(f"tiny-tool\n{line}\n")
    with pytest.raises(UsageError, match=r"cannot have a hash: .*\./local"):
        lock()
    assert not written.with_suffix(".lock").exists()


def test_no_index_is_told_as_such(lock, written):
    with pytest.raises(PrerequisiteError, match="package index cannot be reached") as caught:
        lock(environ={"UV_DEFAULT_INDEX": "http://127.0.0.1:9/", "UV_HTTP_RETRIES": "0"})
    assert "UV_DEFAULT_INDEX" in caught.value.hint
    assert not written.with_suffix(".lock").exists()


def test_a_registry_that_does_not_answer_leaves_everything_as_it_was(written, lock):
    written.write_text(TEXT.replace(f"@{DIGEST}  #", ":3.11  #"))
    before = written.read_text()
    with pytest.raises(PrerequisiteError, match=r"127\.0\.0\.1:9"):
        lock()
    assert written.read_text() == before
    assert not written.with_suffix(".lock").exists()


def test_a_lock_that_cannot_be_written_leaves_the_definition_as_it_was(written, draft):
    written.write_text(TEXT.replace("base.digest sha256:a", "base.digest sha256:0"))
    drafted = draft()
    before = written.read_text()
    (written.parent / "tool.lock").mkdir()
    with pytest.raises(Exception, match=r"tool\.lock"):
        write_lock(drafted)
    assert written.read_text() == before
    assert [path.name for path in written.parent.glob(".*")] == []


def test_all_files_are_written_or_none(written, lock, draft, tmp_path):
    path = lock().path
    old = path.read_bytes()
    (tmp_path / "directory").mkdir()
    new = tmp_path / "new"
    texts = {path: "other", new: "new", tmp_path / "directory": "cannot be"}
    with pytest.raises(ValskaError, match="directory"):
        write_lock(replace(draft(), texts=texts))
    assert (path.read_bytes(), new.exists()) == (old, False)


def test_a_lock_that_is_a_link_is_written_through(lock, tmp_path):
    path = lock().path
    moved = path.rename(tmp_path / "elsewhere")
    path.symlink_to(moved)
    lock(python="3.12")
    assert path.is_symlink()
    assert read_lock(moved).python == "3.12"


def test_a_label_that_names_nothing_is_replaced(written, lock):
    text = TEXT.replace("base.name 127.0.0.1:9/library/python:3.11", "base.name what we had")
    written.write_text(text)
    lock()
    assert "base.name 127.0.0.1:9/library/python\n" in written.read_text()


def test_the_lint_tells_a_lock_that_no_longer_fits(written, lock):
    lock()
    text = written.read_text()
    written.with_suffix(".in").write_text("leaf\n")
    stale = [finding for finding in lint(written) if finding.code == "lock"]
    assert [finding.message for finding in stale] == [
        "tool.in has changed since tool.lock was made"
    ]
    written.write_text(
        text.replace(DIGEST, OTHER).replace("%files", "    source_date_epoch=1\n%files")
    )
    found = [(finding.line, finding.code) for finding in lint(written)]
    assert found.count((2, "lock")) == 1
    assert found.count((6, "lock")) == 1
    written.with_suffix(".lock").write_text("# Locked by valska 1: x\n# pins: none\n")
    (bad,) = [finding for finding in lint(written) if finding.code == "lock"]
    assert bad.level == "error"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"python": "two"}, "no version of Python"),
        ({"platform": "amd64"}, "no platform"),
        ({"platform": "linux/vax"}, "cannot be resolved for"),
    ],
)
def test_options_are_checked(draft, options, told):
    with pytest.raises(UsageError, match=told):
        draft(**options)


def test_a_package_that_is_not_there_has_a_near_miss(lock, draft):
    lock()
    with pytest.raises(UsageError, match="no package 'leef'") as caught:
        draft(upgrade_packages=("leef",))
    assert "'leaf'" in caught.value.hint


@pytest.mark.parametrize("name", ["../x.lock", "/etc/x.lock", "x.txt", ".lock"])
def test_a_lock_lies_beside_its_definition(written, name):
    written.write_text(TEXT.replace("lock=tool.lock", f"lock={name}"))
    with pytest.raises(UsageError, match="not beside it"):
        lock_path(read_definition(written))


def test_the_build_argument_names_the_lock(written, lock):
    written.write_text(TEXT.replace("lock=tool.lock", "lock=pins.lock"))
    written.with_suffix(".in").rename(written.with_name("pins.in"))
    assert lock().path.name == "pins.lock"
    assert written.with_name("pins.lock").is_file()


def test_a_base_from_a_build_argument_cannot_be_pinned(written, draft):
    written.write_text(TEXT.replace("    lock=", "    base=x:1\n    lock=").replace(
        f"127.0.0.1:9/library/python@{DIGEST}", "{{ base }}"
    ))  # fmt: skip
    with pytest.raises(UsageError, match="from a build argument"):
        draft()


def test_a_definition_with_errors_is_not_locked(written, draft):
    written.write_text(TEXT.replace("%test", "%tset"))
    with pytest.raises(DefinitionError, match="line 13"):
        draft()


def test_an_upgrade_needs_a_tag(written, draft):
    written.write_text(TEXT.replace("python:3.11", "python"))
    with pytest.raises(PrerequisiteError, match="which tag"):
        draft(upgrade=True)


@pytest.mark.parametrize("name", sorted(shipped_definitions()))
def test_shipped_locks_are_current(name):
    """Nothing is asked: what a lock was made from, and what it became, are in it by digest."""
    request = LockRequest(
        definition=shipped_definitions()[name],
        http=NOWHERE,
        environ={"UV_DEFAULT_INDEX": "http://127.0.0.1:9/"},
    )
    assert draft_lock(request).changes == ()
