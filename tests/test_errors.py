"""Any exception as one printable line."""

import errno

import pytest

from separator.errors import SeparatorError, one_line, printable


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SeparatorError("song.wav: " + "long " * 100), "song.wav: " + "long " * 100),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("encoder: cannot flush"), "OSError: encoder: cannot flush"),
        (ValueError("two\n lines"), "ValueError: two lines"),
        (EOFError(), "EOFError"),
        (KeyError("caf\udce9.wav"), "KeyError: 'caf\\udce9.wav'"),
        (SeparatorError("caf\udce9.wav: broken"), "caf\\udce9.wav: broken"),
        (SeparatorError("a  b\nc.wav: broken"), "a  b\\nc.wav: broken"),  # two spaces are a name's
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_a_stack_trace_is_cut() -> None:
    line = one_line(RuntimeError("unexpected pos\n" + "frame #0: here\n" * 100))
    assert line.startswith("RuntimeError: unexpected pos frame #0")
    assert len(line) <= 300


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\x1b[31m\a\b\0\x7f\x9b", "\\x1b[31m\\x07\\x08\\x00\\x7f\\x9b"),
        ("one\ntwo\r\n\tthree\v\f", "one\\ntwo\\r\\n\\tthree\\x0b\\x0c"),
        ("one\u2028two\u2029three\x85", "one\\u2028two\\u2029three\\x85"),
        ("\u202egnp.exe\u2066\u200f\u200b\ufeff", "\\u202egnp.exe\\u2066\\u200f\\u200b\\ufeff"),
        ("caf\udce9 \ud800", "caf\\udce9 \\ud800"),
        ("hidden \U000e0041", "hidden \\U000e0041"),
    ],
)
def test_what_could_forge_or_hide_is_escaped(text: str, escaped: str) -> None:
    assert printable(text) == escaped
    assert printable(escaped) == escaped  # once is enough, twice does no harm


@pytest.mark.parametrize(
    "text",
    ["", "Dvořák №1.flac", "二 人\u3000の", "\u0645\u06cc\u200c\u062e", "👩\u200d🎤 a\xa0b",
     "e\u0301", "C:\\Music\\new", "\ue000"],
)  # fmt: skip
def test_names_in_any_script_stay_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_every_character_encodes_and_none_breaks_a_line() -> None:
    text = printable("".join(map(chr, range(0x110000))))
    assert text.encode("utf-8")
    assert len(text.splitlines()) == 1
