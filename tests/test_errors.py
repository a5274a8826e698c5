"""Any exception as one printable line."""

import errno

import pytest

from separator.errors import SeparatorError, one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SeparatorError("song.wav: " + "long " * 100), "song.wav: " + "long " * 99 + "long"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("encoder: cannot flush"), "OSError: encoder: cannot flush"),
        (ValueError("two\n lines"), "ValueError: two lines"),
        (EOFError(), "EOFError"),
        (KeyError("caf\udce9.wav"), "KeyError: 'caf\\udce9.wav'"),
        (SeparatorError("caf\udce9.wav: broken"), "caf\\udce9.wav: broken"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_a_stack_trace_is_cut() -> None:
    line = one_line(RuntimeError("unexpected pos\n" + "frame #0: here\n" * 100))
    assert line.startswith("RuntimeError: unexpected pos frame #0")
    assert len(line) <= 300
