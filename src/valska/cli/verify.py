"""``valska verify``: whether a bundle or a sweep is still what was made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.options import json_option, require_parent
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.places import RUN_OR_ARCHIVE, require_file
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.outputs import verify_outputs
from valska.external_tools.core.records import StageRecord
from valska.external_tools.core.run_directory import (
    Bundle,
    TakenError,
    is_bundle,
    open_bundle,
    refuse_inside,
)
from valska.external_tools.core.seal import Finding, FindingKind, seal_of, verify_bundle
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_sweep, sweep_of

if TYPE_CHECKING:
    from valska.external_tools.core.results import Result
    from valska.external_tools.core.signing.keys import Trust

_FIRST_DAY = datetime(1970, 1, 2)
"""The first whose beginning is after that of Unix time everywhere; ssh-keygen takes none before."""


@click.command("verify")
@click.argument("path", type=RUN_OR_ARCHIVE)
@click.option("--fast", is_flag=True, help="Compare presence and sizes only, not content.")
@click.option(
    "--receipt",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what was checked, when, and the result, as JSON; an earlier receipt is replaced.",
)
@click.option(
    "--signer",
    metavar="WHO",
    help="Require this signature: an identity, or a file of allowed signers (any of them).",
)
@click.option(
    "--allowed-signers",
    "allowed",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Which key an identity has, see ssh-keygen(1).  [git's gpg.ssh.allowedSignersFile]",
)
@click.option(
    "--revoked",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keys that no longer count, see ssh-keygen(1).  [git's gpg.ssh.revocationFile]",
)
@click.option(
    "--signed-on",
    "date",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Judge by the keys that were valid on this day, as 2026-03-01.  [today]",
)
@json_option
def command(
    path: Path,
    fast: bool,
    receipt: Path | None,
    signer: str | None,
    allowed: Path | None,
    revoked: Path | None,
    date: datetime | None,
    as_json: bool,
) -> None:
    """Check every file of a bundle against its manifest, and the outputs against the records.

    PATH is a bundle, a sweep, a point of one, a directory with many of them, or an archive, which
    is read in one pass without unpacking it. Prints one line for each file that is missing,
    altered, unexpected or unreadable. The exit code is 0 if there is none, else 5.

    With --signer the signature of an archive, or of a receipt, is checked as well: whether it is
    there, of this file, and by somebody who may sign.
    """
    for option, value in (("allowed-signers", allowed), ("revoked", revoked), ("signed-on", date)):
        if value is not None and signer is None:
            raise UsageError(f"--{option} needs --signer", "Name an identity, or who may sign.")
    require_file(path, "bundle, sweep, archive or receipt")
    if receipt is not None:
        _check_receipt(receipt, path)
    if path.is_file():
        trust = None if signer is None else _trust(signer, allowed, revoked, date)
        checked = _file(path, fast, trust)
        _write_receipt(receipt, checked, fast)
        _show(checked, fast, as_json)
        return
    if signer is not None:
        raise UsageError("--signer is for an archive or a receipt", "Name one of them.")
    sweep = open_sweep(path) if is_sweep(path) else sweep_of(path)
    if sweep:
        checked = _sweep(sweep, None if is_sweep(path) else path.absolute().name, fast)
        _write_receipt(receipt, checked, fast)
        _show(checked, fast, as_json)
    elif is_bundle(path):
        checked = _bundle(open_bundle(path), fast)
        _write_receipt(receipt, checked, fast)
        _show(checked, fast, as_json)
    elif receipt:
        raise UsageError("--receipt is for one archive, bundle or sweep", "Name one of them.")
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
    kind: str = "bundle"
    subject: Mapping[str, Any] = field(default_factory=dict)
    intact: bool = False
    """Whether all findings are about who signed it."""


def _trust(signer: str, allowed: Path | None, revoked: Path | None, date: datetime | None) -> Trust:
    from valska.external_tools.core.process import run
    from valska.external_tools.core.signing.keys import find_trust

    if date is not None and not _FIRST_DAY <= date <= datetime.now():
        raise UsageError(
            f"nothing can have been signed on {date:%Y-%m-%d}",
            "Name the day on which it was, not later than today: --signed-on 2026-03-01.",
        )
    day = date.strftime("%Y%m%d") if date else ""
    return find_trust(signer, allowed, run, revoked=revoked, date=day)


def _file(path: Path, fast: bool, trust: Trust | None) -> _Checked:
    """Check an archive or a receipt, and the signature if it is wanted."""
    from valska.external_tools.core.signing.making import read_receipt

    receipt = read_receipt(path)
    if trust is None:
        if receipt is not None:
            raise UsageError(f"{path} is a receipt", "Name who has to have signed it: --signer.")
        _refuse_statement(path)
        return _archive(path, fast)
    from valska.external_tools.core.signing.verification import (
        verify_archive_signature,
        verify_signature,
    )

    if receipt is not None:
        checked = _receipt(path, receipt)
        signed = verify_signature(path, trust)
    else:
        checked = _archive(path, fast)
        signed = verify_archive_signature(path, trust, checked.head["sha256"])
    about = {"signer": signed.signer, "key": signed.key}
    if trust.date:
        about["signed_on"] = f"{trust.date[:4]}-{trust.date[4:6]}-{trust.date[6:]}"
    return replace(
        checked,
        head={**checked.head, **about},
        findings=(*checked.findings, *signed.findings),
        said=(*checked.said, f"Signed by {signed.signer} with {signed.key}."),
        subject={**checked.subject, **about},
        intact=not checked.findings,
    )


def _refuse_statement(path: Path) -> None:
    from valska.external_tools.core.signing.places import archive_of

    archive = archive_of(path)
    if archive is not None:
        raise UsageError(
            f"{path} says something about an archive, and is none",
            f"It is checked with the archive: `valska verify {archive} --signer WHO`.",
        )


def _receipt(path: Path, data: bytes) -> _Checked:
    from valska.external_tools.core.archive.document import parse_json

    says = parse_json(data)
    found = "nothing wrong" if says["intact"] else _count(len(says["findings"]), "finding")
    said = (
        f"{path} is as it was signed.",
        f"It says of {says['name']}, on {says['checked_utc']}: {found}.",
    )
    head = {"receipt": path.absolute(), "says": {name: says[name] for name in ("name", "intact")}}
    return _Checked(path, head, (), {}, said, "receipt")


def _archive(path: Path, fast: bool) -> _Checked:
    from valska.cli.transfer import Transfer
    from valska.external_tools.core.archive.verification import verify_archive

    with Transfer("Verifying") as transfer:
        found = verify_archive(path, fast, progress=transfer.reach)
    digest = f" (sha256 {found.sha256[:12]})" if found.sha256 else ""
    said = [f"{path} is as it was packed{digest}: {_count(found.files, 'file')}."]
    said += [f"{_count(n, 'output')} of {stage} as recorded." for stage, n in found.outputs.items()]
    head = {"archive": path.absolute(), "sha256": found.sha256, "units": found.units}
    subject: dict[str, Any] = {"sha256": found.sha256, "size": found.size}
    if document := found.document:
        if document.left_out or not document.outputs or None in document.references.values():
            said.append("Not all inputs or outputs are packed: archive.json says which.")
        subject |= {"tool": document.tool, "run_id": document.run_id, "seal": document.seal}
        subject["bundle_id"] = document.bundle_id
    return _Checked(path, head, found.findings, found.outputs, tuple(said), "archive", subject)


def _check_receipt(path: Path, checked: Path) -> None:
    """Check, before anything is verified, that a receipt of it may be written at a path."""
    from valska.external_tools.core.signing.making import read_receipt
    from valska.external_tools.core.signing.places import signature_of

    if checked.is_file() and read_receipt(checked) is not None:
        raise UsageError("--receipt is not for a receipt", "Name an archive, a bundle or a sweep.")
    require_parent(path)
    refuse_inside(path.parent.resolve() / path.name)
    if not os.path.lexists(path):
        return
    if not path.is_file() or read_receipt(path) is None:
        raise TakenError(f"{path} exists, and is no receipt", "Choose another name.")
    if os.path.lexists(signature_of(path)):
        raise TakenError(f"{path} is a receipt that is signed", "Choose another name.")


def _write_receipt(path: Path | None, checked: _Checked, fast: bool) -> None:
    if path is None:
        return
    from valska.external_tools.core.archive.verification import receipt
    from valska.external_tools.core.utils import write_json_atomic

    data = receipt(
        kind=checked.kind,
        name=checked.path.absolute().name,
        subject=checked.subject,
        fast=fast,
        findings=checked.findings,
        units=int(checked.head.get("units", 1)),
        outputs=checked.outputs,
    )
    write_json_atomic(path, data)


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
    subject = {"seal": seal}
    return _Checked(opened.path, head, findings, outputs, tuple(said), "bundle", subject)


def _sweep(sweep: Sweep, label: str | None, fast: bool) -> _Checked:
    from valska.external_tools.core.sweep.verification import verify_sweep

    found = verify_sweep(sweep, fast, None if label is None else [label])
    what = f"The sweep {sweep.path}" if label is None else f"{label} of the sweep {sweep.path}"
    said = [f"{what} is as it was made ({_count(found.units, 'unit')})."]
    said += [f"{_count(n, 'output')} of {stage} as recorded." for stage, n in found.outputs.items()]
    head = {"sweep": sweep.path, "units": found.units}
    subject = {"seal": seal_of(sweep.bundle) if sweep.bundle.sums.is_file() else ""}
    return _Checked(sweep.path, head, found.findings, found.outputs, tuple(said), "sweep", subject)


def _show(checked: _Checked, fast: bool, as_json: bool) -> None:
    if as_json:
        result_json(_as_json(checked, fast))
    else:
        for finding in checked.findings:
            result(plain(finding))
    if checked.findings:
        count = _count(len(checked.findings), "finding")
        fault, hint = _fault(checked)
        raise VerificationError(f"{checked.path} is not {fault}: {count}", hint)
    for text in checked.said:
        note(plain(text))
    if fast:
        note("Only presence and sizes were compared, for --fast.")


def _fault(checked: _Checked) -> tuple[str, str]:
    if checked.intact:
        if all(one.kind is FindingKind.EXPIRED_KEY for one in checked.findings):
            hint = "If it was signed before, and you know when, say so: --signed-on DATE."
            return "signed as wanted", hint
        return "signed as wanted", "Ask who made it for the signature, and for their public key."
    if checked.kind == "archive":
        return "as it was packed", "Get the archive again from where it comes."
    hint = "Restore what is named, or make it again; what is sealed is never edited."
    return "as it was made", hint


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
