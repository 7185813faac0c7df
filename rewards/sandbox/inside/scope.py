"""What a Python program finds without importing it: what an interpreter with `site` has, and the names that LeetCode
imports for its solutions.

The latter are no part of the program: they stand behind its builtins, so that a program which defines nothing has
nothing to be called.
"""

from __future__ import annotations

import builtins
import contextlib
import fractions
import functools
import importlib
import math
import sys
import types
from typing import Any

RECURSION_LIMIT = 50_000
"""What LeetCode's and LiveCodeBench's harnesses allow; the stack of 64 MiB holds it."""

_FROM = ("typing", "collections", "itertools", "functools", "heapq", "bisect", "math", "string", "operator")
_MODULES = (*_FROM, "random", "re", "datetime", "copy", "sys", "json", "time")


class Quitter:
    """`exit` and `quit`: without `site` an interpreter has neither."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"Use {self._name}() or Ctrl-D (i.e. EOF) to exit"

    def __call__(self, code: Any = None) -> None:
        """End the program."""
        raise SystemExit(code)


def prepare() -> None:
    """Make this interpreter what a program under judgement expects. Once, before it is loaded."""
    vars(builtins).update(exit=Quitter("exit"), quit=Quitter("quit"))
    vars(fractions).setdefault("gcd", math.gcd)  # where Python had it until 3.9, and many a contest's program looks
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # the CPU limit bounds what a long conversion costs
    sys.setrecursionlimit(RECURSION_LIMIT)


@functools.cache
def offered() -> dict[str, Any]:
    """LeetCode's names by what they mean; builtins keep their meaning (`pow` is no `math.pow`)."""
    names: dict[str, Any] = {}
    for module in map(importlib.import_module, _FROM):
        public = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        names |= {name: getattr(module, name) for name in public}
    names |= {name: importlib.import_module(name) for name in _MODULES}
    own = {name for name in names if hasattr(builtins, name)}
    return {name: value for name, value in names.items() if name not in own}


def offer(module: types.ModuleType, source: str) -> None:
    """Put LeetCode's names behind the builtins of `module`: its own names win, and it owns none of these."""
    sorted_kinds = {}
    if "Sorted" in source:
        with contextlib.suppress(ImportError):  # LeetCode imports these too; here where the packages have them
            own = importlib.import_module("sortedcontainers")
            sorted_kinds = {name: getattr(own, name) for name in ("SortedList", "SortedDict", "SortedSet")}
    module.__dict__["__builtins__"] = {**offered(), **sorted_kinds, **vars(builtins)}
