"""``valska diff``: what two bundles or sweeps were to do, and what bundles wrote."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.places import RUN_OR_ARCHIVE
from valska.cli.quantities import count_text
from valska.cli.tolerances import take_tolerances, tolerance_options
from valska.cli.transfer import Transfer
from valska.external_tools.core.comparison.intent import (
    Difference,
    Side,
    compare_intent,
    require_same_tool,
)
from valska.external_tools.core.comparison.sealed import Sealed, check_sealed
from valska.external_tools.core.comparison.sweep_intent import (
    compare_sweep_intent,
    same_sciences,
)
from valska.external_tools.core.comparison.sweeps import SweepSide, read_side
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import RunDirectoryError, run_inside
from valska.external_tools.core.sweep.layout import is_sweep, open_sweep, open_unit

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b")
_LONG = 60
_SHOWN = 3


@click.command("diff")
@click.argument("a", type=RUN_OR_ARCHIVE)
@click.argument("b", type=RUN_OR_ARCHIVE)
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
    """Say what A and B do not have in common.

    Compared are parameters (key by key), inputs, commands, image and packages, directives and
    versions; of sweeps axes and points, too. Run ids, places and times do not count. A and B are
    bundles or points of sweeps, or two sweeps, or archives of these, which are read and not
    unpacked. With --outputs B's outputs are compared with A's, by what they hold. The exit code
    is 0 if nothing differs, else 5; with --outputs, 0 if the outputs are identical or equivalent.
    """
    tolerances = take_tolerances(options)
    if output and not outputs:
        raise UsageError("-o is for comparisons of outputs", "Add --outputs.")
    with ExitStack() as stack:
        one, other = (_opened(path, stack) for path in (a, b))
        if outputs:
            sides = [_with_outputs(each) for each in (one, other)]
            require_same_tool(sides[0].manifest, sides[1].manifest)
            if output:
                _require_place(output, sides[0])
            _tell_sealed(one, other)
            _outputs(sides[0], sides[1], tolerances, None if dry_run else output, as_json)
            return
        _tell_sealed(one, other)
        found = _compared(one, other)
        if as_json:
            result_json(_as_json(one, other, found))
        else:
            _print(one, other, found)
    _conclude(one, other, found, as_json)


AnySide = Side | SweepSide


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is at a path, and whether that is as it was sealed."""

    path: Path
    side: AnySide
    sealed: Sealed


def _opened(path: Path, stack: ExitStack) -> _Opened:
    """Return what is at a path; what was read of an archive is there as long as the stack."""
    if path.is_file():
        from valska.external_tools.core.comparison.packed import packed_side

        with Transfer("Reading") as transfer:
            return _Opened(path, *stack.enter_context(packed_side(path, transfer.reach)))
    side = _side(path)
    return _Opened(path, side, check_sealed(side))


def _side(path: Path) -> AnySide:
    if inside := run_inside(path):
        raise RunDirectoryError(
            f"{plain(path)} is not a bundle, and has one in it", f"Name {plain(inside)}."
        )
    if is_sweep(path):
        return read_side(open_sweep(path))
    bundle = open_unit(path)
    return Side(bundle, read_manifest(bundle))


def _compared(one: _Opened, other: _Opened) -> Sequence[Difference]:
    mine, theirs = one.side, other.side
    if isinstance(mine, Side) and isinstance(theirs, Side):
        return compare_intent(mine, theirs)
    if isinstance(mine, SweepSide) and isinstance(theirs, SweepSide):
        return compare_sweep_intent(mine, theirs)
    sweep = one.path if isinstance(mine, SweepSide) else other.path
    raise UsageError(
        f"{plain(sweep)} is a sweep, and the other is none",
        f"Name one of its points, as {plain(sweep)}/points/LABEL."
        if sweep.is_dir()
        else "Unpack it with `valska unpack`, and name one of its points.",
    )


def _tell_sealed(one: _Opened, other: _Opened) -> None:
    """Tell first what is not as it was sealed, and what was not read to find out."""
    for each in {each.path: each for each in (one, other)}.values():
        verify = f"`valska verify {plain(shlex.quote(str(each.path)))}`"
        if each.sealed.faults:
            note(f"{plain(each.path)} {_broken(each)}: {_few(each.sealed.faults)}; "
                 f"{verify} says more.")  # fmt: skip
        if each.sealed.unread:
            note(f"Not read of {plain(each.path)}: {_few(each.sealed.unread)}; {verify} does.")


def _broken(one: _Opened) -> str:
    return f"is not as it was {'packed' if one.path.is_file() else 'sealed'}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(plain, names[:_SHOWN]))}{more}"


def _conclude(one: _Opened, other: _Opened, found: Sequence[Difference], as_json: bool) -> None:
    """End with exit code 5 if something differs, or is not as it was sealed."""
    if found:
        many = count_text(len(found), "thing")
        raise VerificationError(
            f"{plain(one.path)} and {plain(other.path)} differ in {many}",
            "The JSON has every value in full."
            if as_json
            else "`valska diff --json` has every value in full.",
        )
    for each in (one, other):
        if each.sealed.faults:
            raise VerificationError(
                f"{plain(each.path)} {_broken(each)}", "Restore it, or compare what it was made of."
            )


def _with_outputs(one: _Opened) -> Side:
    path, side = one.path, one.side
    if path.is_file():
        raise UsageError(
            f"{plain(path)} is an archive: its outputs have to be unpacked to be compared",
            "Unpack it with `valska unpack`; its bundle is in data/bundle.",
        )
    if isinstance(side, SweepSide):
        raise UsageError(
            f"{plain(path)} is a sweep: --outputs is for runs",
            f"Name one of its points, as {plain(path)}/points/LABEL, or use `valska compare`.",
        )
    return side


def _require_place(folder: Path, reference: Side) -> None:
    from valska.external_tools.core.reproduction.taking import require_place_of_comparison

    require_place_of_comparison(folder, reference.manifest.bundle_id)


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


def _print(one: _Opened, other: _Opened, found: Sequence[Difference]) -> None:
    _print_intent(found)
    same = _same_science(one, other, found)
    if same is None:
        note("Whether the science is the same is not said: not all is as it was sealed.")
    elif isinstance(one.side, Side) and isinstance(other.side, Side):
        note(_of_ids(one.side, other.side, same))
    elif same:
        note("The science is the same: the points of both have the same bundle ids.")
    else:
        note(f"The science is not the same{_of_points(one.side, other.side)}.")
    if not found:
        sealed = not one.sealed.faults and not other.sealed.faults
        note("Nothing differs." if sealed else "Nothing else differs.")


def _of_points(one: AnySide, other: AnySide) -> str:
    if isinstance(one, SweepSide) and isinstance(other, SweepSide) and same_sciences(one, other):
        return ""
    return ": the points have other bundle ids"


def _of_ids(one: Side, other: Side, same: bool) -> str:
    ids = [side.manifest.bundle_id[:12] for side in (one, other)]
    if same:
        return f"The science is the same: both have the bundle id {ids[0]}."
    told = f": bundle ids {ids[0]} and {ids[1]}" if ids[0] != ids[1] else ""
    return f"The science is not the same{told}."


def _same_science(one: _Opened, other: _Opened, found: Sequence[Difference]) -> bool | None:
    """Return what bundle ids say; of what is not as it was sealed only what its files say."""
    if one.sealed.faults or other.sealed.faults:
        return False if any(each.science for each in found) else None
    mine, theirs = one.side, other.side
    if isinstance(mine, SweepSide) and isinstance(theirs, SweepSide):
        return same_sciences(mine, theirs)
    ids = {side.manifest.bundle_id for side in (mine, theirs) if isinstance(side, Side)}
    return len(ids) == 1


def _print_intent(found: Sequence[Difference]) -> None:
    rows = [(one.kind.value, plain(one.key), _short(one.a), _short(one.b)) for one in found]
    if rows:
        result(table(rows, ("what", "which", "A", "B")))


def _short(value: str | None) -> str:
    text = plain(_DIGEST.sub(r"\1…", "-" if value is None else value))
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _as_json(one: _Opened, other: _Opened, found: Sequence[Difference]) -> dict[str, Any]:
    return {
        **{name: _described(which) for name, which in (("a", one), ("b", other))},
        "same_science": _same_science(one, other, found),
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


def _described(one: _Opened) -> dict[str, Any]:
    path, side = one.path, one.side
    checked = {"not_as_sealed": list(one.sealed.faults), "not_read": list(one.sealed.unread)}
    if isinstance(side, SweepSide):
        where = path.absolute() if path.is_file() else side.sweep.path
        manifest = side.manifest
        known = {"sweep": where, "sweep_id": manifest.sweep_id, "points": len(manifest.points)}
        return known | checked
    return {
        "bundle": path.absolute() if path.is_file() else side.bundle.path,
        "run_id": side.manifest.run_id,
        "bundle_id": side.manifest.bundle_id,
        **checked,
    }
