"""``valska build``: an image from its pinned definition, into the store."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from valska.cli.build_log import log_follower
from valska.cli.image_diff import print_difference
from valska.cli.image_options import ca_bundle_option, images_option
from valska.cli.options import dry_run_option, json_option, parse_pairs
from valska.cli.output import note, plain, result, result_json, table
from valska.cli.state import state
from valska.external_tools.core.config import resolve
from valska.external_tools.core.errors import UsageError, VerificationError
from valska.external_tools.core.images.building.draft import (
    BuildDraft,
    BuildRequest,
    draft_build,
)
from valska.external_tools.core.images.building.make import BuildResult, build, require_offline
from valska.external_tools.core.images.building.rebuild import Rebuild, check_build
from valska.external_tools.core.images.definition import find_definition
from valska.external_tools.core.images.linting import Finding, lint
from valska.external_tools.core.images.store import ImageStore


@click.command("build")
@click.argument("definition", metavar="DEF")
@click.option("--base", metavar="PATH|URI", help="Build on this base instead of DEF's own.")
@click.option(
    "--build-arg", "build_args", multiple=True, metavar="KEY=VALUE", help="As apptainer build."
)
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="SRC[:DST[:ro]]",
    help="Path that the build sees, with those of the configuration. Repeatable.",
)
@ca_bundle_option
@images_option
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="OPTION",
    help="Hand an option to apptainer build: --option=--no-https. Repeatable.",
)
@click.option(
    "--offline", is_flag=True, help="Ask no network: take base and packages from the store."
)
@click.option("--force", is_flag=True, help="Build although the store has an image of the same.")
@click.option(
    "--check-only", is_flag=True, help="Say what keeps DEF from giving the same image again."
)
@click.option("--check", is_flag=True, help="Build it aside, and compare it with what was built.")
@click.option(
    "--against",
    metavar="IMAGE|RECORD",
    help="With --check: what to compare with, instead of the store's image of DEF.",
)
@dry_run_option
@json_option
def command(
    definition: str,
    force: bool,
    check_only: bool,
    check: bool,
    against: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Build the image of the definition file DEF, and put it into the image store.

    DEF is a file, or the name of a definition that comes with valska (pyuvsim, or
    containers/pyuvsim.def). Nothing is built where the store has an image made of the same parts.
    The image's path is printed last. The same parts give the same bytes, whoever builds them,
    where and when.

    --check-only builds nothing, and exits with 2 if DEF has an error. --check keeps nothing, and
    exits with 5 unless all files and their modes are the same.
    """
    _require_one_of(check_only=check_only, check=check, dry_run=dry_run)
    if against is not None and not check:
        raise UsageError("--against is for --check", "Give --check as well.")
    if check_only:
        findings = lint(find_definition(definition), _arguments(options["build_args"]))
        _print_findings(definition, findings, as_json)
        return
    request = _request(definition, **options)
    progress = log_follower()
    if check:
        _print_check(check_build(request, against, progress=progress), as_json)
        return
    drafted = draft_build(request)
    if dry_run:
        if request.offline:
            require_offline(drafted)
        _print_draft(drafted, as_json)
        return
    _note_findings(definition, request)
    _print(build(drafted, force=force, progress=progress), as_json)


def _require_one_of(**modes: bool) -> None:
    chosen = [f"--{name.replace('_', '-')}" for name, given in modes.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other", "Give one of them.")


def _arguments(pairs: tuple[str, ...]) -> dict[str, str]:
    return parse_pairs(pairs, "--build-arg")


def _request(
    definition: str,
    *,
    base: str | None,
    build_args: tuple[str, ...],
    binds: tuple[str, ...],
    ca_bundle: Path | None,
    images: Path | None,
    options: tuple[str, ...],
    offline: bool,
) -> BuildRequest:
    settings = resolve(flags={"images": images, "ca_bundle": ca_bundle}, path=state().config)
    return BuildRequest(
        definition=find_definition(definition),
        store=ImageStore(settings.images),
        base=base,
        build_arguments=_arguments(build_args),
        apptainer=settings.apptainer,
        ca_bundle=settings.ca_bundle,
        binds=(*settings.build_binds, *binds),
        options=options,
        offline=offline,
    )


def _print_findings(definition: str, findings: tuple[Finding, ...], as_json: bool) -> None:
    if as_json:
        result_json({"definition": definition, "findings": [asdict(one) for one in findings]})
    elif not findings:
        note(f"{plain(definition)} has nothing that keeps it from giving the same image again.")
    for one in () if as_json else findings:
        result(f"{plain(definition)}:{one.line}: {one.level}: {plain(one.message)} [{one.code}]")
        if one.hint:
            result(f"    {plain(one.hint)}")
    if any(one.level == "error" for one in findings):
        click.get_current_context().exit(UsageError.exit_code)


def _note_findings(definition: str, request: BuildRequest) -> None:
    """Say once that there are findings; a definition that builds is built."""
    findings = lint(request.definition, request.build_arguments)
    if findings:
        number = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
        note(f"{number} about {plain(definition)}: see valska build --check-only.")


def _print_check(found: Rebuild, as_json: bool) -> None:
    if as_json:
        result_json(
            {
                "against": found.against,
                "sha256": found.record.sha256,
                "tree_sha256": found.record.tree_sha256,
                "difference": found.difference.to_json(),
                "log": found.log,
            }
        )
    else:
        note(f"A: {plain(found.against)}")
        note(f"B: the rebuild, {found.record.sha256[:12]}")
        print_difference(found.difference)
    if not found.same:
        click.get_current_context().exit(VerificationError.exit_code)


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
                "source_date_epoch": drafted.epoch,
                "existing": existing,
                "command": list(command),
            }
        )
        return
    rows = [
        ("definition", str(drafted.definition.path)),
        ("base", f"{drafted.base.reference} ({drafted.base.sha256 or 'no digest'})"),
        *(("file", f"{entry['source']} ({entry['sha256']})") for entry in drafted.files),
        ("newest time", _time(drafted.epoch)),
        ("in the store", existing or "no image made of the same"),
        ("command", shlex.join(command)),
    ]
    result(table([(name, plain(value)) for name, value in rows]))
    note("Nothing was built.")


def _time(epoch: int) -> str:
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%SZ} (SOURCE_DATE_EPOCH={epoch})"


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
