"""``valska sign``: an archive or a receipt, with an SSH key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json
from valska.cli.places import SIGNABLE, require_file

if TYPE_CHECKING:
    from valska.external_tools.core.signing.making import Signable


@click.command("sign")
@click.argument("path", type=SIGNABLE, metavar="FILE")
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="SSHKEY",
    help="Private key, or the public half of one in an agent.  [git's, or ~/.ssh/id_ed25519]",
)
@dry_run_option
@json_option
def command(path: Path, key: Path | None, dry_run: bool, as_json: bool) -> None:
    """Sign an archive or a receipt with an SSH key, as git signs commits.

    FILE is what `valska archive` or `valska verify --receipt` wrote. Of an archive a statement is
    signed: FILE.intoto.json, with its digest and how it came about (in-toto, SLSA provenance). The
    signature goes into a file beside what is signed, and `ssh-keygen -Y verify` reads it.
    """
    from valska.external_tools.core.process import run
    from valska.external_tools.core.signing.keygen import require_keygen
    from valska.external_tools.core.signing.keys import find_key
    from valska.external_tools.core.signing.making import sign

    require_file(path, "archive or receipt")
    require_keygen()
    found = find_key(key, run)
    signable = _prepare(path)
    made = "" if dry_run else sign(signable, found)
    if as_json:
        facts = _facts(signable, dry_run)
        result_json({**facts, "key": str(found), "fingerprint": made or None})
    elif dry_run:
        result(f"Would sign {plain(signable.signed)} with {plain(found)}:")
        result(signable.data.decode().rstrip("\n"))
    else:
        result(str(signable.signature.absolute()))
        note(f"Signed {plain(signable.signed)} with {made}.")


def _prepare(path: Path) -> Signable:
    from valska.cli.transfer import Transfer
    from valska.external_tools.core.signing.making import prepare

    with Transfer("Verifying") as transfer:
        return prepare(path, transfer.reach)


def _facts(signable: Signable, dry_run: bool) -> dict[str, Any]:
    return {
        "path": signable.path.absolute(),
        "sha256": signable.sha256,
        "signed": signable.signed.absolute(),
        "signature": signable.signature.absolute(),
        "content": json.loads(signable.data),
        "dry_run": dry_run,
    }
