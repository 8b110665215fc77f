"""``valska verify``: whether a bundle or a sweep is still what was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.outputs import verify_outputs
from valska.external_tools.core.records import StageRecord
from valska.external_tools.core.run_directory import open_bundle
from valska.external_tools.core.seal import Finding, seal_of, verify_bundle
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_sweep, sweep_of


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path, file_okay=False))
@click.option("--fast", is_flag=True, help="Compare presence and sizes only, not content.")
@json_option
def command(path: Path, fast: bool, as_json: bool) -> None:
    """Check every file of a bundle against its manifest, and the outputs against the records.

    PATH is a bundle, a sweep, or a point of one. Prints one line for each file that is missing,
    altered, unexpected or unreadable. The exit code is 0 if there is none, else 5.
    """
    sweep = open_sweep(path) if is_sweep(path) else sweep_of(path)
    if sweep:
        _sweep(sweep, None if is_sweep(path) else path.absolute().name, fast, as_json)
    else:
        _bundle(path, fast, as_json)


def _bundle(path: Path, fast: bool, as_json: bool) -> None:
    opened = open_bundle(path)
    findings = verify_bundle(opened, fast=fast)
    completed: tuple[StageRecord, ...] = ()
    if not findings:
        completed, findings = verify_outputs(opened, read_manifest(opened), fast=fast)
    if as_json:
        outputs = {record.stage: len(record.outputs) for record in completed}
        head = {"bundle": opened.path, "seal": seal_of(opened)}
        result_json({**head, **_as_json(findings, outputs, fast)})
    _tell(opened.path, findings, as_json)
    note(f"{opened.path} is as it was made (seal {seal_of(opened)[:12]}).")
    for record in completed:
        count = _count(len(record.outputs), "output")
        note(f"{count} of {record.stage} as job {record.job_id} recorded.")


def _sweep(sweep: Sweep, label: str | None, fast: bool, as_json: bool) -> None:
    from valska.external_tools.core.sweep.verification import verify_sweep

    found = verify_sweep(sweep, fast, None if label is None else [label])
    if as_json:
        head = {"sweep": sweep.path, "units": found.units}
        result_json({**head, **_as_json(found.findings, found.outputs, fast)})
    _tell(sweep.path, found.findings, as_json)
    what = f"The sweep {sweep.path}" if label is None else f"{label} of the sweep {sweep.path}"
    note(f"{what} is as it was made ({_count(found.units, 'unit')}).")
    for stage, number in found.outputs.items():
        note(f"{_count(number, 'output')} of {stage} as recorded.")


def _tell(path: Path, findings: tuple[Finding, ...], as_json: bool) -> None:
    """Print findings, and end with exit code 5 if there are any."""
    for finding in () if as_json else findings:
        result(plain(finding))
    if findings:
        raise VerificationError(
            f"{path} is not as it was made: {_count(len(findings), 'finding')}",
            "Restore what is named, or make it again; what is sealed is never edited.",
        )


def _as_json(
    findings: tuple[Finding, ...], outputs: Mapping[str, int], fast: bool
) -> dict[str, Any]:
    return {
        "intact": not findings,
        "level": "fast" if fast else "full",
        "outputs": dict(outputs),
        "findings": [
            {"kind": finding.kind.value, "path": finding.path, "detail": finding.detail}
            for finding in findings
        ],
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
