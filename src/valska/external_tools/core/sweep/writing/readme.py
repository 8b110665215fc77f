"""The README of a sweep: how a stranger runs its points again with bash and Apptainer alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template

from valska.external_tools.core.jobscript import Identity
from valska.external_tools.core.readme import needs_of
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.tool import Stage

_SHARED = """
What {stages} writes can serve several points: these have it done once, in `shared/LABEL/`. It has
to run before them:

    bash {script} shared/LABEL
"""


def render_sweep_readme(
    identity: Identity, stages: Sequence[Stage], runner: RunnerKind, image_sha256: str | None
) -> str:
    """Return the README of a sweep in Markdown."""
    return _template().substitute(
        asdict(identity),
        needs=needs_of(runner, image_sha256),
        bash="\n".join(f"    bash submit_{stage.name}.sh points/LABEL" for stage in stages),
        script=f"submit_{stages[0].name}.sh",
        stages="\n".join(_stage_lines(stages)),
        shared="".join(
            _SHARED.format(stages=stage.name, script=f"submit_{stage.name}.sh")
            for stage in stages
            if stage.lends
        ),
    )


def _template() -> Template:
    path = Path(__file__).parents[2] / "sweep_readme.md"
    return Template(path.read_text(encoding="utf-8"))


def _stage_lines(stages: Iterable[Stage]) -> Iterable[str]:
    for stage in stages:
        after = f", after {', '.join(stage.after)}" if stage.after else ""
        yield f"- {stage.name}{after}: `{shlex.join(stage.argv)}`"
        yield from (f"  - writes `outputs/{path}`" for path in stage.outputs)
