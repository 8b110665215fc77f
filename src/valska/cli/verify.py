"""``valska verify``: whether a bundle or a sweep is still what was made."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.checked import (
    Checked,
    check_bundle,
    check_file,
    check_sweep,
    check_unpacked,
)
from valska.cli.options import json_option, require_parent
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.places import RUN_OR_ARCHIVE, require_file
from valska.cli.quantities import count_text
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.run_directory import (
    Bundle,
    TakenError,
    is_bundle,
    open_bundle,
    refuse_inside,
)
from valska.external_tools.core.seal import FindingKind
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

    PATH is a bundle, a sweep, a point of one, a directory with many of them, an archive, which is
    read in one pass without unpacking it, or what `valska unpack` made of one, which is checked
    with all that is beside the bundle; what jobs wrote there since is no fault. Prints one line
    for each file that is missing, altered, unexpected or unreadable. The exit code is 0 if there
    is none, else 5.

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
        checked = check_file(path, fast, trust)
        _write_receipt(receipt, checked, fast)
        _show(checked, fast, as_json)
        return
    if signer is not None:
        raise UsageError("--signer is for an archive or a receipt", "Name one of them.")
    one = _directory(path, fast)
    if one is not None:
        _write_receipt(receipt, one, fast)
        _show(one, fast, as_json)
    elif receipt:
        raise UsageError("--receipt is for one archive, bundle or sweep", "Name one of them.")
    else:
        _root(path, fast, as_json)


def _directory(path: Path, fast: bool) -> Checked | None:
    """Check a directory that is one thing; None if it is not."""
    from valska.external_tools.core.archive.places import is_unpacked

    sweep = open_sweep(path) if is_sweep(path) else sweep_of(path)
    if sweep:
        return check_sweep(sweep, None if is_sweep(path) else path.absolute().name, fast)
    if is_bundle(path):
        return check_bundle(open_bundle(path), fast)
    return check_unpacked(path, fast) if is_unpacked(path) else None


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


def _check_receipt(path: Path, checked: Path) -> None:
    """Check, before anything is verified, that a receipt of it may be written at a path."""
    from valska.external_tools.core.archive.places import is_unpacked
    from valska.external_tools.core.signing.making import read_receipt
    from valska.external_tools.core.signing.places import signature_of

    if checked.is_file() and read_receipt(checked) is not None:
        raise UsageError("--receipt is not for a receipt", "Name an archive, a bundle or a sweep.")
    if path.name == "-":
        raise UsageError("--receipt needs the name of a file", "--json prints what was found.")
    require_parent(path)
    whole = path.parent.resolve() / path.name
    refuse_inside(whole)
    if any(is_unpacked(parent) for parent in whole.parents):
        raise TakenError(
            f"{path} lies in what was unpacked of an archive", "Choose a directory outside of it."
        )
    if not os.path.lexists(path):
        return
    if not path.is_file() or read_receipt(path) is None:
        raise TakenError(f"{path} exists, and is no receipt", "Choose another name.")
    if os.path.lexists(signature_of(path)):
        raise TakenError(f"{path} is a receipt that is signed", "Choose another name.")


def _write_receipt(path: Path | None, checked: Checked, fast: bool) -> None:
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
        written=checked.written,
    )
    write_json_atomic(path, data)


def _show(checked: Checked, fast: bool, as_json: bool) -> None:
    if as_json:
        result_json(_as_json(checked, fast))
    else:
        for finding in checked.findings:
            result(plain(finding))
    for text in (*(() if checked.findings else checked.said), *checked.notes):
        note(plain(text))
    if checked.findings:
        count = count_text(len(checked.findings), "finding")
        fault, hint = _fault(checked)
        raise VerificationError(f"{checked.path} is not {fault}: {count}", hint)
    if fast:
        note("Only presence and sizes were compared, for --fast.")


def _fault(checked: Checked) -> tuple[str, str]:
    if checked.intact:
        if all(one.kind is FindingKind.EXPIRED_KEY for one in checked.findings):
            hint = "If it was signed before, and you know when, say so: --signed-on DATE."
            return "signed as wanted", hint
        return "signed as wanted", "Ask who made it for the signature, and for their public key."
    if checked.kind == "archive":
        return "as it was packed", "Get the archive again from where it comes."
    if checked.kind == "unpacked":
        hint = "Unpack the archive again; what jobs wrote into it since is not meant."
        return "as it was packed", hint
    hint = "Restore what is named, or make it again; what is sealed is never edited."
    return "as it was made", hint


def _root(path: Path, fast: bool, as_json: bool) -> None:
    """Check all runs and sweeps below a directory."""
    from valska.external_tools.core.archive.places import unpacked_around
    from valska.external_tools.core.results import Kind, require_results

    found: list[tuple[Result, Checked]] = []
    for one in require_results(path):
        around = unpacked_around(one.path)
        if around is not None and around.is_relative_to(os.path.normpath(path.absolute())):
            whole = replace(one, path=around, place=os.path.relpath(around, path))
            found.append((whole, check_unpacked(around, fast)))
        elif one.kind is Kind.SWEEP:
            found.append((one, check_sweep(Sweep(one.path), None, fast)))
        else:
            found.append((one, check_bundle(Bundle(one.path), fast)))
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
    if len(found) == 1:
        note(plain(f"{found[0][0].place} is as it was made."))
    else:
        note(f"All {len(found)} are as they were made.")


def _as_json(checked: Checked, fast: bool) -> dict[str, Any]:
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
