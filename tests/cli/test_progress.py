"""The line that shows what runs."""

import pytest

from valska.cli.progress import last_line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", ""),
        (b"one\ntwo\n\n  \n", "two"),
        (b"10% done\r20% done\n", r"10% done\r20% done"),
        (b"\x1b[31mred\xff\n", "\\x1b[31mred\ufffd"),
        (b"x" * 9000 + b"\nend", "end"),
    ],
)
def test_the_last_line_of_a_log_is_plain_text(tmp_path, content, line):
    log = tmp_path / "log"
    log.write_bytes(content)
    assert last_line(log) == line


def test_a_log_that_is_not_there_has_no_last_line(tmp_path):
    assert last_line(tmp_path / "log") == ""
