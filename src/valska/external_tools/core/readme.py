"""The README of a bundle: how a stranger runs it again with bash and Apptainer alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from string import Template

from valska.external_tools.core.jobscript import Identity
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.tool import RunPlan

_CONTAINED = """\
Needed: bash, coreutils, Apptainer, and the image with this SHA-256 (the job refuses any other):

    {image_sha256}

If `site.env` does not name it: `export VALSKA_IMAGE=/path/to/image.sif`. To rebuild one:
`containers/` holds its definition."""

_UNCONTAINED = """\
It runs without a container ({runner}): the tool has to be installed, and `site.env` says
how to reach it."""


def render_readme(
    identity: Identity, plan: RunPlan, runner: RunnerKind, image_sha256: str | None
) -> str:
    """Return the README of a bundle in Markdown."""
    return _template().substitute(
        asdict(identity),
        needs=needs_of(runner, image_sha256),
        sbatch=_lines(f"    sbatch submit_{stage.name}.sh" for stage in plan.stages),
        bash=_lines(f"    bash submit_{stage.name}.sh" for stage in plan.stages),
        stages=_lines(_stage_lines(plan)),
    )


def needs_of(runner: RunnerKind, image_sha256: str | None) -> str:
    """Return what has to be there to run it again, in Markdown."""
    needs = _CONTAINED if runner is RunnerKind.CONTAINER else _UNCONTAINED
    return needs.format(image_sha256=image_sha256, runner=runner.value)


def _template() -> Template:
    return Template(Path(__file__).with_name("bundle_readme.md").read_text(encoding="utf-8"))


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _stage_lines(plan: RunPlan) -> Iterable[str]:
    for stage in plan.stages:
        ranks = f" ({stage.ranks} MPI ranks)" if stage.ranks > 1 else ""
        after = f", after {', '.join(stage.after)}" if stage.after else ""
        yield f"- {stage.name}{ranks}{after}: `{shlex.join(stage.argv)}`"
        yield from (f"  - writes `outputs/{path}`" for path in stage.outputs)
        if stage.resume:
            yield "  - stopped too early, it can go on: add `--resume` to its command"
    for place in plan.borrowed:
        yield f"- `outputs/{place}` lies elsewhere: `manifest.json` says where, as `borrowed`"
