"""What of an environment's answer the model sees: a long one loses its middle, and the cut is marked."""

from __future__ import annotations

from rayzero.services.schema.printable import encodable


def shown(text: str, max_chars: int) -> str:
    """At most `max_chars` characters and the mark; half a character (an unpaired surrogate) as an escape."""
    if len(text) <= max_chars:
        return encodable(text)
    head = (max_chars + 1) // 2
    tail = max_chars - head
    cut = len(text) - max_chars
    return encodable(f"{text[:head]}\n[… {cut} characters cut …]\n{text[len(text) - tail :]}")
