"""The languages by name. Python is no entry: its boxes are the sandbox's own (see judge.py)."""

from __future__ import annotations

from collections.abc import Mapping

from rayzero.rewards.code.languages.base import Language
from rayzero.rewards.code.languages.cpp import Cpp
from rayzero.rewards.code.languages.go import Go
from rayzero.rewards.code.languages.java import Java
from rayzero.rewards.code.languages.javascript import JavaScript
from rayzero.rewards.code.languages.rust import Rust
from rayzero.rewards.code.spec import SpecError

PYTHON_NAMES = ("python", "python3", "py", "py3")


def languages() -> Mapping[str, Language]:
    """A fresh instance of each, by every name it goes by."""
    made: list[Language] = [Cpp(), JavaScript(), Java(), Go(), Rust()]
    return {name: language for language in made for name in (language.name, *language.aliases)}


def find(known: Mapping[str, Language], name: str) -> Language | None:
    """The language called `name`, None for Python; SpecError for an unknown name."""
    lowered = name.lower()
    if lowered in PYTHON_NAMES:
        return None
    if lowered not in known:
        offered = ", ".join(sorted({language.name for language in known.values()} | {"python"}))
        raise SpecError(f"language: {name!r} is not offered (there are {offered})")
    return known[lowered]
