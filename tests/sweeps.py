"""Sweeps written down by hand: common files, points, shared work and lists, all sealed."""

import json
import shutil
from pathlib import Path

from toy import data_file, stage

from valska.external_tools.core.jobscript import Identity, all_directives, render_script
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.site import Site, write_site_env
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import sha256_bytes, sha256_file

INSTANCE = "cd" * 16


def shell(text, name="simulate", **more):
    return stage(name, **{"argv": ("bash", "-c", text), **more})


def make_sweep(
    folder,
    stages=None,
    *,
    points=("a", "b"),
    shared=None,
    site=None,
    script=None,
    image=None,
    name="sweep",
):
    """Make a sweep.

    `shared` maps a stage that points share to the labels of its units, one for each point;
    `script` has further arguments of `render_script`; `image` is embedded.
    """
    sweep = Sweep(folder / name)
    stages = tuple(stages or [stage()])
    for directory in ("inputs", "containers", "logs", "arrays"):
        (sweep.path / directory).mkdir(parents=True)
    data_file(sweep.path / "inputs")
    sweep.common.write_text("{}\n")
    if image:
        shutil.copy(image, sweep.bundle.containers)
    for planned in stages:
        sweep.bundle.script(planned.name).write_text(_script(planned, stages, script or {}))
    common = [path for path in sweep.path.rglob("*") if path.is_file()]
    seal(sweep.bundle, common)
    write_site_env(sweep.bundle.site_env, site or Site())
    for place in {f"shared/{label}" for labels in (shared or {}).values() for label in labels}:
        make_unit(sweep, place)
    for number, label in enumerate(points):
        borrowed = [labels[number] for labels in (shared or {}).values()]
        make_unit(sweep, f"points/{label}", borrowed)
    return sweep


def _script(planned, stages, more):
    lent = [(one.name, directory) for one in stages for directory in one.lends]
    arguments = {"runner": RunnerKind.HOST, "alone": len(stages) == 1, "lent": lent, **more}
    directives = all_directives("toy", planned, {}, sweep=True)
    identity = Identity("toy", "s1", "", INSTANCE, "1")
    return render_script(identity, planned, directives, sweep=True, **arguments)


def make_unit(sweep, place, borrowed=()):
    unit = sweep.unit(place)
    unit.config.mkdir(parents=True)
    (unit.config / "run.yaml").write_text(f"unit: {place}\n")
    manifest = {"label": unit.path.name, "bundle_id": bundle_id(place), "values": {}}
    unit.manifest.write_text(json.dumps(manifest, indent=2) + "\n")
    seal(
        unit,
        [
            unit.config / "run.yaml",
            unit.manifest,
            Path("../../SHA256SUMS"),
            *(Path(f"../../shared/{label}/manifest.json") for label in borrowed),
        ],
    )
    return unit


def bundle_id(place):
    return sha256_bytes(place.encode())


def seal(bundle: Bundle, paths):
    lines = []
    for path in sorted(paths):
        place = path.relative_to(bundle.path) if path.is_absolute() else path
        lines.append(f"{sha256_file(bundle.path / place)}  {place}\n")
    bundle.sums.write_text("".join(lines))


def make_list(sweep, places, name="ab12cd34-0"):
    """Write the list of a slice; return the arguments that a job array gets."""
    path = sweep.arrays / f"{name}.sums"
    lines = [f"{sha256_file(sweep.unit(place).sums)}  {place}/SHA256SUMS\n" for place in places]
    path.write_text("".join(lines))
    return sha256_file(path), f"arrays/{path.name}"
