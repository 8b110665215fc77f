"""``valska fetch``: what a build or a run needs, in one file, for a place without a network."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from valska.cli.image_options import ca_bundle_option, images_option, no_https_option
from valska.cli.options import dry_run_option, json_option, require_parent
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.quantities import bytes_text, count_text
from valska.cli.state import state
from valska.cli.transfer import Transfer
from valska.external_tools.core.config import Settings, resolve
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.parts import KitPlan, KitRequest, Part, Purpose, total_size


@click.command("fetch")
@click.argument("target")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KIT.tar",
    help="The file to write; needed but for --dry-run.",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice([purpose.value for purpose in Purpose]),
    default=Purpose.ALL.value,
    show_default=True,
    help="What it is to make possible: run needs the image, build what the image is made of.",
)
@click.option(
    "--platform",
    metavar="OS/ARCH",
    help="Platform of base and packages.  [the lock's, else this machine's]",
)
@images_option
@ca_bundle_option
@no_https_option
@click.option("--force", is_flag=True, help="Replace the file, if it is there.")
@dry_run_option
@json_option
def command(
    target: str,
    output: Path | None,
    purpose: str,
    platform: str | None,
    images: Path | None,
    ca_bundle: Path | None,
    no_https: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch what a build or a run needs without a network, and pack it into one file.

    TARGET is a bundle, a sweep, a point of one, an archive, a definition file, or the name of a
    tool. The base and the packages that are fetched stay in the image store: they are not fetched
    twice. `valska load` takes the file into the store of another machine.
    """
    from valska.external_tools.core.images.registry.options import http_options
    from valska.external_tools.core.kit.planning import plan_kit
    from valska.external_tools.core.kit.targets import find_target

    if output is not None and not dry_run:
        _check_output(output, force)

    def settings_of(tool: str | None) -> Settings:
        flags = {"images": images, "ca_bundle": ca_bundle}
        return resolve(tool, flags=flags, path=state().config)

    with TemporaryDirectory(prefix="valska-fetch-") as scratch:
        found = find_target(target, lambda tool: settings_of(tool).images, Path(scratch))
        if output is None and not dry_run:
            raise UsageError("no file is named", "Name one with -o KIT.tar, or use --dry-run.")
        settings = settings_of(found.tool)
        environ = _environment(settings.ca_bundle)
        request = KitRequest(
            target=found,
            purpose=Purpose(purpose),
            store=ImageStore(settings.images),
            platform=platform,
            http=http_options(no_https=no_https, environ=environ),
            environ=environ,
        )
        plan = plan_kit(request)
    if dry_run or output is None:
        _print_plan(plan, as_json)
    else:
        _fetch(plan, request, output, as_json)


def _environment(ca_bundle: Path | None) -> dict[str, str]:
    """Return the environment, with the certificates that are named."""
    named = {"PIP_CERT": os.fspath(ca_bundle)} if ca_bundle else {}
    return {**os.environ, **named}


def _check_output(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise UsageError(f"{output} is there already", "Name another, or use --force.")
    require_parent(output)


def _fetch(plan: KitPlan, request: KitRequest, output: Path, as_json: bool) -> None:
    from valska.external_tools.core.kit.fetching import fetch

    with Transfer() as report:
        kit = fetch(plan, output, request, report)
    if as_json:
        result_json(
            {
                "dry_run": False,
                "kit": output,
                "sha256": kit.sha256,
                "size": output.stat().st_size,
                "fetched": list(kit.fetched),
                "notes": list(plan.notes),
                **_document(kit.document.to_json()),
            }
        )
        return
    _print_notes(plan)
    here = len(plan.parts) - len(kit.fetched)
    packed = count_text(len(plan.parts), "file")
    note(f"Packed {packed}: {len(kit.fetched)} fetched, {here} from here.")
    note(f"There: valska load {output.name} (it should say that it is the kit {kit.sha256[:12]})")
    result(str(output))


def _document(data: dict[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in ("for", "platform", "targets", "files")}


def _print_plan(plan: KitPlan, as_json: bool) -> None:
    if as_json:
        result_json(
            {
                "dry_run": True,
                "for": plan.purpose.value,
                "platform": plan.platform,
                "targets": [plan.target.facts],
                "notes": list(plan.notes),
                "files": [_part_json(part) for part in plan.parts],
            }
        )
        return
    rows = [
        (part.kind.value, plain(part.name), _size(part), plain(part.origin)) for part in plan.parts
    ]
    result(table(rows, ("kind", "name", "size", "from")))
    _print_notes(plan)
    size, known = total_size(plan.parts)
    more = "" if known else "more than "
    note(f"{count_text(len(plan.parts), 'file')}, {more}{bytes_text(size)}.")
    note("Nothing was fetched.")


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "kind": part.kind.value,
        "name": part.name,
        "path": part.path,
        "sha256": part.sha256,
        "size": part.size,
        "from": part.origin,
        "here": part.is_here,
    }


def _size(part: Part) -> str:
    return "?" if part.size is None else bytes_text(part.size)


def _print_notes(plan: KitPlan) -> None:
    for text in plan.notes:
        note(f"Not in the kit: {plain(text)}")
