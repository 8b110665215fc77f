"""Archives that would do harm, at a terminal: every command that reads one refuses it."""

import pytest
from forged import KINDS, forged


@pytest.fixture
def archive(user):
    bundle = user.bundle("--run-id", "r1")
    user.ok("submit", bundle, "--scheduler", "local", "--wait")
    user.ok("archive", bundle, "-o", "good.tar.zst")
    return user.cwd / "good.tar.zst"


def test_no_command_takes_one(user, archive):
    bad = user.cwd / "bad.tar.zst"
    for kind, (made, why) in KINDS.items():
        forged(archive, bad, *made)
        before = sorted(user.home.parent.rglob("*"))
        for command in (
            ("verify", bad),
            ("unpack", bad, "-o", "out"),
            ("unpack", bad, "--dry-run"),
            ("reproduce", bad, "--scheduler", "local", "-o", "out"),
            ("diff", archive, bad),
        ):
            done = user.run(*command)
            assert done.exit_code == 5, (kind, command, done.output)
            assert "Traceback" not in done.output
            if command[0] != "diff":
                assert any(word in done.output for word in why.split("|")), (kind, done.output)
        assert sorted(user.home.parent.rglob("*")) == before, kind
