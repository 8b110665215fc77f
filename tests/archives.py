"""Archives for tests: made from small runs, altered, and made by hand with Python's tarfile."""

import io
import subprocess
import tarfile
from pathlib import Path

import zstandard
from toy import bundle as toy_bundle

from valska.external_tools.core.archive.document import Inputs
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.selection import Choice, select_bundle
from valska.external_tools.core.archive.writing import write_archive


def run_stages(bundle, *stages):
    """Run a bundle's stages as a person without valska does."""
    for stage in stages or ("simulate",):
        done = subprocess.run(
            ["bash", f"submit_{stage}.sh"], cwd=bundle.path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def finished(folder, stages=None, **more):
    """Make a bundle and run it."""
    bundle = toy_bundle(folder, stages, **more)
    run_stages(bundle, *(stage.name for stage in stages or ()))
    return bundle


def pack(bundle, path, description=None, *, threads=None, allowed_secrets=(), **choice):
    """Pack a bundle."""
    if "inputs" in choice:
        choice["inputs"] = Inputs(choice["inputs"])
    selection = select_bundle(bundle, Choice(**choice))
    return write_archive(
        selection,
        path,
        description or Description(),
        threads=threads,
        allowed_secrets=allowed_secrets,
    )


def plain_tar(path):
    """Return the tar file in an archive."""
    reader = zstandard.ZstdDecompressor().stream_reader(Path(path).read_bytes())
    return reader.read()


def entries(path):
    """Return name to (header, content) of everything in an archive."""
    with tarfile.open(fileobj=io.BytesIO(plain_tar(path))) as tar:
        return {
            member.name: (member, tar.extractfile(member).read() if member.isfile() else None)
            for member in tar.getmembers()
        }


def write_tar(path, members, form=tarfile.PAX_FORMAT):
    """Write an archive with tarfile; `members` are (TarInfo, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member, content in members:
            if content is not None:
                member.size = len(content)
            tar.addfile(member, None if content is None else io.BytesIO(content))
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(buffer.getvalue()))
    return path


def repacked(archive, path, *, without=(), instead=None, more=()):
    """Pack an archive again with tarfile: entries left out, replaced, or added at the end."""
    instead = instead or {}
    found = [
        (member, instead.get(name.partition("/")[2], content))
        for name, (member, content) in entries(archive).items()
        if name.partition("/")[2] not in without
    ]
    return write_tar(path, [*found, *more])


def entry(name, content=b"x", **fields):
    """Return an entry for `write_tar`."""
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
    return member, content if is_file else None
