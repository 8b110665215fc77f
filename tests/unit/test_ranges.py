from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.ranges import read_ranges, write_ranges


@given(st.sets(st.integers(0, 40), min_size=1))
def test_what_is_written_is_read(indices: set[int]) -> None:
    assert read_ranges(write_ranges(indices)) == sorted(indices)


def test_ranges_are_short() -> None:
    assert write_ranges([5, 0, 1, 2, 7, 8, 8]) == "0-2,5,7-8"
    assert read_ranges("") == []
