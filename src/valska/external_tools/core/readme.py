"""The README of a bundle: how a stranger runs it again with bash and Apptainer alone."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from valska.external_tools.core.jobscript import Identity
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.tool import RunPlan

if TYPE_CHECKING:
    from valska.external_tools.core.bundling import BundledImage


def render_readme(
    identity: Identity, plan: RunPlan, runner: RunnerKind, image: BundledImage | None
) -> str:
    """Return the README of a bundle in Markdown."""
    return "\n".join(
        [
            f"# {identity.tool} run {identity.run_id}",
            "",
            f"A run bundle made by valska {identity.valska_version}. It describes itself in",
            "`manifest.json`; nothing outside this directory is needed to read it.",
            "",
            f"    bundle id  {identity.bundle_id}",
            "",
            "The same bundle id means the same science: tool, configuration, command, ranks, inputs",
            "and software.",
            "",
            "## Check it",
            "",
            "    sha256sum --check --quiet SHA256SUMS",
            "",
            "Silence means that every sealed file is as it was made. The *seal* is the digest of",
            "that list: `sha256sum SHA256SUMS`.",
            "",
            "## Run it again",
            "",
            *_needs(runner, image),
            "",
            "On Slurm, from this directory (add `--dependency=afterok:ID` to chain stages):",
            "",
            *[f"    sbatch submit_{stage.name}.sh" for stage in plan.stages],
            "",
            "Without Slurm:",
            "",
            *[f"    bash submit_{stage.name}.sh" for stage in plan.stages],
            "",
            "With valska: `valska submit .`, `valska status .`, `valska verify .`.",
            "",
            "## What it runs",
            "",
            *_stages(plan),
            "",
            "`bash submit_<stage>.sh --show` prints the whole command and runs nothing.",
            "",
            "## What is where",
            "",
            "| path | what |",
            "|---|---|",
            "| `config/`, `inputs/` | what the run reads; sealed |",
            "| `containers/` | the image's definition, lock and record; sealed |",
            "| `submit_*.sh` | one script per stage; sealed |",
            "| `site.env` | what depends on the site: where the image is, set-up lines; edit freely |",
            "| `outputs/` | what the run wrote (`outputs.1/` and so on: earlier attempts) |",
            "| `records/` | what each job wrote down of itself |",
            "| `logs/`, `jobs.json` | what the jobs printed, and how they were submitted |",
            "",
        ]
    )


def _needs(runner: RunnerKind, image: BundledImage | None) -> list[str]:
    if runner is not RunnerKind.CONTAINER or image is None:
        return [
            f"This bundle runs without a container ({runner.value}): the tool has to be installed,",
            "and `site.env` says how to reach it.",
        ]
    return [
        "Needed: bash, coreutils, Apptainer, and the image with this SHA-256:",
        "",
        f"    {image.sha256}",
        "",
        "If `site.env` does not name it: `export VALSKA_IMAGE=/path/to/image.sif`. The job refuses",
        "any other image. To rebuild one from the definition: `containers/`.",
    ]


def _stages(plan: RunPlan) -> list[str]:
    lines = []
    for stage in plan.stages:
        ranks = f" ({stage.ranks} MPI ranks)" if stage.ranks > 1 else ""
        after = f", after {', '.join(stage.after)}" if stage.after else ""
        lines += [f"- {stage.name}{ranks}{after}: `{shlex.join(stage.argv)}`"]
        lines += [f"  - writes `outputs/{path}`" for path in stage.outputs]
    return lines
