import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.timelimit import grace_of, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("01:00:05", 3605),
        ("2-3", 2 * 86400 + 3 * 3600),
        ("2-3:04", 2 * 86400 + 3 * 3600 + 240),
        ("1-00:00:01", 86401),
        (" 5 ", 300),
        ("UNLIMITED", None),
        ("infinite", None),
        ("-1", None),
        ("0", None),
        ("", None),
    ],
)
def test_times_as_slurm_reads_them(text: str, seconds: int | None) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["soon", "1:2:3:4", "1-", "1-x", "-5", "1.5", "1-2-3", "1:", "٣x"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)


@given(st.integers(0, 300), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_full_times_are_exact(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    assert (parse_time(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") or 0) == total


def test_grace_is_read_from_the_signal_directive() -> None:
    assert grace_of({"signal": "B:TERM@45"}, 60) == 45
    assert grace_of({"signal": "USR1@120"}, 60) == 120
    assert grace_of({"signal": "TERM"}, 60) == 60
    assert grace_of({}, 7) == 7
