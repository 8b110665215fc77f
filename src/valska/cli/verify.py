"""``valska verify``: whether a bundle is still what was made."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.options import bundle_argument, json_option
from valska.cli.output import note, plain, result, result_json
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.run_directory import open_bundle
from valska.external_tools.core.seal import Finding, seal_of, verify_bundle


@click.command("verify")
@bundle_argument
@click.option("--fast", is_flag=True, help="Compare presence and sizes only, not content.")
@json_option
def command(bundle: Path, fast: bool, as_json: bool) -> None:
    """Check every file of a bundle against its manifest.

    Prints one line for each file that is missing, altered, unexpected or unreadable. The exit
    code is 0 if there is none, else 5.
    """
    opened = open_bundle(bundle)
    findings = verify_bundle(opened, fast=fast)
    if as_json:
        result_json(
            {
                "bundle": opened.path,
                "seal": seal_of(opened),
                "intact": not findings,
                "level": "fast" if fast else "full",
                "findings": [_as_json(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            result(plain(finding))
    if findings:
        raise VerificationError(
            f"{opened.path} is not as it was made: {_count(len(findings))}",
            "Restore what is named, or make the bundle again; a bundle is never edited.",
        )
    note(f"{opened.path} is as it was made (seal {seal_of(opened)[:12]}).")


def _count(number: int) -> str:
    return "1 finding" if number == 1 else f"{number} findings"


def _as_json(finding: Finding) -> dict[str, str]:
    return {"kind": finding.kind.value, "path": finding.path, "detail": finding.detail}
