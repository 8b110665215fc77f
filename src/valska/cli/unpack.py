"""``valska unpack``: a directory of an archive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, result, result_json
from valska.cli.places import ARCHIVE, require_file
from valska.cli.quantities import bytes_text
from valska.cli.transfer import Transfer
from valska.external_tools.core.errors import UsageError

_SIZE = re.compile(r"([0-9]{1,15})\s*([kMGTP]?)B?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


@click.command("unpack")
@click.argument("file", type=ARCHIVE)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The new directory.  [the archive's run id, here]",
)
@click.option("--max-size", metavar="SIZE", help="Most bytes that it may hold, as 500G.  [4T]")
@click.option("--max-files", type=click.IntRange(1), metavar="N", help="Most entries.  [4000000]")
@click.option(
    "--max-ratio",
    type=click.IntRange(1),
    metavar="N",
    help="How many times its own size it may hold.  [2000]",
)
@dry_run_option
@json_option
def command(
    file: Path,
    output: Path | None,
    max_size: str | None,
    max_files: int | None,
    max_ratio: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Unpack an archive into a new directory, checking everything on the way: all of it or nothing.

    Names that lead elsewhere, links out of it, devices, set-id bits, control characters, names
    that differ in upper and lower case only, and archives that hold too much are refused. The
    bundle is in data/bundle.
    """
    from valska.external_tools.core.archive.entries import Limits
    from valska.external_tools.core.archive.unpacking import rehearse_unpacking, unpack_archive

    require_file(file, "archive")
    default = Limits()
    limits = Limits(
        size=_bytes(max_size) if max_size else default.size,
        count=max_files or default.count,
        ratio=max_ratio or default.ratio,
    )
    unpack = rehearse_unpacking if dry_run else unpack_archive
    with Transfer("Verifying" if dry_run else "Unpacking") as transfer:
        unpacked = unpack(file, Path.cwd(), output, limits=limits, progress=transfer.reach)
    if as_json:
        bundle = unpacked.path / "data" / "bundle"
        facts: dict[str, Any] = {"path": unpacked.path, "bundle": bundle}
        facts |= {"files": unpacked.files, "size": unpacked.size}
        result_json({"dry_run": dry_run, **facts})
        return
    size = bytes_text(unpacked.size)
    note(f"{unpacked.files} files, {size}, all as they were packed.")
    if dry_run:
        note("Nothing was unpacked. The directory would be:")
    result(str(unpacked.path))


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"--max-size {text!r} is not a size", "Write a number of bytes, or 500G.")
    power = _POWERS[match[2].lower()]
    return int(match[1]) * int(1000**power)
