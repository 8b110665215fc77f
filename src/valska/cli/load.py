"""``valska load``: a kit into the image store, checked before anything of it can be seen."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from valska.cli.image_options import images_option
from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json
from valska.cli.places import KIT
from valska.cli.quantities import bytes_text
from valska.cli.state import state
from valska.cli.transfer import Transfer
from valska.external_tools.core.config import resolve
from valska.external_tools.core.images.store import ImageStore

if TYPE_CHECKING:
    from valska.external_tools.core.kit.loading import Loaded


@click.command("load")
@click.argument("kit", type=KIT, metavar="KIT.tar")
@images_option
@dry_run_option
@json_option
def command(kit: Path, images: Path | None, dry_run: bool, as_json: bool) -> None:
    """Check the kit that `valska fetch` wrote, and take it into the image store.

    The whole kit is checked first: names, sizes and digests. What the store has already stays as it
    is. No network is needed, for this and for what it makes possible. Prints what that is.
    """
    from valska.external_tools.core.kit.loading import load

    settings = resolve(flags={"images": images}, path=state().config)
    store = ImageStore(settings.images)
    with Transfer() as report:
        loaded = load(kit, store, dry_run=dry_run, report=report)
    if as_json:
        result_json(_as_json(loaded, store, dry_run))
        return
    for kind, count in sorted(Counter(file.kind.value for file in loaded.new).items()):
        size = sum(file.size for file in loaded.new if file.kind.value == kind)
        note(f"{kind}: {count} new, {bytes_text(size)}")
    for line in _possible(loaded):
        result(line)
    known = len(loaded.document.files) - len(loaded.new)
    if dry_run:
        note(f"The kit {loaded.sha256[:12]} is whole. Nothing was stored.")
    else:
        note(f"Loaded the kit {loaded.sha256[:12]} into {store.root}; {known} files were there.")


def _possible(loaded: Loaded) -> Iterator[str]:
    """Yield the commands that a kit makes possible."""
    kinds = {file.kind.value for file in loaded.document.files}
    builds = "base" in kinds
    for name in loaded.definitions if builds else ():
        yield f"valska build --offline {shlex.quote(name)}"
    for target in loaded.document.targets:
        if target["kind"] != "definition" and loaded.document.purpose != "build":
            verb = "reproduce" if target["kind"] == "archive" else "submit"
            yield f"valska {verb} {shlex.quote(plain(target['name']))}"


def _as_json(loaded: Loaded, store: ImageStore, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "store": store.root,
        "sha256": loaded.sha256,
        "new": [file.path for file in loaded.new],
        "possible": list(_possible(loaded)),
        **loaded.document.to_json(),
    }
