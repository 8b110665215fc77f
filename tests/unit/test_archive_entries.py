"""Names in an archive: one that lies beside a good one is held to the same rules."""

import pytest

from valska.external_tools.core.archive.entries import EntryError, Limits, Names
from valska.external_tools.core.archive.tar import Header, Kind

DEEP = "/".join(["top", *"d" * 98])


@pytest.mark.parametrize("before", ["", "top/a/good", f"{DEEP}/good"], ids=["none", "a", "deep"])
@pytest.mark.parametrize(
    "name",
    [
        "top/" + "é" * 128 + "/" + "z" * 200,
        "top/a/..",
        "top/a/.",
        "top/a/",
        "top/a/b\n",
        "top/a/" + "é" * 128,
        "top/a/../../x",
        "/top/a",
    ],
)
def test_unusable_names_are_refused_whatever_came_before(before, name):
    names = Names(Limits())
    if before:
        names.check(Header(before, Kind.FILE))
    with pytest.raises(EntryError):
        names.check(Header(name, Kind.FILE))


@pytest.mark.parametrize("header", [{"kind": Kind.DEVICE}, {"mode": 0o4755}, {"kind": Kind.OTHER}])
def test_types_and_modes_are_checked_beside_a_good_name(header):
    names = Names(Limits())
    names.check(Header("top/a/good", Kind.FILE))
    with pytest.raises(EntryError):
        names.check(Header("top/a/bad", **{"kind": Kind.FILE} | header))


def test_the_longest_and_deepest_names_are_the_same_for_the_first_and_the_next():
    names = Names(Limits())
    for name in ("a" * 255, "b" * 255, "é" * 127):
        assert names.check(Header(f"{DEEP}/{name}", Kind.FILE)).endswith(name)
    with pytest.raises(EntryError, match="too long"):
        names.check(Header(f"{DEEP}/{'c' * 256}", Kind.FILE))
    with pytest.raises(EntryError, match="deep"):
        names.check(Header(f"{DEEP}/d/e", Kind.FILE))
