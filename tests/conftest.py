"""What every test shares: odd paths, and the flag that rewrites golden files."""

import os
import signal

import pytest
from hypothesis import settings

ODD_NAME = 'it\'s a "place", ünlike: others'


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew from what is rendered"
    )


def pytest_configure():
    """Let no example fail for being slow: the machine may be busy.

    And undo what a shell in the background does: a signal ignored here is ignored in every child.
    """
    settings.register_profile("valska", deadline=None)
    settings.load_profile("valska")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden") or bool(
        os.environ.get("VALSKA_UPDATE_GOLDEN")
    )


@pytest.fixture
def tmp_path(tmp_path):
    """A directory whose name has blanks, quotes, a comma, a colon and a letter beyond ASCII."""
    path = tmp_path / ODD_NAME
    path.mkdir()
    return path


@pytest.fixture
def require():
    """Skip a test whose program is absent, or fail it where the services are required."""

    def check(present, reason):
        if present:
            return
        if os.environ.get("VALSKA_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    return check
