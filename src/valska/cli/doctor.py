"""``valska doctor``: what this machine has of what runs need."""

from __future__ import annotations

from dataclasses import asdict

import click

from valska.cli.options import json_option
from valska.cli.output import plain, result, result_json, styled, table
from valska.cli.state import state
from valska.external_tools.core.doctor import diagnose, is_ready
from valska.external_tools.core.doctor.checks import Check, Status
from valska.external_tools.core.errors import PrerequisiteError

_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.MISSING: "red"}


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Check what this machine has of what runs need, and say what to do about the rest.

    The exit code is 0 if a run can be bundled, submitted and run here, else 3.
    """
    checks = diagnose(state().config)
    ready = is_ready(checks)
    if as_json:
        result_json({"ready": ready, "checks": [asdict(check) for check in checks]})
    else:
        for line, check in zip(table(map(_row, checks)).splitlines(), checks, strict=True):
            result(line)
            if check.advice:
                result(f"         {check.advice}")
    if not ready:
        missing = [check.name for check in checks if check.status is Status.MISSING]
        raise PrerequisiteError(
            f"not ready to run: {', '.join(missing)}",
            "What to do about it stands below each.",
        )


def _row(check: Check) -> tuple[str, str, str]:
    status = styled(check.status.value, fg=_COLOURS[check.status])
    return status, check.name, plain(check.found)
