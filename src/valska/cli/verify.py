"""``valska verify``: whether a bundle or a sweep is still what was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.outputs import verify_outputs
from valska.external_tools.core.records import StageRecord
from valska.external_tools.core.run_directory import Bundle, is_bundle, open_bundle
from valska.external_tools.core.seal import Finding, seal_of, verify_bundle
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_sweep, sweep_of

if TYPE_CHECKING:
    from valska.external_tools.core.results import Result


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path, file_okay=False))
@click.option("--fast", is_flag=True, help="Compare presence and sizes only, not content.")
@json_option
def command(path: Path, fast: bool, as_json: bool) -> None:
    """Check every file of a bundle against its manifest, and the outputs against the records.

    PATH is a bundle, a sweep, a point of one, or a directory with many of them. Prints one line
    for each file that is missing, altered, unexpected or unreadable. The exit code is 0 if there
    is none, else 5.
    """
    sweep = open_sweep(path) if is_sweep(path) else sweep_of(path)
    if sweep:
        _show(_sweep(sweep, None if is_sweep(path) else path.absolute().name, fast), fast, as_json)
    elif is_bundle(path):
        _show(_bundle(open_bundle(path), fast), fast, as_json)
    else:
        _root(path, fast, as_json)


@dataclass(frozen=True, slots=True)
class _Checked:
    """What was checked, what is wrong with it, and what is told if nothing is."""

    path: Path
    head: Mapping[str, Any]
    findings: tuple[Finding, ...]
    outputs: Mapping[str, int]
    said: tuple[str, ...]


def _bundle(opened: Bundle, fast: bool) -> _Checked:
    findings = verify_bundle(opened, fast=fast)
    completed: tuple[StageRecord, ...] = ()
    if not findings:
        completed, findings = verify_outputs(opened, read_manifest(opened), fast=fast)
    seal = seal_of(opened) if opened.sums.is_file() else ""
    said = [f"{opened.path} is as it was made (seal {seal[:12]})."]
    for record in completed:
        count = _count(len(record.outputs), "output")
        said.append(f"{count} of {record.stage} as job {record.job_id} recorded.")
    outputs = {record.stage: len(record.outputs) for record in completed}
    head = {"bundle": opened.path, "seal": seal}
    return _Checked(opened.path, head, findings, outputs, tuple(said))


def _sweep(sweep: Sweep, label: str | None, fast: bool) -> _Checked:
    from valska.external_tools.core.sweep.verification import verify_sweep

    found = verify_sweep(sweep, fast, None if label is None else [label])
    what = f"The sweep {sweep.path}" if label is None else f"{label} of the sweep {sweep.path}"
    said = [f"{what} is as it was made ({_count(found.units, 'unit')})."]
    said += [f"{_count(n, 'output')} of {stage} as recorded." for stage, n in found.outputs.items()]
    head = {"sweep": sweep.path, "units": found.units}
    return _Checked(sweep.path, head, found.findings, found.outputs, tuple(said))


def _show(checked: _Checked, fast: bool, as_json: bool) -> None:
    if as_json:
        result_json(_as_json(checked, fast))
    else:
        for finding in checked.findings:
            result(plain(finding))
    if checked.findings:
        raise VerificationError(
            f"{checked.path} is not as it was made: {_count(len(checked.findings), 'finding')}",
            "Restore what is named, or make it again; what is sealed is never edited.",
        )
    for text in checked.said:
        note(text)


def _root(path: Path, fast: bool, as_json: bool) -> None:
    """Check all runs and sweeps below a directory."""
    from valska.external_tools.core.results import Kind, require_results

    found: list[tuple[Result, _Checked]] = []
    for one in require_results(path):
        is_of_sweep = one.kind is Kind.SWEEP
        checked = (
            _sweep(Sweep(one.path), None, fast) if is_of_sweep else _bundle(Bundle(one.path), fast)
        )
        found.append((one, checked))
    bad = [one.place for one, checked in found if checked.findings]
    if as_json:
        result_json([{"place": one.place, **_as_json(checked, fast)} for one, checked in found])
    else:
        rows = [
            (plain(one.place), one.kind.value, "altered" if checked.findings else "intact")
            for one, checked in found
        ]
        result(table(rows, ("path", "kind", "state")))
        for one, checked in found:
            for finding in checked.findings:
                result(plain(replace(finding, path=f"{one.place}/{finding.path}")))
    if bad:
        raise VerificationError(
            f"{len(bad)} of {len(found)} are not as they were made: {', '.join(bad[:5])}"
            + (", …" if len(bad) > 5 else ""),
            "Restore what is named, or make it again; what is sealed is never edited.",
        )
    note(f"All {len(found)} are as they were made.")


def _as_json(checked: _Checked, fast: bool) -> dict[str, Any]:
    return {
        **checked.head,
        "intact": not checked.findings,
        "level": "fast" if fast else "full",
        "outputs": dict(checked.outputs),
        "findings": [
            {"kind": finding.kind.value, "path": finding.path, "detail": finding.detail}
            for finding in checked.findings
        ],
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
