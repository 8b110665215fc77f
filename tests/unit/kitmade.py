"""Kits and what is in them, made by hand."""

import json
import tarfile
from io import BytesIO

from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.kit.document import Kind, KitDocument, KitFile, sums_of
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.utils import sha256_bytes

PINNED = "c" * 64
PLATFORM = "linux/amd64"
WHEEL = b"a wheel"
LOCK = f"""\
# Locked by valska 0.2: valska lock tool.def
# base-digest: sha256:{PINNED}
# platform: linux/amd64
# python: 3.11
# source-date-epoch: 1767225600
tiny==1.0 \\
    --hash=sha256:{sha256_bytes(WHEEL)} \\
    --hash=sha256:{"e" * 64}
    # via -r tool.in
"""
DEFINITION = f"""\
Bootstrap: docker
From: 127.0.0.1:9/base@sha256:{PINNED}

%files
    tool.lock /opt/tool.lock

%post
    true
"""


def put_wheel(store, name="tiny-1.0-py3-none-any.whl", content=WHEEL):
    place = Supplies(store.root).wheel_place(sha256_bytes(content), name)
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    return place


def oci_archive(layer=b"a layer", change=None, extra=()):
    """Return an OCI archive and the digest by which it is pinned."""
    config = b'{"os": "linux", "architecture": "amd64"}'
    blobs = {sha256_bytes(data): data for data in (layer, config)}
    media = "application/vnd.oci.image"
    parts = [
        {"digest": f"sha256:{sha256_bytes(data)}", "size": len(data), "mediaType": f"{media}.x"}
        for data in (config, layer)
    ]
    manifest = json.dumps(
        {"mediaType": f"{media}.manifest.v1+json", "config": parts[0], "layers": parts[1:]}
    ).encode()
    pin = sha256_bytes(manifest)
    index = json.dumps({"manifests": [{"digest": f"sha256:{pin}"}]}).encode()
    files = {"index.json": index, "oci-layout": b"{}"}
    files |= {f"blobs/sha256/{name}": data for name, data in {**blobs, pin: manifest}.items()}
    if change:
        change(files)
    return pin, tar_of([*files.items(), *extra])


def tar_of(entries):
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return buffer.getvalue()


def entry(kind, path, content, name="x"):
    return KitFile(
        path=path, sha256=sha256_bytes(content), size=len(content), kind=Kind(kind), name=name
    )


def kit_of(*files, change=None, entries=None):
    """Return a kit of files (kind, path, content, name) as `valska fetch` would write it."""
    listed = tuple(entry(*file) for file in files)
    document = KitDocument(
        purpose="all",
        platform=PLATFORM,
        targets=({"kind": "definition", "name": "tool"},),
        files=listed,
    )
    data = document.to_bytes()
    if change:
        data = change(json.loads(data))
    parts = [("kit.json", data), ("SHA256SUMS", sums_of(data, listed))]
    parts += [(file[1], file[2]) for file in files]
    return tar_of(entries(parts) if entries else parts)


def wheel_file(content=WHEEL, name="tiny-1.0-py3-none-any.whl"):
    return ("wheel", f"wheels/sha256/{sha256_bytes(content)}", content, name)


def input_file(content=b"data"):
    return ("input", f"inputs/sha256/{sha256_bytes(content)}", content, "data")


def image_files(content=b"an image", **more):
    sha256 = sha256_bytes(content)
    record = ImageRecord(
        **{
            "sha256": sha256,
            "size": len(content),
            "name": "tool",
            "created_utc": "2026-01-02T03:04:05Z",
            "origin": "built",
            **more,
        }
    )
    place = f"images/sha256/{sha256}"
    return (
        ("image-file", f"{place}.def", DEFINITION.encode(), "tool.def"),
        ("image-file", f"{place}.json", record.to_bytes(), "tool.json"),
        ("image", f"{place}.sif", content, "tool"),
    )


def base_file():
    pin, archive = oci_archive()
    return ("base", f"bases/sha256/{pin}.oci.tar", archive, f"docker://x/base@sha256:{pin}")


def write(tmp_path, kit):
    path = tmp_path / "kit.tar"
    path.write_bytes(kit)
    return path


def files_in(store):
    """Return what can be seen in a store, but for its empty directories."""
    found = (path for path in store.root.rglob("*") if path.is_file())
    return sorted(path.relative_to(store.root).as_posix() for path in found)
