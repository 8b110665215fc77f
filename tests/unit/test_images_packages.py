"""The packages in an image, read from its files, and the files that belong to them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from valska.external_tools.core.images.packages import read_packages, recorded_packages
from valska.external_tools.core.images.packages.ownership import guess_owner, read_owners, source_of
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.tree import DirectoryTree

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u9
Description: GNU C Library
 Version: this is text, not a field
Conffiles:
 /etc/ld.so.conf.d/x.conf 0123

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-9+deb12u9

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: python3.11-minimal
Status: install ok installed
Architecture: amd64
Version: 3.11.2-6+deb12u9
"""
APK = """\
P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
F:lib
R:ld-musl-x86_64.so.1

P:busybox-binsh
V:1.36.1-r5
A:x86_64
L:GPL-2.0-only
o:busybox
F:bin
R:sh
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: LGPL-2.1+

Files: x
License: MIT
 text
"""
SITE = "opt/tool/lib/python3.11/site-packages"
DIST = "usr/lib/python3/dist-packages"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def write(root):
    def write(path, text):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    return write


@pytest.fixture
def install(write):
    """Put a Python package into a tree as pip would."""

    def install(name, version, place=SITE, head="", record=()):
        spelled = name.replace("-", "_").lower()
        info = f"{place}/{spelled}-{version}.dist-info"
        write(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{head}\nName: not this\n",
        )
        rows = [f"{spelled}-{version}.dist-info/METADATA", *record]
        write(f"{info}/RECORD", "".join(f"{row},sha256=x,1\n" for row in rows))
        return info

    return install


def names(packages, *ecosystems):
    return {package.name: package.version for package in packages.of(*ecosystems)}


def test_dpkg_tells_what_is_installed(root, write):
    write("var/lib/dpkg/status", STATUS)
    write("usr/share/doc/libc6/copyright", COPYRIGHT)
    write("usr/lib/os-release", 'ID=debian\nVERSION_ID="12"\n')
    (root / "etc").mkdir()
    (root / "etc" / "os-release").symlink_to("../usr/lib/os-release")
    found = read_packages(root)
    assert [(one.name, one.architecture) for one in found.of("deb")] == [
        ("libc6", "amd64"),
        ("libc6", "i386"),
        ("python3.11-minimal", "amd64"),
    ]
    assert found.of("deb")[0].source == "glibc"
    assert found.of("deb")[0].licences == ("LGPL-2.1+", "MIT")
    assert found.to_json()["system"] == {
        "manager": "dpkg",
        "distribution": "debian-12",
        "packages": {
            "libc6": "2.36-9+deb12u9",
            "libc6:i386": "2.36-9+deb12u9",
            "python3.11-minimal": "3.11.2-6+deb12u9",
        },
    }


def test_an_image_without_dpkg_has_its_packages_one_by_one(root, write):
    write("var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12.4\n")
    write("var/lib/dpkg/status.d/base-files.md5sums", "0123  usr/lib/os-release\n")
    write("usr/lib/os-release", "")
    found = read_packages(root)
    assert names(found) == {}
    assert names(found, "deb") == {"base-files": "12.4"}
    owners = read_owners(DirectoryTree(root), found.all)
    assert owners[b"usr/lib/os-release"] == ("deb", "", "base-files")


def test_apk_tells_what_is_installed_and_what_belongs_to_it(root, write):
    write("lib/apk/db/installed", APK)
    write("bin/sh", "")
    found = read_packages(root)
    assert found.to_json()["system"]["manager"] == "apk"
    assert names(found, "apk") == {"busybox-binsh": "1.36.1-r5", "musl": "1.2.4-r2"}
    assert [one.licences for one in found.of("apk")] == [("GPL-2.0-only",), ("MIT",)]
    assert [one.source for one in found.of("apk")] == ["busybox", None]
    owners = read_owners(DirectoryTree(root), found.all)
    assert owners[b"bin/sh"] == ("apk", "", "busybox-binsh")
    assert owners[b"lib/ld-musl-x86_64.so.1"] == ("apk", "", "musl")


def test_rpm_has_to_be_asked(root, write):
    write("var/lib/rpm/rpmdb.sqlite", "")
    asked = []

    def ask(argv):
        asked.append(argv[0])
        return (
            "bash\t0\t5.1-2.el9\tx86_64\tGPLv3+\n"
            "shadow\t2\t4.9-8\tx86_64\tBSD\ngpg-pubkey\t0\t1-2\t(none)\tpubkey\n"
        )

    found = read_packages(root, ask)
    assert asked == ["rpm"]
    assert names(found, "rpm") == {"bash": "5.1-2.el9", "shadow": "2:4.9-8"}
    assert found.to_json()["read_from"] == "program"
    assert read_packages(root).to_json()["system"] is None


def test_nothing_is_asked_where_there_is_no_rpm(root, write):
    write("var/lib/dpkg/status", STATUS)
    found = read_packages(root, lambda argv: pytest.fail("the image was run"))
    assert found.to_json()["read_from"] == "files"


def test_every_environment_has_its_packages(root, install, write):
    install("numpy", "2.3.5")
    install("attrs", "25.4.0")
    install("numpy", "1.24.2", DIST)
    write("var/lib/dpkg/status", STATUS)
    write("opt/tool/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.9\n")
    found = read_packages(root).to_json()
    assert found["environments"] == [
        {"place": SITE, "python": "3.11.9", "packages": {"attrs": "25.4.0", "numpy": "2.3.5"}},
        {"place": DIST, "python": "3.11.2", "packages": {"numpy": "1.24.2"}},
    ]
    assert found["python"] == {"Python": "3.11.9", "attrs": "25.4.0", "numpy": "2.3.5"}


def test_a_python_built_from_source_tells_its_version_in_its_headers(root, install, write):
    install("pip", "24.0", "usr/local/lib/python3.12/site-packages")
    write("usr/local/include/python3.12/patchlevel.h", '#define PY_VERSION   "3.12.4"\n')
    found = read_packages(root)
    assert found.interpreters == {"usr/local/lib/python3.12/site-packages": "3.12.4"}


def test_what_a_package_carries_inside_is_its_own(root, install):
    install("setuptools", "80.0")
    install("packaging", "24.0", f"{SITE}/setuptools/_vendor")
    install("odd", "1", "srv/app")
    assert names(read_packages(root), "python") == {"odd": "1", "setuptools": "80.0"}


def test_packages_of_older_forms_are_found(root, write):
    write(f"{DIST}/six-1.16.egg-info/PKG-INFO", "Name: six\nVersion: 1.16\n")
    write(f"{DIST}/lone-2.0.egg-info", "Name: lone\nVersion: 2.0\n")
    write(f"{DIST}/broken-1.dist-info/METADATA", "nothing\n")
    assert names(read_packages(root), "python") == {"lone": "2.0", "six": "1.16"}


@pytest.mark.parametrize(
    ("head", "licences"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other\n", ("MIT OR Apache-2.0",)),
        ("License: BSD-3-Clause\n", ("BSD-3-Clause",)),
        (
            "License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n"
            "Classifier: Topic :: X\n",
            ("MIT License",),
        ),
        ("License: " + "long " * 40 + "\n", ()),
        ("License: Text\n        of many\n        lines\n", ()),
        ("", ()),
    ],
)
def test_a_licence_is_what_names_it(root, install, head, licences):
    install("x", "1", head=head)
    assert read_packages(root).all[0].licences == licences


def conda(name, version, **more):
    return json.dumps({"name": name, "version": version, "build": "h1_0", **more})


def test_conda_tells_what_is_installed_and_what_belongs_to_it(root, write, install):
    fields = {
        "channel": "https://conda.example/conda-forge/linux-64",
        "subdir": "linux-64",
        "license": "BSD-3-Clause",
        "sha256": "ab" * 32,
        "files": ["lib/libmkl.so", "lib/python3.11/site-packages/mkl-1.0.dist-info/METADATA"],
    }
    write("opt/conda/conda-meta/mkl-1.0-h1_0.json", conda("mkl", "1.0", **fields))
    write("opt/conda/conda-meta/python-3.11.9-h1.json", conda("python", "3.11.9"))
    write("opt/conda/conda-meta/odd.json", "[]")
    write("opt/conda/conda-meta/broken.json", "{")
    write("opt/conda/conda-meta/deep.json", "[" * 100_000)
    write("opt/conda/conda-meta/z-1.json", conda("z", "1", files=7))
    write("opt/conda/conda-meta/half-1.json", conda("half", "\ud800", files=["lib/\udfff"]))
    install("mkl", "1.0", "opt/conda/lib/python3.11/site-packages")
    found = read_packages(root)
    assert found.to_json()["conda"][1] == {
        "name": "mkl",
        "version": "1.0",
        "build": "h1_0",
        "channel": "https://conda.example/conda-forge",
        "place": "opt/conda",
    }
    assert names(found, "conda") == {"half": "?", "mkl": "1.0", "python": "3.11.9", "z": "1"}
    assert found.interpreters == {"opt/conda/lib/python3.11/site-packages": "3.11.9"}
    owners = read_owners(DirectoryTree(root), found.all)
    mine = {path for path, key in owners.items() if key == ("conda", "opt/conda", "mkl")}
    assert mine >= {
        b"opt/conda/lib/libmkl.so",
        b"opt/conda/conda-meta/mkl-1.0-h1_0.json",
        b"opt/conda/lib/python3.11/site-packages/mkl-1.0.dist-info/METADATA",
    }


def test_what_is_read_is_what_the_record_can_say(root, write, install):
    install("numpy", "2.3.5")
    write("var/lib/dpkg/status", STATUS)
    write("opt/conda/conda-meta/mkl.json", conda("mkl", "1.0"))
    packages = read_packages(root).to_json()
    record = ImageRecord(
        sha256="ab" * 32,
        size=1,
        name="x",
        created_utc="2026-01-02T03:04:05Z",
        origin="built",
        packages=packages,
    )
    assert record.to_json()["packages"] == packages
    again = recorded_packages(packages).to_json()
    assert again.pop("system")["packages"] == packages.pop("system")["packages"]
    assert again == packages


def test_a_record_of_the_first_version_has_no_places():
    found = recorded_packages(
        {
            "python": {"Python": "3.11.2", "numpy": "2.3.5"},
            "system": {"manager": "rpm", "packages": {"bash": "5.1"}},
        }
    )
    assert [(one.ecosystem, one.name, one.place) for one in found.all] == [
        ("python", "numpy", ""),
        ("rpm", "bash", ""),
    ]
    assert found.interpreters == {"": "3.11.2"}
    assert recorded_packages({"python": None, "system": None}).all == ()


def test_files_belong_to_what_dpkg_lists(root, write):
    write("var/lib/dpkg/status", STATUS)
    write("usr/lib/x/libc.so.6", "")
    write("var/lib/dpkg/info/libc6:amd64.list", "/.\n/lib\n/lib/x/libc.so.6\n/usr/lib/x\n")
    write("var/lib/dpkg/info/libc6:amd64.md5sums", "")
    write("var/lib/dpkg/info/format", "1\n")
    (root / "lib").symlink_to("usr/lib")
    owners = read_owners(DirectoryTree(root), read_packages(root).all)
    libc = ("deb", "", "libc6")
    assert owners[b"usr/lib/x/libc.so.6"] == libc
    assert owners[b"var/lib/dpkg/info/libc6:amd64.md5sums"] == libc
    assert b"usr/lib/x" not in owners
    assert b"var/lib/dpkg/info/format" not in owners


def test_files_belong_to_what_a_record_lists(root, install):
    info = install("My-Tool", "1", record=["tool/__init__.py", "../../../bin/tool", '"a,b.py"'])
    owners = read_owners(DirectoryTree(root), read_packages(root).all)
    tool = ("python", "opt/tool", "my-tool")
    assert owners[b"opt/tool/bin/tool"] == tool
    assert owners[f"{SITE}/tool/__init__.py".encode()] == tool
    assert owners[f"{SITE}/a,b.py".encode()] == tool
    assert owners[f"{info}/METADATA".encode()] == tool


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (f"{SITE}/my_tool-1.0.dist-info/WHEEL", ("python", "opt/tool", "my-tool")),
        (f"{SITE}/My_Tool/deep/x.py", ("python", "opt/tool", "my-tool")),
        (f"{SITE}/my_tool.py", ("python", "opt/tool", "my-tool")),
        (f"{SITE}/my_tool.libs/x.so", ("python", "opt/tool", "my-tool")),
        (f"{SITE}/other/x.py", None),
        ("var/lib/dpkg/info/libc6:amd64.list", ("deb", "", "libc6")),
        ("var/lib/dpkg/info/gone.list", None),
        ("etc/passwd", None),
    ],
)
def test_a_name_alone_tells_of_some_files(path, key):
    known = {("python", "opt/tool", "my-tool"), ("deb", "", "libc6")}
    assert guess_owner(path.encode(), known.__contains__) == key


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (b"a/__pycache__/x.cpython-311.pyc", b"a/x.py"),
        (b"a/__pycache__/x.y.cpython-311.opt-1.pyc", b"a/x.y.py"),
        (b"__pycache__/x.cpython-313t.pyc", b"x.py"),
        (b"a/x.pyc", None),
        (b"a/__pycache__/x.nbi", None),
    ],
)
def test_byte_code_has_a_source(path, source):
    assert source_of(path) == source


def test_what_pip_itself_says_of_this_environment_is_found():
    """The packages of the Python that runs the tests, as importlib.metadata has them."""
    code = (
        "import json, sysconfig; from importlib.metadata import distributions\n"
        "place = sysconfig.get_path('purelib')\n"
        "print(json.dumps([place, {d.metadata['Name']: d.version"
        " for d in distributions(path=[place])}]))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    place, expected = json.loads(done.stdout)
    found = read_packages(Path(place).parent)
    assert names(found, "python") == expected


def test_what_dpkg_itself_says_of_this_machine_is_found(root, write, require):
    require(shutil.which("dpkg-query"), "dpkg is not here")
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\\n"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    expected = {tuple(rest) for status, *rest in lines if status == "installed"}
    write("var/lib/dpkg/status", Path("/var/lib/dpkg/status").read_text())
    found = read_packages(root).of("deb")
    assert {(one.name, one.version, one.architecture) for one in found} == expected


def test_a_record_that_is_none_does_not_keep_the_rest_from_being_read(root, install):
    install("odd", "1", record=["odd/a.py", '"' + "x" * 200_000 + '"'])
    install("even", "1", record=["even/a.py"])
    owners = read_owners(DirectoryTree(root), read_packages(root).all)
    assert owners[f"{SITE}/odd/a.py".encode()] == ("python", "opt/tool", "odd")
    assert owners[f"{SITE}/even/a.py".encode()] == ("python", "opt/tool", "even")
