"""What tests do without a program or a service that they need."""

import os
import shutil

import pytest


def need(program, reason):
    """Skip, or fail where services are required, if a program is absent."""
    if shutil.which(program) is None:
        unavailable(f"{program} is not here: {reason}")


def unavailable(reason):
    """Skip the test, or fail it where the services are required."""
    if os.environ.get("VALSKA_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
