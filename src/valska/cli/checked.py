"""What a verification of a bundle, a sweep, an archive or a receipt found, for a person."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valska.cli.quantities import count_text
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.outputs import verify_outputs
from valska.external_tools.core.records import StageRecord
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import Finding, seal_of, verify_bundle
from valska.external_tools.core.sweep.layout import Sweep

if TYPE_CHECKING:
    from valska.external_tools.core.archive.document import ArchiveDocument
    from valska.external_tools.core.signing.keys import Trust

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Checked:
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
    notes: tuple[str, ...] = ()
    """What is told whatever was found."""
    written: tuple[str, ...] | None = None
    """Of what was unpacked of an archive: what was written there since."""


def check_file(path: Path, fast: bool, trust: Trust | None) -> Checked:
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


def _receipt(path: Path, data: bytes) -> Checked:
    from valska.external_tools.core.archive.document import parse_json

    says = parse_json(data)
    found = "nothing wrong" if says["intact"] else count_text(len(says["findings"]), "finding")
    said = (
        f"{path} is as it was signed.",
        f"It says of {says['name']}, on {says['checked_utc']}: {found}.",
    )
    head = {"receipt": path.absolute(), "says": {name: says[name] for name in ("name", "intact")}}
    return Checked(path, head, (), {}, said, "receipt")


def _archive(path: Path, fast: bool) -> Checked:
    from valska.cli.transfer import Transfer
    from valska.external_tools.core.archive.verification import verify_archive

    with Transfer("Verifying") as transfer:
        found = verify_archive(path, fast, progress=transfer.reach)
    digest = f" (sha256 {found.sha256[:12]})" if found.sha256 else ""
    said = [f"{path} is as it was packed{digest}: {count_text(found.files, 'file')}."]
    said += _as_recorded(found.outputs)
    head = {"archive": path.absolute(), "sha256": found.sha256, "units": found.units}
    subject: dict[str, Any] = {"sha256": found.sha256, "size": found.size}
    if document := found.document:
        said += _not_packed(document)
        subject |= _identity(document)
    return Checked(path, head, found.findings, found.outputs, tuple(said), "archive", subject)


def check_unpacked(path: Path, fast: bool) -> Checked:
    """Check what was unpacked of an archive: all of it, not only the bundle or sweep in it."""
    from valska.cli.transfer import Transfer
    from valska.external_tools.core.archive.verification import verify_unpacked

    with Transfer("Verifying") as transfer:
        found = verify_unpacked(path, fast, progress=transfer.reach)
    written = found.written
    notes = (_written_since(written),) if written else ()
    but = ", but for what was written since" if written else ""
    said = [f"{path} is as it was packed{but}: {count_text(found.files - len(written), 'file')}."]
    said += _as_recorded(found.outputs)
    subject: dict[str, Any] = {"bag": found.bag}
    if document := found.document:
        said += _not_packed(document)
        subject |= _identity(document)
    head = {"unpacked": path.absolute(), **subject, "units": found.units, "written": written}
    checked = Checked(path, head, found.findings, found.outputs, tuple(said), "unpacked", subject)
    return replace(checked, notes=notes, written=written)


def _written_since(written: tuple[str, ...]) -> str:
    parts = [name.split("/") for name in written]
    names = dict.fromkeys(part[2] + ("/" if len(part) > 3 else "") for part in parts)
    shown = ", ".join(list(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    where = "/".join(parts[0][:2])
    return f"Written since it was unpacked: {count_text(len(written), 'file')} in {where}: {shown}."


def _as_recorded(outputs: Mapping[str, int]) -> list[str]:
    return [f"{count_text(n, 'output')} of {stage} as recorded." for stage, n in outputs.items()]


def _not_packed(document: ArchiveDocument) -> list[str]:
    if document.left_out or not document.outputs or None in document.references.values():
        return ["Not all inputs or outputs are packed: archive.json says which."]
    return []


def _identity(document: ArchiveDocument) -> dict[str, Any]:
    return {name: getattr(document, name) for name in ("tool", "run_id", "seal", "bundle_id")}


def _around(path: Path) -> tuple[str, ...]:
    """Say that a bundle or a sweep is of an archive, of which more was unpacked."""
    from valska.external_tools.core.archive.places import unpacked_around

    around = unpacked_around(path)
    if around is None:
        return ()
    command = f"valska verify {shlex.quote(str(around))}"
    return (f"Not looked at: what else was unpacked with it (image, inputs): `{command}` does.",)


def check_bundle(opened: Bundle, fast: bool) -> Checked:
    """Check a bundle, and the outputs of its completed stages."""
    findings = verify_bundle(opened, fast=fast)
    completed: tuple[StageRecord, ...] = ()
    if not findings:
        completed, findings = verify_outputs(opened, read_manifest(opened), fast=fast)
    seal = seal_of(opened) if opened.sums.is_file() else ""
    said = [f"{opened.path} is as it was made (seal {seal[:12]})."]
    for record in completed:
        count = count_text(len(record.outputs), "output")
        said.append(f"{count} of {record.stage} as job {record.job_id} recorded.")
    outputs = {record.stage: len(record.outputs) for record in completed}
    head = {"bundle": opened.path, "seal": seal}
    subject = {"seal": seal}
    return Checked(
        opened.path,
        head,
        findings,
        outputs,
        tuple(said),
        "bundle",
        subject,
        notes=_around(opened.path),
    )


def check_sweep(sweep: Sweep, label: str | None, fast: bool) -> Checked:
    """Check a sweep, or the point of it that has this label."""
    from valska.external_tools.core.sweep.verification import verify_sweep

    found = verify_sweep(sweep, fast, None if label is None else [label])
    what = f"The sweep {sweep.path}" if label is None else f"{label} of the sweep {sweep.path}"
    said = [f"{what} is as it was made ({count_text(found.units, 'unit')})."]
    said += _as_recorded(found.outputs)
    head = {"sweep": sweep.path, "units": found.units}
    subject = {"seal": seal_of(sweep.bundle) if sweep.bundle.sums.is_file() else ""}
    return Checked(
        sweep.path,
        head,
        found.findings,
        found.outputs,
        tuple(said),
        "sweep",
        subject,
        notes=_around(sweep.path),
    )
