"""A small real tool, as a plugin outside valska: counts the lines of a file, then doubles them.

``then`` is shell code at the end of the first command, ``keep`` a pattern of what that writes;
``run`` is read from the configuration when that runs, so that points of a sweep can differ in it.
With ``share`` points of the same word share what the first command writes, and the second one ends
with ``run``.
"""

from typing import ClassVar

import yaml

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.overrides import apply_overrides
from valska.external_tools.core.templates import get_templates_dir
from valska.external_tools.core.tool import Input, RunPlan, Stage

_FIND = 'while IFS= read -r line; do case $line in run:*) echo "${line#run: }";; esac; done'
_RUN = f'; eval "$({_FIND} < ../config/lines.yaml)"'


class LineTool:
    name = "linetool"
    summary = "count the lines of a file"
    definition = "linetool.def"
    templates_dir = get_templates_dir(__file__)
    stages = ("count", "double")
    directives: ClassVar = {
        "count": {"time": "10", "ntasks": "1"},
        "double": {"time": "10", "ntasks": "1"},
    }

    def discover(self, spec, read):
        document = _document(spec, read)
        if "data" not in document:
            raise UsageError(f"{spec.source} names no data")
        return (Input("data", (spec.source.parent / document["data"]).absolute(), "data.txt"),)

    def plan(self, spec, inputs, read):
        document = {**_document(spec, read), "data": "../inputs/data.txt"}
        shares = {"count": str(document["share"])} if "share" in document else {}
        lends = ("lines",) if shares else ()
        kept = (document["keep"],) if "keep" in document else ()
        written = "lines/count.txt" if shares else "count.txt"
        count = f"wc -l < ../inputs/data.txt > {written}" + document.get("then", "")
        double = f"echo $(( $(cat {written}) * 2 )) > double.txt"
        if shares:
            count = f"mkdir -p lines; {count}"
            double += _RUN if "run" in document else ""
        elif "run" in document:
            count += _RUN
        return RunPlan(
            stages=(
                Stage("count", ("bash", "-c", count), outputs=(written, *kept), lends=lends),
                Stage("double", ("bash", "-c", double), after=("count",), outputs=("double.txt",)),
            ),
            configs={"lines.yaml": yaml.safe_dump(document, width=10**6).encode()},
            taxonomy={"kind": spec.taxonomy.get("kind", "plain")},
            section={"data": "data"},
            shares=shares,
        )


def _document(spec, read):
    document = yaml.safe_load(read(spec.source))
    return apply_overrides(document, spec.overrides, known=["then", "keep", "run", "share"])


TOOL = LineTool()
