"""``valska image gc``: clear away images that nothing uses."""

from __future__ import annotations

from pathlib import Path

import click

from valska.cli.image_options import images_option, open_store
from valska.cli.options import execute_option, json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.quantities import bytes_text
from valska.external_tools.core.images.store.gc import Kept, Order, Survey, collect, survey

_DAY_S = 24 * 3600.0


@click.command("gc")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep what runs and sweeps below it use, with those below results_root. Repeatable.",
)
@click.option(
    "--forget",
    "forgotten",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What was made at or below it, and is not there, is gone for good. Repeatable.",
)
@click.option(
    "--gone",
    is_flag=True,
    help="Clear away as well what was used by runs and sweeps that are neither at their place "
    "nor below a root.",
)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="DAYS",
    help="Leave alone what is younger.",
)
@execute_option
@images_option
@json_option
def command(
    roots: tuple[Path, ...],
    forgotten: tuple[Path, ...],
    gone: bool,
    older_than: float,
    execute: bool,
    images: Path | None,
    as_json: bool,
) -> None:
    """Clear away images that nothing uses, and what killed commands left in the store.

    Nothing is done without --execute. What a bundle or sweep uses stays: of those that were made
    on this store, and of those below the configured results_root. So does the current image of
    each definition that comes with valska. One that is not at its place any more may have been
    moved: what it used stays until --gone.
    """
    store, settings = open_store(images)
    configured = settings.results_root
    known = [configured] if configured is not None and configured.is_dir() else []
    order = Order(
        store=store,
        roots=(*known, *roots),
        forgotten=tuple(path.absolute() for path in forgotten),
        gone=gone,
        min_age_s=older_than * _DAY_S,
    )
    found = collect(order) if execute else survey(order)
    _print(found, order, execute, as_json)


def _print(found: Survey, order: Order, execute: bool, as_json: bool) -> None:
    if as_json:
        result_json(
            {
                "store": order.store.root,
                "executed": execute,
                "size": found.size,
                "items": [
                    {"sha256": one.sha256 or None, "name": one.name, "size": one.size}
                    for one in found.items
                ],
                "kept": [
                    {"sha256": one.sha256 or None, "name": one.name, "why": list(one.why)}
                    for one in found.kept
                ],
                "notes": list(found.notes),
            }
        )
        return
    rows = [(one.sha256[:12], plain(one.name), bytes_text(one.size)) for one in found.items]
    if rows:
        result(table(rows, ("image", "name", "size")))
    for kept in found.kept:
        note(_reason(kept))
    for text in found.notes:
        note(plain(text))
    total = bytes_text(found.size)
    if execute:
        note(f"Deleted {total}." if rows else "Nothing was deleted.")
    else:
        note(f"{total}. Nothing was done; --execute does it." if rows else "Nothing can go.")


def _reason(kept: Kept) -> str:
    more = f"; and {len(kept.why) - 3} more" if len(kept.why) > 3 else ""
    name = " ".join(part for part in (kept.sha256[:12], kept.name) if part)
    return f"Kept {plain(name)}: {plain('; '.join(kept.why[:3]))}{more}"
