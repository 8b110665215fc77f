"""``valska image diff``: how two images differ, by package and by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from valska.cli.image_options import images_option, open_store
from valska.cli.options import json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.quantities import count_text
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.images.contents import find_contents
from valska.external_tools.core.images.difference import (
    ADDED,
    APPTAINER,
    BYTE_CODE,
    CHANGED,
    DATABASE,
    DIFFERENT,
    IDENTICAL,
    LOCK,
    MODE,
    OTHER,
    PACKAGE,
    REMOVED,
    Difference,
    Owner,
    compare,
)

SHOWN_FILES = 10
"""Of those that belong to no package, without ``--files``."""

_CHANGES = (ADDED, REMOVED, CHANGED, MODE)
_OWNERS = {
    APPTAINER: "Apptainer's own (/.singularity.d)",
    DATABASE: "lists of installed packages",
    LOCK: "the lock",
    BYTE_CODE: "byte-code, which differs in the time of its source alone",
    OTHER: "no package",
}
_SHOWN_DIGITS = 12


@click.command("diff")
@click.argument("a")
@click.argument("b")
@click.option("--files", "with_files", is_flag=True, help="Name every file that differs.")
@images_option
@json_option
def command(a: str, b: str, with_files: bool, images: Path | None, as_json: bool) -> None:
    """Say how image B differs from image A: by package, and by file.

    A and B are SIF files, directories with an image's files, image records (.json), or images in
    the store: a digest, the start of one, or the name of a definition. Neither is run, but for rpm
    where there is no record. The exit code is 0 where all files and their modes are the same, and
    5 where they are not.
    """
    store, settings = open_store(images)
    found = compare(*(find_contents(one, store, settings.apptainer) for one in (a, b)))
    if as_json:
        result_json(found.to_json())
    else:
        note(f"A: {plain(a)}")
        note(f"B: {plain(b)}")
        print_difference(found, with_files)
    if not found.same:
        click.get_current_context().exit(VerificationError.exit_code)


def print_difference(found: Difference, with_files: bool = False) -> None:
    """Print a difference: packages, then how many files each explains, then what they are."""
    if found.level == IDENTICAL:
        result("They are one image: the same SIF.")
        return
    for block in (_packages(found), _files(found), _facts(found)):
        if block:
            result(block)
            result("")
    if with_files and found.files:
        result(table(_file_rows(found)))
        result("")
    result(_verdict(found))


def _packages(found: Difference) -> str:
    rows = [
        (
            change.ecosystem,
            plain(change.name),
            plain(change.before or "-"),
            plain(change.after or "-"),
            _place(change.place),
        )
        for change in found.packages
    ]
    return table(rows, ("packages", "", "A", "B", "in")) if rows else ""


def _files(found: Difference) -> str:
    rows = []
    for owner, changes in found.by_owner().items():
        counts = Counter(change.change for change in changes)
        name = f"{_owner(owner)}{_same_version(owner, found)}"
        rows.append((*(str(counts[change]) for change in _CHANGES), name))
    if not rows:
        return ""
    text = table(rows, ("added", "removed", "changed", "mode", "files of"))
    return "\n".join([text, *_unexplained(found)])


def _same_version(owner: Owner, found: Difference) -> str:
    """Return what marks a package whose files differ although its version does not."""
    told = {change[:3] for change in found.packages}
    return ", of one version" if owner.kind == PACKAGE and owner[1:] not in told else ""


def _unexplained(found: Difference) -> Iterator[str]:
    """Yield names of files that no package explains."""
    others = [one for one in found.files or () if one.owner.kind == OTHER]
    for change in others[:SHOWN_FILES]:
        yield f"  {change.change}: {_path(change.path)}"
    if len(others) > SHOWN_FILES:
        yield f"  and {len(others) - SHOWN_FILES} more (--files names them)"


def _facts(found: Difference) -> str:
    rows = [(plain(name), _short(a), _short(b)) for name, a, b in found.facts]
    return table(rows, ("made of", "A", "B")) if rows else ""


def _file_rows(found: Difference) -> Iterator[tuple[str, str, str]]:
    for owner, changes in found.by_owner().items():
        for change in changes:
            yield change.change, _owner(owner), _path(change.path)


def _verdict(found: Difference) -> str:
    if found.level != DIFFERENT:
        return "All files and their modes are the same; the images are packed differently."
    counts = [count_text(len(found.packages), "package")]
    if found.files is None:
        counts.append("files unknown: one of them cannot be listed")
    else:
        counts.append(count_text(len(found.files), "file"))
    return f"They differ: {', '.join(counts)}."


def _owner(owner: Owner) -> str:
    if owner.kind in _OWNERS:
        return _OWNERS[owner.kind]
    place = f" in {_place(owner.place)}" if owner.place else ""
    return f"{owner.ecosystem} {plain(owner.name)}{place}"


def _place(place: str) -> str:
    return f"/{plain(place)}" if place else ""


def _path(path: bytes) -> str:
    return "/" + plain(path.decode(errors="backslashreplace"))


def _short(value: str | None) -> str:
    if value is None:
        return "-"
    is_digest = len(value) == 64 and all(digit in "0123456789abcdef" for digit in value)
    return value[:_SHOWN_DIGITS] if is_digest else plain(value)
