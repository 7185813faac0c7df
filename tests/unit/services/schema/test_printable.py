"""What a terminal would obey is shown instead."""

from __future__ import annotations

import unicodedata

import pytest

from rayzero.services.schema.printable import encodable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x1b[2J\x9b2J", r"\x1b[2J\x9b2J"),
        ("\x1b]52;c;cm0gLXJm\x1b\\", r"\x1b]52;c;cm0gLXJm\x1b" + "\\"),
        ("abc\rxyz\x08\x7f", r"abc\x0dxyz\x08\x7f"),
        ("user\u202etxt.exe\u2066", r"user\u202etxt.exe\u2066"),
        ("a\ud83db", r"a\ud83db"),
        ("x\U000e0041", r"x\U000e0041"),
        ("two lines\n\tand a tab, 中文, é, 👩‍🚀", "two lines\n\tand a tab, 中文, é, 👩‍🚀"),
    ],
)
def test_controls_are_shown_and_text_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_no_control_of_any_plane_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = {character for character in printable(every) if unicodedata.category(character) in ("Cc", "Cs")}
    assert left == {"\t", "\n"}
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {c for c in printable(every) if unicodedata.bidirectional(c) in bidirectional}


def test_half_a_character_is_written_as_its_number() -> None:
    assert encodable("\ud83d") == r"\ud83d" and encodable("👩 é") == "👩 é"
