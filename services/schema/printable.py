"""Text for a terminal: whatever a model, a row or a server wrote is shown there, and never obeyed.

A terminal obeys C0 and C1 controls (ESC begins a command: clear the screen, set the title, write the clipboard), and
bidirectional controls let a line show something else than it says. Unpaired surrogates cannot be written at all.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys

HOSTILE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and line feed, DEL, C1
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"  # bidirectional controls, line separators, byte order mark
    r"\ud800-\udfff"  # halves of characters
    r"\U000e0000-\U000e007f]"  # tags: text that shows as nothing
)
"""One such character."""


def printable(text: str) -> str:
    r"""The text with what a terminal would obey as escapes: ESC becomes the four characters `\x1b`."""
    return HOSTILE.sub(lambda found: escaped(found[0]), text)


def encodable(text: str) -> str:
    r"""The text with unpaired surrogates as escapes, `\ud800`: neither UTF-8 nor SQLite nor a tokenizer takes any."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def escaped(character: str) -> str:
    r"""One character by its number, in Python's notation: `\x1b`, `\u202e`, `\U000e0041`."""
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def take_any_text() -> None:
    """Let standard output and error write what their encoding lacks as escapes: a `✓` in an ASCII locale, say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):  # closed
                stream.reconfigure(errors="backslashreplace")
