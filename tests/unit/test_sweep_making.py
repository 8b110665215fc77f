"""Making sweeps: whole or not at all, stored once, added to, and nothing lost by a kill."""

import json
import os
import shlex
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from processes import run_as_nobody
from toy import Toy, data_file, request, stage

from valska.external_tools.core.bundling import BundledImage, create, draft
from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.lock import LockedError, directory_lock
from valska.external_tools.core.manifest import (
    ManifestError,
    Science,
    bundle_id,
    read_manifest,
    validate_manifest,
)
from valska.external_tools.core.overrides import apply_perturbations
from valska.external_tools.core.process import Completed
from valska.external_tools.core.run_directory import RunDirectoryError, TakenError, open_bundle
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.sweep.document import read_common, read_sweep_manifest
from valska.external_tools.core.sweep.layout import Sweep, is_sweep, open_sweep, sweep_of
from valska.external_tools.core.sweep.planning.points import Point, points_from_options
from valska.external_tools.core.sweep.planning.spool import Spool
from valska.external_tools.core.sweep.verification import verify_sweep
from valska.external_tools.core.sweep.writing.making import (
    SweepRequest,
    add_points,
    create_sweep,
    draft_sweep,
    preview,
)
from valska.external_tools.core.tool import Input, RunPlan, read_file
from valska.external_tools.core.utils import sha256_bytes, sha256_file

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")

PRE = stage("pre", ("mkdir", "m"), ("m/x",), lends=("m",))
FIT = stage("fit", ("cat", "../config/a.yaml"), ("out.txt",), after=("pre",))


@dataclass(frozen=True)
class Grid(Toy):
    """A toy whose configuration holds what a point sets; `key` says which points share work."""

    key: object = None
    files: dict = field(default_factory=dict)

    def discover(self, spec, read):
        named = self.files.get(spec.overrides.get("file"), ())
        return (*super().discover(spec, read), *named)

    def plan(self, spec, inputs, read):
        if spec.overrides.get("x") == "bad":
            raise UsageError("x is bad", "Take another.")
        document = {"w": 2.0, "text": "a", **spec.overrides}
        document = apply_perturbations(document, spec.perturbations)
        text = json.dumps(document, sort_keys=True)
        shares = {"pre": str(self.key(spec))} if self.key else {}
        stages = self.planned
        if spec.overrides.get("x") == "other":
            stages = tuple(replace(one, ranks=2) for one in stages)
        configs = {"a.yaml": text.encode(), "sub/b.yaml": b"b: 1\n"}
        return RunPlan(stages, configs, self.taxonomy, {"kind": "grid"}, shares)


@dataclass(frozen=True)
class FastGrid(Grid):
    """The same, planning many points at once."""

    def plan_points(self, specs, read):
        for spec in specs:
            inputs = self.discover(spec, read)
            yield inputs, self.plan(spec, inputs, read)


def no_git(argv, **more):
    return Completed(tuple(argv), 1, "", "")


def drafted(folder, *, kind=Grid, key=None, files=None, stages=(PRE, FIT), base=None, **options):
    """Return the draft of a sweep; `options` as for `points_from_options`."""
    options = options or {"values": ["x=1,2,3"]}
    inputs = {"data.txt": data_file(folder)}
    asked = request(folder, **{"output": folder / "sweep", "run_id": "s1", **(base or {})})
    tool = kind(tuple(stages), inputs, key=key, files=files or {})
    points = points_from_options(**options)
    return draft_sweep(SweepRequest(base=replace(asked, tool=tool), points=points))


def made(folder, **more):
    return create_sweep(drafted(folder, **more), run=no_git).sweep


def tree(folder, *, common=True):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (common or path.parts[len(folder.parts)] in ("points", "shared"))
    }


def whole(sweep, labels):
    """Check that a sweep has just these points, each as it was made."""
    manifest = read_sweep_manifest(sweep)
    assert [point.label for point in manifest.points] == list(labels)
    assert verify_sweep(sweep).findings == ()
    assert sorted(path.name for path in sweep.points.iterdir()) == sorted(labels)
    for point in manifest.points:
        assert read_manifest(sweep.point(point.label)).bundle_id == point.bundle_id
        assert sha256_file(sweep.point(point.label).sums) == point.seal
    return manifest


# --- What is in it --------------------------------------------------------------------------------


def test_layout(tmp_path):
    sweep = made(tmp_path, values=["x=1,2"])
    point = {"SHA256SUMS", "manifest.json", "config/a.yaml", "config/sub/b.yaml"}
    assert set(tree(sweep.path)) == {
        "README.md", "SHA256SUMS", "common.json", "sweep_manifest.json", "site.env",
        "inputs/data.txt", "submit_pre.sh", "submit_fit.sh",
        *(f"points/x_{n}/{name}" for n in (1, 2) for name in point),
    }  # fmt: skip
    for folder in (sweep.arrays, sweep.bundle.logs, sweep.shared, sweep.bundle.containers):
        assert folder.is_dir()
    whole(sweep, ["x_1", "x_2"])
    assert is_sweep(sweep.path)
    assert sweep_of(sweep.point("x_1").path) == open_sweep(sweep.path)


def test_sha256sum_checks_it_in_place(tmp_path):
    sweep = made(tmp_path, key=lambda spec: 1, values=["x=1,2"])
    shared = next(sweep.shared.iterdir())
    for folder in (sweep.path, sweep.point("x_1").path, shared):
        done = subprocess.run(
            ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=False
        )
        assert done.returncode == 0
    lines = sweep.point("x_1").sums.read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        "../../SHA256SUMS", f"../../shared/{shared.name}/manifest.json",
        "config/a.yaml", "config/sub/b.yaml", "manifest.json",
    ]  # fmt: skip


def test_place_below_the_results_root(tmp_path):
    base = {"output": None, "results_root": tmp_path / "r"}
    assert drafted(tmp_path, base=base).path == tmp_path / "r/toy/plain/_sweeps/s1"


def test_no_place(tmp_path):
    with pytest.raises(UsageError, match="no place"):
        drafted(tmp_path, base={"output": None})


def test_no_image(tmp_path):
    with pytest.raises(PrerequisiteError, match="no image"):
        drafted(tmp_path, base={"runner": RunnerKind.CONTAINER})


@pytest.mark.parametrize("kind", [Grid, FastGrid])
@pytest.mark.parametrize(
    "options", [{"values": ["x=1,'é','100%s']"[:-1]]}, {"perturb": ["w=-0.05,0,0.1"]}]
)
def test_a_point_has_the_id_and_configuration_of_a_bundle(tmp_path, kind, options):
    asked = drafted(tmp_path, kind=kind, base={"spec": {"overrides": {"y": 1}}}, **options)
    sweep = create_sweep(asked).sweep
    for point in asked.request.points:
        spec = replace(
            asked.request.base.spec,
            overrides={"y": 1, **point.values},
            perturbations=point.perturbations,
        )
        single = create(
            draft(replace(asked.request.base, spec=spec, output=tmp_path / point.label))
        )
        one, other = read_manifest(single), read_manifest(sweep.point(point.label))
        assert one.bundle_id == other.bundle_id
        assert {**one.spec, "overrides": dict(sorted(one.spec["overrides"].items()))} == {
            **other.spec,
            "overrides": dict(sorted(other.spec["overrides"].items())),
        }
        assert one.section == other.section
        assert [e.name for e in one.inputs] == [e.name for e in other.inputs]
        for name in ("a.yaml", "sub/b.yaml"):
            mine = sweep.point(point.label).config / name
            assert mine.read_bytes() == (single.config / name).read_bytes()


@pytest.mark.parametrize("names", [["a"], ["b", "a"], ["é", "z", "😀", "\uffff"], ['"', "a/b", ""]])
def test_ids_by_the_short_way_are_those_of_bundles(names):
    configs = {name: name.encode() for name in names}
    digests = {name: sha256_bytes(data) for name, data in configs.items()}
    inputs = {"sky.file": "0" * 64}
    science = Science("toy", (PRE, FIT), inputs, None)
    assert science.bundle_id(digests) == bundle_id("toy", configs, (PRE, FIT), inputs, None)


def test_the_manifest_of_a_point_is_whole(tmp_path):
    sweep = made(tmp_path)
    manifest = read_manifest(sweep.point("x_2"))
    assert manifest.run_id == "x_2"
    assert manifest.spec["overrides"] == {"x": 2}
    assert manifest.section == {"kind": "grid"}
    assert manifest.run_dir == str(sweep.point("x_2").path)
    assert {entry.path for entry in manifest.files} == {
        "README.md", "submit_fit.sh", "submit_pre.sh", "inputs/data.txt",
        "config/a.yaml", "config/sub/b.yaml",
    }  # fmt: skip
    assert read_common(sweep).run_id == "s1"


def test_a_point_that_is_not_of_its_schema_is_refused(tmp_path):
    sweep = made(tmp_path)
    path = sweep.point("x_1").manifest
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "values": 1}))
    with pytest.raises(ManifestError, match="values"):
        read_manifest(sweep.point("x_1"))
    path.write_text(json.dumps({**data, "schema_version": "2.0"}))
    with pytest.raises(ManifestError, match="version 2"):
        read_manifest(sweep.point("x_1"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["points"].append(data["points"][0]), "names 'x_1' twice"),
        (lambda data: data.update(schema_version="2.0"), "version 2"),
        (lambda data: data["points"][0].update(label="../x"), "label"),
        (lambda data: data["points"][0].pop("seal"), "seal"),
    ],
)
def test_a_manifest_of_a_sweep_that_is_none(tmp_path, change, said):
    sweep = made(tmp_path)
    data = json.loads(sweep.manifest.read_text())
    change(data)
    sweep.manifest.write_text(json.dumps(data))
    with pytest.raises(ManifestError, match=said):
        read_sweep_manifest(sweep)


def test_a_sweep_without_its_manifest_is_told_from_what_is_no_bundle(tmp_path):
    sweep = made(tmp_path)
    sweep.manifest.unlink()
    for path in (sweep.path, sweep.points / "x_1"):
        with pytest.raises(RunDirectoryError, match=r"sweep .*/sweep has lost its sweep_manifest"):
            open_bundle(path)


def test_one_point_on_each_line(tmp_path):
    sweep = made(tmp_path)
    lines = [line for line in sweep.manifest.read_text().splitlines() if "values" in line]
    found = [json.loads(line.strip().rstrip(","))["label"] for line in lines]
    assert found == ["x_1", "x_2", "x_3"]


def test_the_image_is_stored_once(tmp_path):
    sif = tmp_path / "toy.sif"
    sif.write_bytes(b"an image")
    files = {"toy.def": ("definition", b"Bootstrap: docker\n")}
    image = BundledImage(sif, sha256_bytes(b"an image"), 8, files=files)
    sweep = made(tmp_path, base={"runner": RunnerKind.CONTAINER, "image": image})
    assert (sweep.bundle.containers / "toy.def").read_bytes() == b"Bootstrap: docker\n"
    manifest = read_manifest(sweep.point("x_1"))
    assert manifest.image["sha256"] == image.sha256
    validate_manifest(json.loads(json.dumps({**json.loads(sweep.common.read_text()), "run_id": "s",
                                             "bundle_id": "0" * 64})))  # fmt: skip


# --- Inputs ---------------------------------------------------------------------------------------


def named(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return Input("sky", path, name)


def test_inputs_of_all_points_are_staged_once(tmp_path):
    files = {
        "one": (named(tmp_path / "1", "one.txt", "1"),),
        "two": (named(tmp_path / "2", "two.txt", "2"),),
    }
    sweep = made(tmp_path, files=files, values=["file=one,two", "x=1,2"])
    assert {path.name for path in sweep.bundle.inputs.iterdir()} == {
        "data.txt", "one.txt", "two.txt",
    }  # fmt: skip
    manifest = read_manifest(sweep.point("file_two_x_1"))
    assert {entry.name: entry.path for entry in manifest.inputs} == {
        "input.data.txt": "inputs/data.txt",
        "sky": "inputs/two.txt",
    }
    assert "inputs/one.txt" not in {entry.path for entry in manifest.files}
    ids = [point.bundle_id for point in read_sweep_manifest(sweep).points]
    assert len(set(ids)) == 4


def test_two_files_of_one_name_are_refused(tmp_path):
    files = {
        "one": (named(tmp_path / "1", "sky.txt", "1"),),
        "two": (named(tmp_path / "2", "sky.txt", "2"),),
    }
    with pytest.raises(UsageError, match=r"point file_two .*same name sky.txt"):
        drafted(tmp_path, files=files, values=["file=one,two"])


def test_references_are_placeholders_and_known_to_the_site(tmp_path):
    sweep = made(tmp_path, base={"staging": StagingMode.REFERENCE})
    assert (sweep.bundle.inputs / "data.txt").stat().st_size == 0
    assert shlex.quote(str(tmp_path / "data.txt")) in sweep.bundle.site_env.read_text()


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Grid, FastGrid])
def test_a_bad_value_names_the_point_and_the_key_and_nothing_is_made(tmp_path, kind):
    with pytest.raises(UsageError, match=r'point x_bad \(x="bad"\): x is bad') as caught:
        drafted(tmp_path, kind=kind, values=["x=1,bad,3"])
    assert caught.value.hint == "Take another."
    assert [path.name for path in tmp_path.iterdir()] == ["data.txt"]


@pytest.mark.parametrize("kind", [Grid, FastGrid])
def test_what_is_wrong_without_any_point_blames_none(tmp_path, kind):
    wrong = {"spec": {"overrides": {"x": "bad"}}}
    with pytest.raises(UsageError) as caught:
        drafted(tmp_path, kind=kind, base=wrong, values=["y=1,2"])
    assert caught.value.message == "x is bad"


def test_other_stages_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"point x_other .*ranks of pre is 2, not 1"):
        drafted(tmp_path, values=["x=1,other"])


def test_a_key_cannot_be_swept_and_set(tmp_path):
    with pytest.raises(UsageError, match="x cannot be both swept and set"):
        drafted(tmp_path, base={"spec": {"overrides": {"x": 5}}})
    with pytest.raises(UsageError, match="w cannot be both set and perturbed"):
        drafted(tmp_path, base={"spec": {"overrides": {"w": 5}}}, perturb=["w"])


def test_perturbing_what_is_no_number(tmp_path):
    with pytest.raises(UsageError, match=r"point z_x-0.1 .*no key 'z'"):
        drafted(tmp_path, perturb=["z"])
    with pytest.raises(UsageError, match=r"point text_x-0.1 .*its value 'a' is no number"):
        drafted(tmp_path, perturb=["text"])


def test_a_tool_that_does_not_perturb_is_found_out(tmp_path):
    @dataclass(frozen=True)
    class Deaf(Grid):
        def plan(self, spec, inputs, read):
            return super().plan(replace(spec, perturbations={}), inputs, read)

    with pytest.raises(UsageError, match="changes nothing"):
        drafted(tmp_path, kind=Deaf, perturb=["w=0,0.1"])


def test_a_value_that_is_not_utf8_names_the_point(tmp_path):
    points = (Point("p", {"x": 1}), Point("q", {"x": "\udcff"}))
    asked = drafted(tmp_path)
    asked = draft_sweep(replace(asked.request, points=points))
    with pytest.raises(UsageError, match=r"point q .*not UTF-8"):
        create_sweep(asked)
    assert [path.name for path in tmp_path.iterdir()] == ["data.txt"]


def test_a_plan_that_shares_what_it_does_not_lend(tmp_path):
    with pytest.raises(ValskaError, match="lends nothing"):
        drafted(tmp_path, key=lambda spec: 1, stages=(replace(PRE, lends=()), FIT))


def test_taken_by_something_else(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/file").touch()
    asked = drafted(tmp_path)
    for function in (create_sweep, add_points):
        with pytest.raises(TakenError, match="exists already"):
            function(asked)
    with pytest.raises(TakenError):
        preview(asked, add=True)


def test_no_sweep_is_made_in_another(tmp_path):
    sweep = made(tmp_path)
    inner = drafted(tmp_path, base={"output": sweep.points / "inner"})
    with pytest.raises(TakenError, match=r"inner lies in .*/sweep, which is a bundle or a"):
        create_sweep(inner, run=no_git)
    with pytest.raises(TakenError, match="inner lies in"):
        create(draft(request(tmp_path, output=sweep.points / "x_1/inner")), run=no_git)
    with pytest.raises(TakenError):
        preview(inner, add=False)
    assert not (sweep.points / "inner").exists()


@ROOT
def test_a_place_where_nothing_can_be_written(tmp_path):
    asked = drafted(tmp_path, base={"output": tmp_path / "locked/sweep"})
    (tmp_path / "locked").mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if folder not in (Path("/"), Path("/tmp")):
            folder.chmod(0o755)

    def attempt():
        with pytest.raises(ValskaError, match="cannot make") as caught:
            create_sweep(asked, run=no_git)
        assert "Permission denied" in caught.value.message

    assert run_as_nobody(attempt)


def test_an_input_that_is_gone_leaves_nothing(tmp_path):
    asked = drafted(tmp_path)
    (tmp_path / "data.txt").unlink()
    with pytest.raises(UsageError, match="no such file"):
        create_sweep(asked)
    assert list(tmp_path.iterdir()) == []


# --- Shared work ----------------------------------------------------------------------------------


def by_half(spec):
    return int(spec.overrides.get("x", 0)) // 2


def test_work_with_one_key_is_shared(tmp_path):
    asked = drafted(tmp_path, key=by_half, values=["x=2,3,4,6,7"])
    assert dict(asked.cost.jobs) == {"pre": 3, "fit": 5}
    sweep = create_sweep(asked).sweep
    manifest = whole(sweep, ["x_2", "x_3", "x_4", "x_6", "x_7"])
    units = {
        path.name: read_manifest(sweep.shared_unit(path.name)) for path in sweep.shared.iterdir()
    }
    assert len(units) == 2
    points = manifest.by_label()
    assert points["x_2"].shared == points["x_3"].shared != points["x_6"].shared
    assert (points["x_4"].shared, points["x_2"].alone) == ({}, {})
    assert points["x_4"].alone.keys() == {"pre"}
    for entry in manifest.shared:
        unit = units[entry.label]
        assert [one.name for one in unit.stages] == ["pre"]
        assert unit.bundle_id == entry.bundle_id != points["x_2"].bundle_id
        assert entry.label == f"pre-{entry.key_sha256[:12]}"
    first = sweep.shared_unit(points["x_6"].shared["pre"])
    assert json.loads((first.config / "a.yaml").read_text())["x"] == 6


# --- Adding ---------------------------------------------------------------------------------------


def test_points_are_added_and_those_there_are_kept(tmp_path):
    sweep = made(tmp_path, values=["x=1,2"])
    before = tree(sweep.path)
    done = add_points(drafted(tmp_path, values=["x=2,3,4"]))
    assert (done.added, done.kept) == (("x_3", "x_4"), ("x_2",))
    whole(sweep, ["x_1", "x_2", "x_3", "x_4"])
    after = tree(sweep.path)
    assert {k: after[k] for k in before if k != "sweep_manifest.json"} == {
        k: v for k, v in before.items() if k != "sweep_manifest.json"
    }
    again = add_points(drafted(tmp_path, values=["x=2,3,4"]))
    assert (again.added, again.kept) == ((), ("x_2", "x_3", "x_4"))
    assert tree(sweep.path) == after


def test_a_point_added_is_as_if_made_at_once(tmp_path):
    sweep = made(tmp_path, key=by_half, values=["x=2,3"])
    add_points(drafted(tmp_path, key=by_half, values=["x=4,5"]))
    added = read_sweep_manifest(sweep)
    other = tmp_path / "other"
    other.mkdir()
    at_once = read_sweep_manifest(made(other, key=by_half, values=["x=2,3,4,5"]))
    assert [p.bundle_id for p in added.points] == [p.bundle_id for p in at_once.points]
    assert [p.shared for p in added.points] == [p.shared for p in at_once.points]


def test_directives_and_an_id_that_are_not_heeded_are_told(tmp_path):
    made(tmp_path)
    other = {"fit": {"time": "02:00:00"}}
    again = drafted(tmp_path, base={"run_id": "s2", "spec": {"directives": other}})
    for function in (create_sweep, add_points):
        about_id, about_time = function(again).notes
        assert about_id == "the sweep's id stays s1"
        assert "script of fit stays as it is, without time=02:00:00: give --slurm" in about_time
    assert create_sweep(drafted(tmp_path)).notes == ()


def test_adding_to_nothing_makes_the_sweep(tmp_path):
    assert add_points(drafted(tmp_path)).added == ("x_1", "x_2", "x_3")


def test_new_points_join_shared_work_and_a_lone_one_stays_alone(tmp_path):
    sweep = made(tmp_path, key=by_half, values=["x=2,3,4"])
    done = add_points(drafted(tmp_path, key=lambda spec: 2 if spec.overrides.get("x", 0) > 4 else 1,
                              values=["x=5,6"]))  # fmt: skip
    manifest = whole(sweep, ["x_2", "x_3", "x_4", "x_5", "x_6"])
    points = manifest.by_label()
    assert points["x_5"].shared == points["x_6"].shared == dict(points["x_4"].alone)
    assert points["x_4"].shared == {}
    assert len(done.notes) == 2
    assert "x_5 does not use what pre of x_4 writes" in done.notes[0]
    done = add_points(drafted(tmp_path, key=lambda spec: 1, values=["x=7"]))
    assert done.notes == ()
    points = read_sweep_manifest(sweep).by_label()
    assert points["x_7"].shared == points["x_2"].shared
    whole(sweep, ["x_2", "x_3", "x_4", "x_5", "x_6", "x_7"])


def test_the_same_command_again_reports_the_sweep(tmp_path):
    sweep = made(tmp_path)
    before = tree(sweep.path)
    done = create_sweep(drafted(tmp_path))
    assert (done.added, done.kept) == ((), ("x_1", "x_2", "x_3"))
    assert tree(sweep.path) == before


@pytest.mark.parametrize(
    "other",
    [
        {"values": ["x=1,2"]},
        {"values": ["x=1,2,3,4"]},
        {"values": ["x=1,2,4"]},
        {"base": {"spec": {"overrides": {"y": 1}}}},
        {"stages": (PRE,)},
    ],
)
def test_another_sweep_at_the_same_place_is_refused(tmp_path, other):
    sweep = made(tmp_path)
    before = tree(sweep.path)
    with pytest.raises(TakenError, match="exists already") as caught:
        create_sweep(drafted(tmp_path, **other))
    assert "--add" in caught.value.hint
    with pytest.raises(TakenError):
        preview(drafted(tmp_path, **other), add=False)
    assert tree(sweep.path) == before


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"stages": (PRE, replace(FIT, argv=("cat",)))}, "other stages"),
        ({"base": {"spec": {"overrides": {"y": 1}}}}, "override y 1, not unset"),
        ({"base": {"spec": {"options": {"y": 1}}}}, "option y 1, not unset"),
        ({"files": {None: (Input("sky", Path(__file__), "new.txt"),)}}, "has no input sky"),
    ],
)
def test_what_does_not_fit_is_not_added(tmp_path, other, said):
    sweep = made(tmp_path)
    before = tree(sweep.path)
    with pytest.raises(UsageError, match=said):
        add_points(drafted(tmp_path, values=["x=8"], **other))
    assert tree(sweep.path) == before


def test_an_input_that_has_changed_is_not_added(tmp_path):
    made(tmp_path)
    asked = drafted(tmp_path, values=["x=8"])
    (tmp_path / "data.txt").write_text("other\n")
    with pytest.raises(UsageError, match=r"input input.data.txt has changed since"):
        add_points(asked)


def test_a_configuration_that_has_changed_is_not_added(tmp_path):
    @dataclass(frozen=True)
    class Later(Grid):
        def plan(self, spec, inputs, read):
            plan = super().plan(spec, inputs, read)
            return replace(plan, configs={**plan.configs, "sub/b.yaml": b"b: 2\n"})

    made(tmp_path)
    with pytest.raises(UsageError, match="x_1 is in the sweep already, made from another"):
        add_points(drafted(tmp_path, kind=Later))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label,x\nx_1,7\n", "the name of point x_1 .* is taken"),
        ("label,x\nX_1,7\n", "is taken by another, x_1"),
        ("label,x\nnew,1\n", "is in the sweep already, as x_1"),
    ],
)
def test_names_and_contents_are_not_taken_twice(tmp_path, text, said):
    made(tmp_path)
    table = tmp_path / "points.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=said):
        add_points(drafted(tmp_path, table=table))


def test_two_cannot_add_at_once(tmp_path):
    sweep = made(tmp_path)
    with directory_lock(sweep.bundle.submit_lock), pytest.raises(LockedError):
        add_points(drafted(tmp_path, values=["x=8"]))
    whole(sweep, ["x_1", "x_2", "x_3"])


def test_a_sweep_that_was_changed_is_not_added_to(tmp_path):
    sweep = made(tmp_path)
    with sweep.bundle.sums.open("a") as file:
        file.write("\n")
    with pytest.raises(ValskaError, match="not as it was made"):
        add_points(drafted(tmp_path, values=["x=8"]))


def test_a_preview_touches_nothing(tmp_path):
    asked = drafted(tmp_path)
    assert preview(asked, add=False) is asked
    assert [path.name for path in tmp_path.iterdir()] == ["data.txt"]
    sweep = made(tmp_path)
    before = tree(sweep.path)
    more = preview(drafted(tmp_path, values=["x=3,4"]), add=True)
    assert [one.point.label for one in more.points] == ["x_4"]
    assert more.cost.jobs == {"pre": 1, "fit": 1}
    assert preview(drafted(tmp_path), add=False).points == ()
    assert tree(sweep.path) == before


def test_what_a_killed_add_left_is_adopted_or_replaced(tmp_path):
    sweep = made(tmp_path, values=["x=1,2,3,4"])
    old = {name: tree(sweep.point(name).path) for name in ("x_3", "x_4")}
    data = json.loads(sweep.manifest.read_text())
    data["points"] = data["points"][:2]
    sweep.manifest.write_text(json.dumps(data))
    (sweep.point("x_4").config / "a.yaml").write_text("damaged")
    inode = sweep.point("x_3").manifest.stat().st_ino
    left = sweep.points / ".0123456789ab.partial"
    (left / "points/x_9").mkdir(parents=True)
    assert add_points(drafted(tmp_path, values=["x=3,4"])).added == ("x_3", "x_4")
    whole(sweep, ["x_1", "x_2", "x_3", "x_4"])
    assert {name: tree(sweep.point(name).path) for name in old} == old
    assert sweep.point("x_3").manifest.stat().st_ino == inode
    assert not left.exists()


def test_what_was_run_is_not_replaced(tmp_path):
    sweep = made(tmp_path, values=["x=1,2"])
    data = json.loads(sweep.manifest.read_text())
    data["points"] = data["points"][:1]
    sweep.manifest.write_text(json.dumps(data))
    (sweep.point("x_2").config / "a.yaml").write_text("damaged")
    sweep.point("x_2").records.mkdir()
    with pytest.raises(ValskaError, match="no part of the sweep, and has been run"):
        add_points(drafted(tmp_path, values=["x=2"]))
    assert sweep.point("x_2").records.is_dir()


# --- Killed at any moment -------------------------------------------------------------------------

STEPS = {
    "open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.chmod", "os.scandir",
    "ctypes.dlopen", "shutil.rmtree",
}  # fmt: skip


def killed_at(step, function):
    """Run a function in a child that is killed before its n-th step on files; say if it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        seen = 0

        def count(event, arguments):
            nonlocal seen
            if event in STEPS:
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(count)
            function()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_sweep_that_is_killed_while_it_is_made_can_be_made_again(tmp_path):
    labels = ["x_1", "x_2", "x_3"]
    step, kills, early = 1, 0, 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        asked = drafted(folder, key=lambda spec: 1)
        if not killed_at(step, lambda: create_sweep(asked, run=no_git)):  # noqa: B023
            break
        kills += 1
        early += not asked.path.exists()
        assert not asked.path.exists() or is_sweep(asked.path)
        sweep = create_sweep(drafted(folder, key=lambda spec: 1), run=no_git).sweep
        whole(sweep, labels)
        assert len(list(sweep.shared.iterdir())) == 1
        step += 2
    assert kills > 20
    assert 0 < early <= kills


def test_adding_that_is_killed_can_be_done_again(tmp_path):
    labels = ["x_1", "x_2", "x_3", "x_4"]
    step, kills, states = 1, 0, set()
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        sweep = made(folder, key=by_half, values=["x=1"])
        asked = drafted(folder, key=by_half, values=["x=2,3,4"])
        if not killed_at(step, lambda: add_points(asked, run=no_git)):  # noqa: B023
            break
        kills += 1
        listed = [point.label for point in read_sweep_manifest(sweep).points]
        states.add((len(listed), len([p for p in sweep.points.iterdir() if p.name[0] != "."])))
        assert listed in (["x_1"], labels)
        done = add_points(drafted(folder, key=by_half, values=["x=2,3,4"]), run=no_git)
        assert sorted((*done.added, *done.kept)) == labels[1:]
        whole(sweep, labels)
        step += 2
    assert kills > 20
    assert {(1, 1), (1, 4)} <= states


# --- Many -----------------------------------------------------------------------------------------


def test_configurations_are_kept_out_of_memory():
    spool = Spool(limit=1000)
    data = [bytes([n]) * (n + 1) for n in range(200)]
    places = [spool.add(one) for one in data]
    assert [spool.read(place, size) for _, size, place in places] == data
    assert spool.add(data[7]) == places[7]
    assert [digest for digest, _, _ in places] == [sha256_bytes(one) for one in data]


def test_messages_are_not_repeated_for_each_point(tmp_path):
    import logging

    @dataclass(frozen=True)
    class Loud(Grid):
        def plan(self, spec, inputs, read):
            logging.getLogger("valska.loud").warning("careful")
            return super().plan(spec, inputs, read)

    logger = logging.getLogger("valska")
    heard = [[], []]
    handlers = [logging.Handler(), logging.Handler()]
    for handler, records in zip(handlers, heard, strict=True):
        handler.emit = records.append
        logger.addHandler(handler)
    try:
        drafted(tmp_path, kind=Loud)
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
    for records in heard:
        assert [record.getMessage() for record in records].count("careful") == 1


def test_a_thousand_points_take_few_entries_each(tmp_path):
    sweep = made(tmp_path, kind=FastGrid, ranges=["x=1:1000:1000"])
    entries = sum(len(names) + len(folders) for _, folders, names in os.walk(sweep.points))
    assert entries == 1000 * 7
    assert len(read_sweep_manifest(sweep).points) == 1000
    assert verify_sweep(Sweep(sweep.path), fast=True).findings == ()


def test_read_file_is_what_reads(tmp_path):
    asked = drafted(tmp_path)
    assert draft_sweep(asked.request, read=read_file).points == asked.points
