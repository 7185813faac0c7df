"""What the guide on runs that do not learn says of one topic: shown where the finding is, also without a network."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

GUIDE = "docs/guides/debugging.md"
"""Where a reader finds the whole."""


def advice(topic: str) -> str:
    """The text below a heading, by its name in links (`entropy-collapse`); empty where the guide was not brought along,
    as by a job that uploads the code alone."""
    return _advice().get(topic, "")


@cache
def _advice() -> dict[str, str]:
    try:
        text = resources.files("rayzero").joinpath("guides", "debugging.md").read_text(encoding="utf-8")
    except OSError:
        return {}
    parts = re.split(r"^#{2,3} (.+)$", text, flags=re.MULTILINE)
    found = zip(parts[1::2], parts[2::2], strict=True)
    return {_topic(title): _as_text(body) for title, body in found}


def _topic(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _as_text(body: str) -> str:
    """One paragraph without marks: it is shown as text, not rendered."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", body)
    return " ".join(text.replace("`", "").split())
