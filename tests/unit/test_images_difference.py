"""How two images differ: by package, by file, and what each file belongs to."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from valska.cli import main
from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.images.contents import Contents, find_contents, image_contents
from valska.external_tools.core.images.difference import (
    DIFFERENT,
    IDENTICAL,
    SAME_FILES,
    Owner,
    compare,
    compare_packages,
)
from valska.external_tools.core.images.listing import list_tree
from valska.external_tools.core.images.packages import Package, Packages, read_packages
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.utils import sha256_bytes, sha256_file

ROOT = Path(__file__).parents[2]
SITE = "opt/tool/lib/python3.11/site-packages"
EPOCH = 1767225600


@pytest.fixture
def make(tmp_path):
    """Make a tree with a distribution, Apptainer's files and packages as pip installs them."""

    def make(name, packages, *, epoch=EPOCH, debs=None):
        root = tmp_path / name
        for directory in ("etc", ".singularity.d/env", SITE):
            (root / directory).mkdir(parents=True)
        (root / ".singularity.d" / "labels.json").write_text('{"a": "1"}')
        (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (root / "usr" / "lib").mkdir(parents=True)
        (root / "lib").symlink_to("usr/lib")
        for package, version in packages.items():
            install(root, package, version, epoch)
        for package, version in (debs or {"libc6": "2.36"}).items():
            put_deb(root, package, version)
        return root

    return make


def install(root, name, version, epoch):
    """Install a package as an installer of wheels does: RECORD, script and byte-code."""
    site, spelled = root / SITE, name.lower()
    info = site / f"{spelled}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\n")
    (site / spelled).mkdir()
    source = site / spelled / "__init__.py"
    source.write_text(f"VERSION = {version!r}\n")
    (site / spelled / "same.py").write_text("SAME = 1\n")
    for path in (source, site / spelled / "same.py"):
        os.utime(path, (epoch, epoch))
    script = root / "opt" / "tool" / "bin" / spelled
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!python\nimport {spelled}  # {version}\n")
    compile_all = [sys.executable, "-m", "compileall", "-q", "-s", site, site / spelled]
    subprocess.run(compile_all, check=True)
    rows = [f"{info.name}/METADATA,,", f"{spelled}/__init__.py,,", f"{spelled}/same.py,,"]
    (info / "RECORD").write_text("\n".join([*rows, f"../../../bin/{spelled},,"]) + "\n")


def put_deb(root, name, version):
    database = root / "var" / "lib" / "dpkg"
    (database / "info").mkdir(parents=True, exist_ok=True)
    with (database / "status").open("a") as file:
        file.write(f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n")
    (database / "info" / f"{name}:amd64.list").write_text(f"/.\n/lib\n/lib/{name}.so\n")
    (root / "usr" / "lib" / f"{name}.so").write_text(version)


def contents(root, **more):
    return Contents(root.name, tree=root, **more)


def record(content=b"image", **more):
    return ImageRecord(
        sha256=sha256_bytes(content),
        size=len(content),
        name="tool",
        created_utc="2026-01-02T03:04:05Z",
        origin="built",
        **more,
    )


def owners(found):
    return dict(Counter(change.owner.kind for change in found.files))


def test_one_package_changed_names_that_package_and_nothing_else(make):
    a = make("a", {"attrs": "25.3", "numpy": "2.3.5"})
    b = make("b", {"attrs": "25.4", "numpy": "2.3.5"})
    found = compare(contents(a), contents(b))
    assert found.packages == (("python", "opt/tool", "attrs", "25.3", "25.4"),)
    assert {change.owner for change in found.files} == {
        Owner("package", "python", "opt/tool", "attrs")
    }
    changed = {change.path.decode(): change.change for change in found.files}
    tag = sys.implementation.cache_tag
    assert changed == {
        "opt/tool/bin/attrs": "changed",
        f"{SITE}/attrs-25.3.dist-info/METADATA": "removed",
        f"{SITE}/attrs-25.3.dist-info/RECORD": "removed",
        f"{SITE}/attrs-25.4.dist-info/METADATA": "added",
        f"{SITE}/attrs-25.4.dist-info/RECORD": "added",
        f"{SITE}/attrs/__init__.py": "changed",
        f"{SITE}/attrs/__pycache__/__init__.{tag}.pyc": "changed",
    }
    assert not found.same


def test_a_tree_and_its_copy_are_the_same(make, tmp_path):
    a = make("a", {"attrs": "25.3"})
    shutil.copytree(a, tmp_path / "b", symlinks=True)
    found = compare(contents(a), contents(tmp_path / "b"))
    assert (found.level, found.same, found.files) == (SAME_FILES, True, ())


def test_byte_code_that_has_another_time_is_told_apart(make):
    a = make("a", {"attrs": "25.3"})
    b = make("b", {"attrs": "25.3"}, epoch=EPOCH + 60)
    found = compare(contents(a), contents(b))
    assert found.packages == ()
    assert owners(found) == {"byte-code": 2}
    assert found.level == DIFFERENT


def test_byte_code_that_became_a_link_is_not_followed(make, tmp_path):
    a, b = make("a", {"attrs": "25.3"}), make("b", {"attrs": "25.3"})
    path = b / SITE / "attrs" / "__pycache__" / f"same.{sys.implementation.cache_tag}.pyc"
    path.unlink()
    path.symlink_to(tmp_path / "not there")
    (change,) = compare(contents(a), contents(b)).files
    assert (change.after.kind, change.owner.name) == ("l", "attrs")


def test_byte_code_that_differs_beyond_its_time_belongs_to_its_package(make):
    a, b = make("a", {"attrs": "25.3"}), make("b", {"attrs": "25.3"})
    cache = b / SITE / "attrs" / "__pycache__"
    path = cache / f"same.{sys.implementation.cache_tag}.pyc"
    path.write_bytes(path.read_bytes() + b"more")
    (change,) = compare(contents(a), contents(b)).files
    assert change.owner == Owner("package", "python", "opt/tool", "attrs")


def test_a_changed_package_of_the_distribution_has_its_files(make):
    a = make("a", {}, debs={"libc6": "2.36", "zlib1g": "1.2"})
    b = make("b", {}, debs={"libc6": "2.37", "zlib1g": "1.2", "bash": "5"})
    found = compare(contents(a), contents(b))
    assert found.packages == (
        ("deb", "", "bash", None, "5"),
        ("deb", "", "libc6", "2.36", "2.37"),
    )
    told = {change.path.decode(): (change.change, change.owner[3]) for change in found.files}
    assert told == {
        "usr/lib/bash.so": ("added", "bash"),
        "usr/lib/libc6.so": ("changed", "libc6"),
        "var/lib/dpkg/info/bash:amd64.list": ("added", "bash"),
        "var/lib/dpkg/status": ("changed", ""),
    }
    assert owners(found) == {"package": 3, "database": 1}


def test_what_apptainer_puts_in_and_what_belongs_to_nothing_are_told_apart(make):
    a, b = make("a", {}), make("b", {})
    (b / ".singularity.d" / "labels.json").write_text('{"a": "2"}')
    (b / "etc" / "passwd").chmod(0o600)
    (b / "srv" / "empty").mkdir(parents=True)
    found = compare(contents(a), contents(b))
    assert [(one.path, one.change, one.owner.kind) for one in found.files] == [
        (b".singularity.d/labels.json", "changed", "apptainer"),
        (b"etc/passwd", "mode changed", "other"),
        (b"srv/empty", "added", "other"),
    ]


def test_a_copy_of_the_lock_is_told_as_such(make):
    a, b = make("a", {}), make("b", {})
    records = []
    for root, text in ((a, "attrs==1"), (b, "attrs==2")):
        (root / "opt" / "tool.lock").write_text(text)
        lock = {"name": "tool.lock", "sha256": sha256_bytes(text.encode())}
        records.append(record(text.encode(), lock=lock))
    sides = [contents(root, record=one) for root, one in zip((a, b), records, strict=True)]
    found = compare(*sides)
    assert owners(found) == {"lock": 1}
    assert [fact[0] for fact in found.facts] == ["lock"]


def test_what_two_images_are_made_of_is_told_where_it_differs():
    a = record(b"a", apptainer_version="1.4.5", source_date_epoch=1, labels={"x": "1"})
    b = record(b"b", apptainer_version="1.5.0", source_date_epoch=1, squashfs={"version": "4.6"})
    found = compare(Contents("a", record=a), Contents("b", record=b))
    assert found.facts == (
        ("labels", "x=1", None),
        ("Apptainer", "1.4.5", "1.5.0"),
        ("mksquashfs", None, "4.6"),
    )


def test_records_alone_say_which_packages_differ_and_that_files_are_unknown():
    def side(content, version):
        python = {"Python": "3.11.2", "attrs": version}
        return Contents("x", record=record(content, packages={"python": python, "system": None}))

    found = compare(side(b"a", "1"), side(b"b", "2"))
    assert found.packages == (("python", "", "attrs", "1", "2"),)
    assert found.files is None
    assert not found.same


def test_records_with_equal_trees_are_the_same():
    digest = sha256_bytes(b"tree")
    a, b = record(b"a", tree_sha256=digest), record(b"b", tree_sha256=digest)
    assert compare(Contents("a", record=a), Contents("b", record=b)).level == SAME_FILES
    assert compare(Contents("a", record=a), Contents("b", record=a)).level == IDENTICAL


def test_listings_without_the_files_still_tell_by_name(make, tmp_path):
    sides = []
    for name, version in (("a", "25.3"), ("b", "25.4")):
        root = make(name, {"attrs": version})
        kept = tmp_path / f"{name}.files.gz"
        kept.write_bytes(list_tree(root).to_bytes())
        one = record(name.encode(), packages=read_packages(root).to_json())
        sides.append(Contents(name, record=one, listing=kept))
    found = compare(*sides)
    assert [change[2:] for change in found.packages] == [("attrs", "25.3", "25.4")]
    kinds = {change.path.decode(): change.owner.kind for change in found.files}
    assert kinds.pop("opt/tool/bin/attrs") == "other"
    assert set(kinds.values()) == {"package"}


def test_a_record_of_the_first_version_is_compared_without_places(make):
    root = make("a", {"attrs": "25.3"})
    old = {
        "python": {"attrs": "25.2"},
        "system": {"manager": "dpkg", "packages": {"libc6": "2.36"}},
    }
    found = compare(Contents("old", record=record(packages=old)), contents(root))
    assert found.packages == (("python", "", "attrs", "25.2", "25.3"),)


def test_another_python_does_not_make_other_packages():
    a, b = (
        Packages(
            (Package("python", "numpy", "2.3", f"opt/x/lib/python3.{minor}/site-packages"),),
            {f"opt/x/lib/python3.{minor}/site-packages": f"3.{minor}.1"},
        )
        for minor in (11, 12)
    )
    assert compare_packages(a, b) == (("python", "opt/x", "Python", "3.11.1", "3.12.1"),)


def test_the_spelling_of_a_name_makes_no_difference():
    a = Packages((Package("python", "Ruamel.YAML", "1", SITE),))
    b = Packages((Package("python", "ruamel-yaml", "1", SITE),))
    assert compare_packages(a, b) == ()


def test_another_build_of_a_conda_package_is_told():
    a, b = (Packages((Package("conda", "mkl", "1", "opt/c", build=x),)) for x in ("h1", "h2"))
    assert compare_packages(a, b) == (("conda", "opt/c", "mkl", "1 h1", "1 h2"),)


def test_two_versions_in_one_place_are_both_told():
    twice = Packages((Package("python", "x", "1", SITE), Package("python", "x", "2", SITE)))
    once = Packages((Package("python", "x", "2", SITE),))
    assert compare_packages(twice, once) == (("python", "opt/tool", "x", "1, 2", "2"),)


def test_a_python_package_that_conda_brought_is_told_once(make):
    roots = []
    for name, version in (("a", "1"), ("b", "2")):
        root = make(name, {"mkl": version})
        info = f"lib/python3.11/site-packages/mkl-{version}.dist-info/METADATA"
        place = root / "opt" / "tool" / "conda-meta" / f"mkl-{version}.json"
        place.parent.mkdir()
        place.write_text(json.dumps({"name": "mkl", "version": version, "files": [info]}))
        roots.append(root)
    found = compare(*map(contents, roots))
    assert found.packages == (("conda", "opt/tool", "mkl", "1", "2"),)


def test_a_kept_listing_that_is_not_the_records_is_not_used(make, tmp_path):
    root = make("a", {})
    kept = tmp_path / "x.files.gz"
    kept.write_bytes(list_tree(make("b", {"attrs": "1"})).to_bytes())
    own = record(tree_sha256=list_tree(root).sha256)
    assert Contents("x", record=own, tree=root, listing=kept).listing == list_tree(root)
    assert Contents("x", record=own, listing=kept).listing is None


def test_the_json_form_is_json(make):
    a, b = make("a", {"attrs": "1"}), make("b", {"attrs": "2"})
    (b / os.fsdecode(b"odd\xff\n")).write_text("")
    found = json.loads(json.dumps(compare(contents(a), contents(b)).to_json()))
    assert found["level"] == "different"
    odd = next(one for one in found["files"] if one["path"].startswith("odd"))
    assert odd["path"] == "odd\\xff\n"
    assert odd["before"] is None
    assert odd["after"]["size"] == 0
    assert found["packages"][0]["before"] == "1"


# The command, on directories, records and real images.


def call(*args):
    return CliRunner().invoke(main, ["image", "diff", *map(str, args)])


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setenv("VALSKA_IMAGES", str(tmp_path / "store"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return ImageStore(tmp_path / "store")


def test_the_command_names_the_package_first(make, images):
    a, b = make("a", {"attrs": "25.3"}), make("b", {"attrs": "25.4"})
    done = call(a, b)
    assert done.exit_code == 5
    first, second = done.stdout.splitlines()[:2]
    assert first.split() == ["packages", "A", "B", "in"]
    assert second.split() == ["python", "attrs", "25.3", "25.4", "/opt/tool"]
    assert "They differ: 1 package, 7 files." in done.stdout
    assert "attrs/__init__.py" not in done.stdout
    assert f"/{SITE}/attrs/__init__.py" in call(a, b, "--files").stdout
    assert json.loads(call(a, b, "--json").stdout)["same"] is False


def test_the_command_ends_with_0_where_all_is_the_same(make, images, tmp_path):
    a = make("a", {"attrs": "25.3"})
    shutil.copytree(a, tmp_path / "b", symlinks=True)
    done = call(a, tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert "All files and their modes are the same" in done.stdout


def test_the_command_names_files_of_no_package(make, images):
    a, b = make("a", {}), make("b", {})
    for number in range(15):
        (b / f"new{number:02}").write_text("")
    done = call(a, b)
    assert "  added: /new00" in done.stdout
    assert "and 5 more (--files names them)" in done.stdout
    assert "/new14" not in done.stdout


def test_records_are_compared_by_the_command(images, tmp_path):
    paths = []
    for version in ("1", "2"):
        path = tmp_path / f"{version}.json"
        packages = {"python": {"attrs": version}, "system": None}
        path.write_bytes(record(version.encode(), packages=packages).to_bytes())
        paths.append(path)
    done = call(*paths)
    assert done.exit_code == 5
    assert "1 package, files unknown: one of them cannot be listed" in done.stdout


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("./nothing.sif", PrerequisiteError),
        ("nothing.json", UsageError),
        ("nothing", PrerequisiteError),
        ("sha256:0123", PrerequisiteError),
    ],
)
def test_what_is_no_image_is_one_clear_error(images, name, error):
    with pytest.raises(error):
        find_contents(name, images)


def test_a_file_that_is_no_image_is_refused(images, tmp_path):
    (tmp_path / "x.sif").write_text("text")
    with pytest.raises(PrerequisiteError):
        image_contents(tmp_path / "x.sif").listing  # noqa: B018 - reading it is what fails


def wheel(directory, version):
    """Make a wheel of a small package."""
    path = directory / f"small-{version}-py3-none-any.whl"
    info = f"small-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("small/__init__.py", f"VERSION = {version!r}\n")
        file.writestr("small/same.py", "SAME = 1\n")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: small\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def sifs(tmp_path_factory):
    """Two real images, alike but for the version of one package, which uv installed."""
    if shutil.which("apptainer") is None or shutil.which("mksquashfs") is None:
        message = "Apptainer is not here (tests/cluster/apptainer.sh installs it)"
        if os.environ.get("VALSKA_REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    work = tmp_path_factory.mktemp("sifs")
    base = work / "base.sif"
    subprocess.run([ROOT / "tests" / "cluster" / "tiny-image.sh", base], check=True)
    return base, *(build(work, base, version) for version in ("1.0", "1.1"))


def build(work, base, version):
    from uv import find_uv_bin

    sandbox, sif = work / f"sandbox-{version}", work / f"{version}.sif"
    run = ["apptainer", "--quiet", "build", "--force"]
    subprocess.run([*run, "--sandbox", sandbox, base], check=True)
    target = sandbox / SITE
    options = ["--offline", "--no-index", "--no-cache", "--quiet", "--python", sys.executable]
    subprocess.run(
        [find_uv_bin(), "pip", "install", *options, "--target", target, wheel(work, version)],
        check=True,
    )
    subprocess.run([*run, sif, sandbox], check=True)
    return sif


@pytest.mark.apptainer
def test_real_images_differ_in_the_package_that_was_changed(sifs, images):
    _, old, new = sifs
    done = call(old, new)
    assert done.exit_code == 5, done.output
    assert done.stdout.splitlines()[1].split() == ["python", "small", "1.0", "1.1", "/opt/tool"]
    found = compare(image_contents(old), image_contents(new))
    assert {change.owner.kind for change in found.files} <= {"package", "apptainer"}
    same = f"{SITE}/small/same.py".encode()
    assert same not in {change.path for change in found.files}


@pytest.mark.apptainer
def test_an_image_and_its_copy_are_one_image(sifs, images, tmp_path):
    shutil.copy(sifs[0], tmp_path / "copy.sif")
    done = call(sifs[0], tmp_path / "copy.sif")
    assert done.exit_code == 0, done.output
    assert "They are one image" in done.stdout


@pytest.mark.apptainer
def test_two_packings_of_one_sandbox_have_the_same_files(sifs, images, tmp_path):
    run = ["apptainer", "--quiet", "build", "--mksquashfs-args", "-comp xz"]
    sandbox = sifs[1].parent / "sandbox-1.0"
    subprocess.run([*run, tmp_path / "xz.sif", sandbox], check=True)
    assert sha256_file(sifs[1]) != sha256_file(tmp_path / "xz.sif")
    a, b = image_contents(sifs[1]), image_contents(tmp_path / "xz.sif")
    found = compare(a, b)
    assert {change.owner.kind for change in found.files} <= {"apptainer"}


@pytest.mark.apptainer
def test_an_image_is_listed_as_apptainer_itself_unpacks_it(sifs, tmp_path_factory):
    sandbox = tmp_path_factory.mktemp("unpacked") / "sandbox"
    subprocess.run(["apptainer", "--quiet", "build", "--sandbox", sandbox, sifs[1]], check=True)
    inside = image_contents(sifs[1]).listing.by_path()
    outside = list_tree(sandbox).by_path()
    different = {path for path in {*inside, *outside} if inside.get(path) != outside.get(path)}
    assert {path for path in different if not path.startswith(b".singularity.d")} == set()
    assert len(inside) > 40


@pytest.mark.apptainer
def test_images_in_the_store_are_found_by_digest_and_name_with_their_listings(
    sifs, images, tmp_path
):
    for sif in sifs[1:]:
        listing = image_contents(sif).listing
        one = replace(
            record(),
            sha256=sha256_file(sif),
            size=sif.stat().st_size,
            name=f"small{sif.stem}",
            tree_sha256=listing.sha256,
        )
        with images.workspace() as work:
            shutil.copy(sif, work / "x.sif")
            images.add(work / "x.sif", one, {"x.files.gz": listing.to_bytes()})
    new = sha256_file(sifs[2])
    assert call("small1.0", new[:12]).exit_code == 5
    assert call("small1.1", f"sha256:{new}").exit_code == 0
    # A record in a bundle finds image and listing in the store.
    path = tmp_path / "tool.image.json"
    path.write_bytes(images.get(new).to_bytes())
    assert call("small1.1", path).exit_code == 0
    assert find_contents(str(path), images).listing is not None


@pytest.mark.apptainer
def test_rpm_is_asked_in_an_image_that_has_it_and_no_record(sifs, images, tmp_path_factory):
    work = tmp_path_factory.mktemp("rpm")
    sandbox, sif = work / "sandbox", work / "rpm.sif"
    shutil.copytree(sifs[1].parent / "sandbox-1.0", sandbox, symlinks=True)
    (sandbox / "var" / "lib" / "rpm").mkdir(parents=True)
    (sandbox / "var" / "lib" / "rpm" / "rpmdb.sqlite").write_text("")
    # Answers as rpm 4.18 does, which would bring in a hundred megabytes.
    answer = r"bash\t0\t5.1-2.el9\tx86_64\tGPLv3+\ntiny\t2\t1.2-3\tnoarch\tMIT\n"
    (sandbox / "bin" / "rpm").write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    (sandbox / "bin" / "rpm").chmod(0o755)
    subprocess.run(["apptainer", "--quiet", "build", sif, sandbox], check=True)
    packages = find_contents(str(sif), images, "apptainer").packages
    assert {one.name: one.version for one in packages.of("rpm")} == {
        "bash": "5.1-2.el9",
        "tiny": "2:1.2-3",
    }
    assert find_contents(str(sif), images).packages.of("rpm") == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_image_that_may_not_be_read_is_named(images, tmp_path):
    (tmp_path / "x.sif").write_text("")
    (tmp_path / "x.sif").chmod(0)
    with pytest.raises(PrerequisiteError, match="Permission denied"):
        image_contents(tmp_path / "x.sif")
