"""A package index of small wheels in a directory, for what resolves requirements."""

import zipfile
from hashlib import sha256


def add_wheel(index, name, version, requires=(), code=""):
    """Put a wheel into an index; return its SHA-256."""
    module = name.replace("-", "_")
    path = index / name / f"{module}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{module}.py": f"__version__ = {version!r}\n{code}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(f"{file},,\n" for file in files)
    files[f"{info}/RECORD"] = f"{listed}{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(zipfile.ZipInfo(file), text)
    digest = sha256(path.read_bytes()).hexdigest()
    page = path.with_name("index.html")
    before = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
    page.write_text(f'{before}<a href="{path.name}#sha256={digest}">{path.name}</a>\n')
    return digest
