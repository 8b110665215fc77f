"""``valska diff``: what two bundles were to do, and what they wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.places import RUN
from valska.cli.quantities import count_text
from valska.cli.tolerances import take_tolerances, tolerance_options
from valska.external_tools.core.comparison.intent import Difference, Side, compare_intent
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.sweep.layout import open_unit

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b")
_LONG = 60


@click.command("diff")
@click.argument("a", type=RUN)
@click.argument("b", type=RUN)
@click.option("--outputs", is_flag=True, help="Compare what they wrote, too.")
@tolerance_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="With --outputs: write comparison.json and comparison.md there.",
)
@dry_run_option
@json_option
def command(
    a: Path,
    b: Path,
    outputs: bool,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what bundles A and B do not have in common.

    Compared are parameters (key by key), inputs, commands, image and packages, directives and
    versions; run ids, places and times do not count. A and B are bundles, or points of sweeps.
    With --outputs B's outputs are compared with A's, by what they hold. The exit code is 0 if
    nothing differs, else 5; with --outputs, 0 if the outputs are identical or equivalent.
    """
    tolerances = take_tolerances(options)
    if output and not outputs:
        raise UsageError("-o is for comparisons of outputs", "Add --outputs.")
    one, other = (Side(bundle, read_manifest(bundle)) for bundle in map(open_unit, (a, b)))
    if outputs:
        _outputs(one, other, tolerances, None if dry_run else output, as_json)
        return
    found = compare_intent(one, other)
    if as_json:
        result_json(_as_json(one, other, found))
    else:
        _print(one, other, found)
    if found:
        raise VerificationError(
            f"{plain(a)} and {plain(b)} differ in {count_text(len(found), 'thing')}",
            "`valska diff --json` has every value in full.",
        )


def _outputs(one: Side, other: Side, tolerances: Any, folder: Path | None, as_json: bool) -> None:
    from valska.cli.verdicts import print_comparison, require_same
    from valska.external_tools.core.comparison.document import FILE_NAME, to_json
    from valska.external_tools.core.comparison.page import FILE_NAME as PAGE
    from valska.external_tools.core.comparison.runs import compare_runs
    from valska.external_tools.core.reproduction.running import write_comparison

    found = compare_runs(one.bundle, other.bundle, tolerances)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_comparison(found, folder / FILE_NAME, folder / PAGE)
    if as_json:
        result_json(to_json(found))
    else:
        _print_intent(found.intent)
        print_comparison(found)
    require_same(found, folder / PAGE if folder else None)


def _print(one: Side, other: Side, found: Sequence[Difference]) -> None:
    _print_intent(found)
    ids = [side.manifest.bundle_id for side in (one, other)]
    if ids[0] == ids[1]:
        note(f"The science is the same: both have the bundle id {ids[0][:12]}.")
    else:
        note(f"The science is not the same: bundle ids {ids[0][:12]} and {ids[1][:12]}.")
    if not found:
        note("Nothing differs.")


def _print_intent(found: Sequence[Difference]) -> None:
    rows = [(one.kind.value, plain(one.key), _short(one.a), _short(one.b)) for one in found]
    if rows:
        result(table(rows, ("what", "which", "A", "B")))


def _short(value: str | None) -> str:
    text = plain(_DIGEST.sub(r"\1…", "-" if value is None else value))
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _as_json(one: Side, other: Side, found: Sequence[Difference]) -> dict[str, Any]:
    return {
        **{
            name: {
                "bundle": side.bundle.path,
                "run_id": side.manifest.run_id,
                "bundle_id": side.manifest.bundle_id,
            }
            for name, side in (("a", one), ("b", other))
        },
        "same_science": one.manifest.bundle_id == other.manifest.bundle_id,
        "differences": [
            {
                "kind": each.kind.value,
                "key": each.key,
                "a": each.a,
                "b": each.b,
                "science": each.science,
            }
            for each in found
        ],
    }
