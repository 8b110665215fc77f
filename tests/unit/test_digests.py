"""Digests of many files: the same whether threads or processes make them."""

import hashlib

import pytest

from valska.external_tools.core import digests
from valska.external_tools.core.utils import sha256_file


@pytest.mark.parametrize("many", [2, 1_000], ids=["processes", "threads"])
def test_many_files_are_digested_in_order(tmp_path, monkeypatch, many):
    monkeypatch.setattr(digests, "MANY", many)
    contents = [bytes([number]) * number for number in range(40)]
    paths = [tmp_path / str(number) for number in range(40)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    (tmp_path / "folder").mkdir()
    names = [*map(str, paths), str(tmp_path / "none"), str(tmp_path / "folder")]
    *found, absent, folder = digests.digest_files(names)
    assert found == [hashlib.sha256(content).hexdigest() for content in contents]
    assert isinstance(absent, FileNotFoundError)
    assert isinstance(folder, IsADirectoryError)


def test_no_files_have_no_digests():
    assert list(digests.digest_files([])) == []


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, 1 << 20])
def test_files_of_every_size_are_read_whole(tmp_path, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()
