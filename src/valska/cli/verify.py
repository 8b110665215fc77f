"""``valska verify``: whether a bundle is still what was made."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.options import bundle_argument, json_option
from valska.cli.output import note, plain, result, result_json
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.outputs import verify_outputs
from valska.external_tools.core.records import StageRecord
from valska.external_tools.core.run_directory import open_bundle
from valska.external_tools.core.seal import Finding, seal_of, verify_bundle


@click.command("verify")
@bundle_argument
@click.option("--fast", is_flag=True, help="Compare presence and sizes only, not content.")
@json_option
def command(bundle: Path, fast: bool, as_json: bool) -> None:
    """Check every file of a bundle against its manifest, and the outputs against the records.

    Prints one line for each file that is missing, altered, unexpected or unreadable. The exit
    code is 0 if there is none, else 5.
    """
    opened = open_bundle(bundle)
    findings = verify_bundle(opened, fast=fast)
    completed: tuple[StageRecord, ...] = ()
    if not findings:
        completed, findings = verify_outputs(opened, read_manifest(opened), fast=fast)
    if as_json:
        result_json(
            {
                "bundle": opened.path,
                "seal": seal_of(opened),
                "intact": not findings,
                "level": "fast" if fast else "full",
                "outputs": {record.stage: len(record.outputs) for record in completed},
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
    for record in completed:
        count = "1 output" if len(record.outputs) == 1 else f"{len(record.outputs)} outputs"
        note(f"{count} of {record.stage} as job {record.job_id} recorded.")


def _count(number: int) -> str:
    return "1 finding" if number == 1 else f"{number} findings"


def _as_json(finding: Finding) -> dict[str, str]:
    return {"kind": finding.kind.value, "path": finding.path, "detail": finding.detail}
