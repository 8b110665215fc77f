"""A file that changes while its bytes are being packed, and the image of a sweep."""

import os

import pytest
from archives import entries, finished
from sweeps import make_sweep

from valska.external_tools.core.archive.errors import ChangedError
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.selection import Choice, select_bundle, select_sweep
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.utils import sha256_file

SIZE = 24 << 20


def append(path):
    with path.open("ab") as file:
        file.write(b"more")


def truncate(path):
    os.truncate(path, SIZE // 2)


def rewrite(path):
    with path.open("r+b") as file:
        file.write(b"other")


def rewrite_the_end(path):
    with path.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"other")


@pytest.mark.parametrize("change", [append, truncate, rewrite, rewrite_the_end])
@pytest.mark.parametrize("where", ["outputs", "logs"])
def test_a_file_that_changes_while_it_is_read_is_an_error(change, where, tmp_path):
    bundle = finished(tmp_path)
    large = bundle.path / where / "large.bin"
    large.write_bytes(bytes(SIZE))
    selection = select_bundle(bundle, Choice())
    told = []

    def change_half_way(done, total):
        told.append(done)
        if len(told) == 4:
            assert done < total // 2
            change(large)

    with pytest.raises(ChangedError, match=r"large\.bin changed while it was packed") as caught:
        write_archive(selection, tmp_path / "a.tar.zst", Description(), progress=change_half_way)
    assert len(told) >= 4
    assert "valska status" in caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "data.txt"}


def test_the_image_of_a_sweep_is_packed_once(tmp_path):
    sif = tmp_path / "tool.sif"
    sif.write_bytes(b"no image, but bytes of one" * 1000)
    digest = sha256_file(sif)
    image = BundledImage(sif, digest, sif.stat().st_size, {}, {})
    points = ("a", "b", "c")
    sweep = make_sweep(tmp_path, points=points, runner=RunnerKind.CONTAINER, image=image)
    found_at = ("oras://registry.example/tool@sha256:" + "1" * 64,)
    held = {}
    for name, image_wanted, published in (
        ("default", None, ()),
        ("published", None, found_at),
        ("asked for", True, found_at),
        ("left out", False, ()),
    ):
        choice = Choice(image=image_wanted, find_image=lambda _, at=published: (sif, at))
        path = tmp_path / f"{name}.tar.zst"
        write_archive(select_sweep(sweep, choice), path, Description())
        held[name] = [
            inside for inside, (_, content) in entries(path).items() if content == sif.read_bytes()
        ]
    once = [f"s1/data/images/{digest}.sif"]
    assert held == {"default": once, "published": [], "asked for": once, "left out": []}
