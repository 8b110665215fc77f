"""``valska lock``: a definition's base by digest and its requirements by hash."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.image_options import ca_bundle_option, no_https_option
from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.images.definition import find_definition
from valska.external_tools.core.images.locking.lock import (
    LockDraft,
    LockRequest,
    draft_lock,
    write_lock,
)
from valska.external_tools.core.images.registry.options import http_options


@click.command("lock")
@click.argument("definition", metavar="DEF")
@click.option("--check", is_flag=True, help="Say whether the lock is current; write nothing.")
@click.option("--upgrade", is_flag=True, help="Take the newest base and the newest packages.")
@click.option("--upgrade-base", is_flag=True, help="Take what the base's tag names now.")
@click.option(
    "--upgrade-package",
    "packages",
    multiple=True,
    metavar="NAME",
    help="Take the newest of a package. Repeatable.",
)
@click.option(
    "--python",
    metavar="3.x",
    help="Python of the image.  [the lock's, or PYTHON_VERSION of the base]",
)
@click.option(
    "--platform", metavar="OS/ARCH", help="Of the image.  [the lock's, or this machine's]"
)
@ca_bundle_option
@no_https_option
@dry_run_option
@json_option
def command(
    definition: str,
    check: bool,
    upgrade: bool,
    upgrade_base: bool,
    packages: tuple[str, ...],
    python: str | None,
    platform: str | None,
    ca_bundle: Path | None,
    no_https: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Pin what the definition DEF leaves open, and write it down beside it.

    A tag in From: becomes a digest, in the definition itself. The requirements in DEF's file .in
    become pins with hashes, in its file .lock. What is pinned already stays, unless it is to be
    upgraded. --check leaves with 5 if anything would be written.
    """
    settings = resolve(flags={"ca_bundle": ca_bundle}, path=state().config)
    draft = draft_lock(
        LockRequest(
            definition=find_definition(definition),
            upgrade=upgrade,
            upgrade_base=upgrade_base,
            upgrade_packages=packages,
            python=python,
            platform=platform,
            http=http_options(no_https=no_https, ca_bundle=settings.ca_bundle),
        )
    )
    write = not (check or dry_run)
    if write:
        write_lock(draft)
    _print(draft, write, as_json)
    if check and draft.changes:
        raise VerificationError(
            f"the lock of {draft.definition.path.name} is not current: "
            f"{len(draft.changes)} {'difference' if len(draft.changes) == 1 else 'differences'}",
            f"Bring it up to date: valska lock {definition}",
        )


def _print(draft: LockDraft, written: bool, as_json: bool) -> None:
    if as_json:
        result_json(_as_json(draft, written))
        return
    for change in draft.changes:
        result(plain(change))
    if draft.lock.requirements is not None and not draft.lock.pins.strip():
        note(f"Note: {plain(draft.lock.requirements[0])} asks for no package.")
    if not draft.changes:
        note(f"{draft.path} is current.")
    elif written:
        note(f"Written: {', '.join(str(path) for path in draft.texts)}")
    else:
        note("Nothing was written.")


def _as_json(draft: LockDraft, written: bool) -> dict[str, object]:
    return {
        "definition": draft.definition.path,
        "lock": draft.path,
        "current": not draft.changes,
        "written": list(draft.texts) if written else [],
        **{key.replace("-", "_"): value for key, value in draft.lock.header.items()},
        "changes": [
            {"file": change.file, "what": change.what, "old": change.old, "new": change.new}
            for change in draft.changes
        ],
    }
