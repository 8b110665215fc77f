"""The root of a small file system: this machine's own bash, coreutils and Debian Python."""

import re
import shutil
import subprocess
from pathlib import Path

PROGRAMS = (
    *("bash", "cat", "chmod", "cp", "date", "dirname", "env", "false", "find", "grep", "id", "ln"),
    *("ls", "mkdir", "mktemp", "mv", "pwd", "readlink", "rm", "sed", "sleep", "sort", "touch"),
    *("true", "uname", "wc", "sha256sum"),
)
DIRECTORIES = ("dev", "etc", "home", "opt", "proc", "root", "sys", "tmp", "usr/bin", "var/tmp")
WHEELS = Path("/usr/share/python-wheels")
LEFT_OUT = ("__pycache__", "test", "idlelib", "tkinter", "dist-packages", "config-3*", "pydoc_data")


def has_python():
    """Whether this machine has Debian's Python with all that its module venv needs."""
    return Path("/usr/bin/python3").exists() and any(WHEELS.glob("pip-*.whl"))


def make_python_tree(root):
    """Make it; return the version of its Python."""
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for name in PROGRAMS:
        _add(root, Path(shutil.which(name, path="/usr/bin:/bin")), f"usr/bin/{name}")
    (root / "usr/bin/sh").symlink_to("bash")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    ask = (
        "import platform, sysconfig; print(platform.python_version(), sysconfig.get_path('stdlib'))"
    )
    version, library = _output("/usr/bin/python3", "-c", ask).split()
    _add(root, Path("/usr/bin/python3").resolve(), "usr/bin/python3")
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    for source in (Path(library), WHEELS):
        shutil.copytree(source, root / source.relative_to("/"), ignore=ignored)
    for module in Path(library).glob("lib-dynload/*.so"):
        _add_libraries(root, module)
    return version


def _add(root, program, name):
    shutil.copy(program, root / name)
    _add_libraries(root, program)


def _add_libraries(root, program):
    for library in re.findall(r"(/\S+) \(0x", _output("ldd", program)):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(library).resolve(), target)


def _output(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
