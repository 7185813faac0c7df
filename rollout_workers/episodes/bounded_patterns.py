"""Patterns of other packages, bounded in time: what a model wrote must not stand an engine still.

Some of vLLM's tool parsers search with patterns of quadratic or cubic time: two thousand tokens of calls that are
opened and never closed would hold the engine's event loop for minutes. They are made with the package `regex`, which
takes a timeout at each search.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import regex  # type: ignore[import-untyped]

SEARCH_S = 0.25
"""CPU seconds of one search; an honest turn takes a few milliseconds. What takes longer raises TimeoutError."""
_SEARCHES = frozenset({
    "findall", "finditer", "fullmatch", "match", "search", "split", "splititer", "sub", "subf", "subfn", "subn",
})  # fmt: skip


class BoundedPattern:
    """A compiled pattern that searches within `SEARCH_S`."""

    def __init__(self, pattern: Any) -> None:
        self.unbounded = pattern

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.unbounded, name)
        return functools.partial(value, timeout=SEARCH_S) if name in _SEARCHES else value


class BoundedRegex:
    """Stands where a module has imported `regex`."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(regex, name)
        if name == "compile":
            return lambda *given, **named: BoundedPattern(value(*given, **named))
        if name not in _SEARCHES:
            return value

        def search(pattern: Any, *given: Any, **named: Any) -> Any:
            unbounded = pattern.unbounded if isinstance(pattern, BoundedPattern) else pattern
            return value(unbounded, *given, **{"timeout": SEARCH_S, **named})

        return search


def bound_patterns(kind: type) -> None:
    """Bound every search of the modules that a parser's class is made of, and of its package's others."""
    package = kind.__module__.rpartition(".")[0]
    own = {base.__module__ for base in kind.__mro__}
    for name, module in list(sys.modules.items()):
        if module is not None and (name in own or name.startswith(f"{package}.")):
            _bound(module)


def _bound(module: Any) -> None:
    for name, value in list(vars(module).items()):
        if value is regex:
            setattr(module, name, BoundedRegex())
        elif isinstance(value, regex.Pattern):
            setattr(module, name, BoundedPattern(value))
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for attribute, pattern in list(vars(value).items()):
                if isinstance(pattern, regex.Pattern):
                    setattr(value, attribute, BoundedPattern(pattern))
