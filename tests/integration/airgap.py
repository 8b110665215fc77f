"""A connected machine and one without a network, on this one: a root with Python, an index."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pip
from conftest import Account

PROGRAMS = "bash cat chown env find grep head id ls mkdir mktemp rm sed sleep touch tr true wc"
LEFT_OUT = (
    *("site-packages", "dist-packages", "test", "tests", "__pycache__", "idlelib", "tkinter"),
    *("config-*", "ensurepip", "lib2to3", "turtledemo", "pydoc_data"),
)


@dataclass(frozen=True)
class Isolated(Account):
    """An account whose programs have no network at all, not even loopback."""

    def command(self, *argv, **options):
        return ["unshare", "--net", *super().command(*argv, **options)]


def make_root(root):
    """Make a file system with bash, Python and pip, of this machine's own."""
    for name in (
        "bin",
        "dev",
        "etc",
        "home",
        "opt",
        "proc",
        "root",
        "sys",
        "tmp",
        "usr",
        "var/tmp",
    ):
        (root / name).mkdir(parents=True)
    for program in PROGRAMS.split():
        path = Path(shutil.which(program, path="/usr/bin:/bin"))
        shutil.copy(path, root / "bin" / program)
        _add_libraries(root, path)
    python = Path(sys._base_executable).resolve()
    _add(root, python)
    _add_libraries(root, python)
    library = Path(os.__file__).parent
    shutil.copytree(library, _at(root, library), ignore=shutil.ignore_patterns(*LEFT_OUT))
    for module in _at(root, library).rglob("*.so"):
        _add_libraries(root, module)
    place = root / "opt" / "pip" / "pip"
    shutil.copytree(Path(pip.__file__).parent, place, ignore=shutil.ignore_patterns("__pycache__"))
    for name, target in (("sh", "bash"), ("python3", python)):
        if not (root / "bin" / name).exists():
            (root / "bin" / name).symlink_to(target)
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")


def python_version():
    """Return the version of the Python in the root, as a lock has it."""
    return sysconfig.get_python_version()


def _at(root, path):
    return root / str(path).lstrip("/")


def _add(root, path):
    target = _at(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(path, target)


def _add_libraries(root, path):
    told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"/[^\s:]+", told):
        if Path(library).is_file():
            _add(root, library)


def make_wheel(directory, name="tinything", version="1.0", size=0):
    """Write a wheel of one module, with so many bytes of ballast."""
    directory.mkdir(parents=True, exist_ok=True)
    info, path = f"{name}-{version}.dist-info", directory / f"{name}-{version}-py3-none-any.whl"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        f"{info}/ballast": "x" * size,
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for place, text in files.items():
            wheel.writestr(place, text)
    return path


class Index:
    """A package index on loopback.

    Attributes
    ----------
    asked
        The files that valska itself took from it.
    """

    def __init__(self, directory):
        self.asked = []
        index = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=directory)

            def do_GET(self):
                if self.headers.get("User-Agent") == "valska":
                    index.asked.append(self.path)
                super().do_GET()

            def log_message(self, *words):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
