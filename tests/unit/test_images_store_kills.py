"""Killed at any step, a command leaves the store whole, and the next one does the work."""

import itertools
import logging

import pytest
from imagestore import killed_at, loose, put

from valska.external_tools.core import lock
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.exporting import export_images
from valska.external_tools.core.images.store.gc import Order, collect
from valska.external_tools.core.images.store.importing import import_images
from valska.external_tools.core.images.store.uses import Use, add_use, read_uses
from valska.external_tools.core.utils import sha256_bytes, sha256_file

OLD = b"an older image"
NEW = b"a newer image"
DAY_S = 24 * 3600.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Say nothing of locks that are taken over, and take those without a name over at once."""
    monkeypatch.setattr(lock, "ABANDONED_AFTER_S", 0.0)
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def stores(tmp_path):
    """Yield stores with one image in them."""

    def make():
        for number in itertools.count():
            store = ImageStore(tmp_path / f"store-{number}")
            put(store, OLD)
            yield store

    return make()


def is_whole(store):
    """Check that every image that is seen is what its name says, and return their digests."""
    digests = [record.sha256 for record in store.list()]
    assert [path.stem for path in store.records()] == sorted(digests)
    for sha256 in digests:
        assert sha256_file(store.sif(sha256)) == sha256
        assert set(store.files(store.get(sha256))) == {"tool.def", "tool.lock"}
        store.check(sha256)
    return digests


def clear_leftovers(store):
    """Clear away all that is not of an image that a bundle uses, as if it were a week later."""
    now = store.root.stat().st_mtime + 7 * DAY_S
    return collect(Order(store=store, now=now))


def at_each_step(places, work, check):
    """Kill some work at its first step, at its second one, and so on, until it is done.

    Returns
    -------
    int
        How many steps it has.
    """
    for step, place in enumerate(places):
        if not killed_at(step, lambda place=place: work(place)):
            return step
        check(place)
    raise AssertionError


def test_adding_an_image(stores):
    def check(store):
        assert sha256_bytes(OLD) in is_whole(store)
        put(store, NEW)
        assert len(is_whole(store)) == 2

    assert at_each_step(stores, lambda store: put(store, NEW), check) > 20


def test_importing_an_image(stores, tmp_path):
    sif = loose(tmp_path, NEW)

    def check(store):
        assert sha256_bytes(OLD) in is_whole(store)
        (imported,) = import_images(sif, store)
        assert imported.record.sha256 in is_whole(store)

    assert at_each_step(stores, lambda store: import_images(sif, store), check) > 20


@pytest.mark.parametrize("name", ["out.tar", "out"])
def test_exporting_an_image(stores, tmp_path, name):
    store = next(stores)
    (record,) = store.list()

    def places():
        for number in itertools.count():
            place = tmp_path / str(number)
            place.mkdir()
            yield place

    def check(place):
        if (place / name).exists():
            (imported,) = import_images(place / name, ImageStore(place / "into"))
            assert imported.record == record
        else:
            export_images(store, [record], place / name)
        assert is_whole(store) == [record.sha256]

    def work(place):
        export_images(store, [record], place / name)

    assert at_each_step(places(), work, check) > 5


def test_clearing_images_away(stores):
    used, unused = sha256_bytes(OLD), sha256_bytes(NEW)

    def places():
        for store in stores:
            put(store, NEW)
            bundle = store.root / "bundle"
            bundle.mkdir()
            add_use(store, Use(used, "2026-01-02T03:04:05Z", bundle))
            yield store

    def check(store):
        assert set(is_whole(store)) in ({used}, {used, unused})
        if store.find(unused):
            assert set(is_whole(store)) == {used, unused}
        clear_leftovers(store)
        assert is_whole(store) == [used]
        assert {path.name[:64] for path in store.directory.iterdir()} == {used}
        assert [use.sha256 for use in read_uses(store)] == [used]

    assert at_each_step(places(), clear_leftovers, check) > 20


def test_noting_a_use(stores, tmp_path):
    store = next(stores)
    use = Use(sha256_bytes(OLD), "2026-01-02T03:04:05Z", tmp_path / "a\tb\nc")

    def check(_):
        add_use(store, use)
        assert set(read_uses(store)) == {use}

    assert at_each_step(itertools.repeat(store), lambda _: add_use(store, use), check) > 3


def test_what_is_left_is_cleared_away(stores, tmp_path):
    sif = loose(tmp_path, NEW)
    for step in range(0, 60, 7):
        store = next(stores)
        killed_at(step, lambda store=store: import_images(sif, store))
        clear_leftovers(store)
        assert is_whole(store) == []
        assert list(store.directory.iterdir()) == []
        assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == []
