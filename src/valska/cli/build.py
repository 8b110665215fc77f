"""``valska build``: an image from its pinned definition, into the store."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from valska.cli.options import dry_run_option, json_option, parse_pairs
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.images.building.draft import (
    BuildDraft,
    BuildRequest,
    draft_build,
)
from valska.external_tools.core.images.building.make import BuildResult, build
from valska.external_tools.core.images.definition import find_definition
from valska.external_tools.core.images.store import ImageStore

_PASSING = ("Build complete: ", "To see mksquashfs output")


@click.command("build")
@click.argument("definition", metavar="DEF")
@click.option("--base", metavar="PATH|URI", help="Build on this base instead of DEF's own.")
@click.option(
    "--build-arg", "build_args", multiple=True, metavar="NAME=VALUE", help="As apptainer build."
)
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="SRC[:DST[:ro]]",
    help="Path that the build sees, with those of the configuration. Repeatable.",
)
@click.option(
    "--ca-bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificates (PEM) that the build trusts.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Image store.  [$VALSKA_IMAGES, or the configuration]",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="OPTION",
    help="Hand an option to apptainer build: --option=--no-https. Repeatable.",
)
@click.option("--force", is_flag=True, help="Build although the store has an image of the same.")
@dry_run_option
@json_option
def command(definition: str, force: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Build the image of the definition file DEF, and put it into the image store.

    DEF is a file, or the name of a definition that comes with valska (pyuvsim, or
    containers/pyuvsim.def). Nothing is built where the store has an image made of the same parts.
    The image's path is printed last.
    """
    drafted = draft_build(_request(definition, **options))
    if dry_run:
        _print_draft(drafted, as_json)
        return
    progress = {0: _follow, 1: _follow_all}.get(min(state().verbosity, 1))
    _print(build(drafted, force=force, progress=progress), as_json)


def _request(
    definition: str,
    *,
    base: str | None,
    build_args: tuple[str, ...],
    binds: tuple[str, ...],
    ca_bundle: Path | None,
    images: Path | None,
    options: tuple[str, ...],
) -> BuildRequest:
    settings = resolve(flags={"images": images, "ca_bundle": ca_bundle}, path=state().config)
    return BuildRequest(
        definition=find_definition(definition),
        store=ImageStore(settings.images),
        base=base,
        build_arguments=parse_pairs(build_args, "--build-arg"),
        apptainer=settings.apptainer,
        ca_bundle=settings.ca_bundle,
        binds=(*settings.build_binds, *binds),
        options=options,
    )


def _print_draft(drafted: BuildDraft, as_json: bool) -> None:
    command = drafted.command(Path("<directory>"), drafted.definition.path)
    existing = drafted.existing.sha256 if drafted.existing else None
    if as_json:
        result_json(
            {
                "dry_run": True,
                "definition": drafted.definition.path,
                "base": drafted.base.reference,
                "base_sha256": drafted.base.sha256,
                "recipe_sha256": drafted.recipe_sha256,
                "existing": existing,
                "command": list(command),
            }
        )
        return
    rows = [
        ("definition", str(drafted.definition.path)),
        ("base", f"{drafted.base.reference} ({drafted.base.sha256 or 'no digest'})"),
        *(("file", f"{entry['source']} ({entry['sha256']})") for entry in drafted.files),
        ("in the store", existing or "no image made of the same"),
        ("command", shlex.join(command)),
    ]
    result(table([(name, plain(value)) for name, value in rows]))
    note("Nothing was built.")


def _follow(line: str) -> None:
    """Show a line of the build's log, but for Apptainer's word on files that are moved on."""
    text = line.removeprefix("INFO:").strip() if line.startswith("INFO:") else line
    if text and not text.startswith(_PASSING):
        _follow_all(text)


def _follow_all(line: str) -> None:
    """Show a line of the build's log; called from a thread, where click has no context."""
    click.echo(plain(line), err=True)


def _print(made: BuildResult, as_json: bool) -> None:
    if as_json:
        result_json(
            {
                "dry_run": False,
                "built": made.built,
                "image": made.path,
                "log": made.log,
                "record": made.record.to_json(),
            }
        )
        return
    note(
        f"Built the image {made.record.sha256}."
        if made.built
        else f"The store has it already: {made.record.sha256}. (--force builds it again.)"
    )
    result(str(made.path))
