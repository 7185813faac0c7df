"""Exceptions that cross from the program to the test, as classes that a test can name in `except`.

A builtin is itself; one of the program's own becomes a class of the same name here, built of nothing but builtin
bases: it has no code of the program in it.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any, TypeGuard

from rayzero.rewards.sandbox.inside import wire

_MODULES_TEXT = """
    asyncio binascii concurrent.futures configparser copy csv dataclasses decimal graphlib ipaddress json
    json.decoder queue re sre_constants re._constants shutil statistics string struct subprocess tokenize zlib
    zoneinfo collections heapq xml.etree.ElementTree
"""
_MODULES = frozenset(_MODULES_TEXT.split())
"""Modules of the standard library whose exceptions mean the same on both sides. None of unittest's: a program that
skips a test has not passed it."""
MAX_DEPTH = 20
MARK = "_rayzero_from_program"


class ProgramError(Exception):
    """The program raised something whose class cannot be told."""


class StoppedError(RuntimeError):
    """The program's function raised StopIteration, which would end an iteration of the test."""

    instead_of: BaseException


def stopped(error: BaseException) -> StoppedError:
    """An error to raise in its stead; `pytest.raises` still finds the program's own."""
    made = StoppedError("the program raised " + type(error).__name__)
    made.instead_of = error
    vars(made)[MARK] = str(made)
    return made


def spell_class(kind: type, depth: int = 0) -> dict[str, Any]:
    """A class of exceptions, with its bases."""
    builtin = vars(builtins).get(kind.__name__)
    if builtin is kind:
        return {"builtin": kind.__name__}
    if kind.__module__ in _MODULES:
        return {"module": kind.__module__, "name": kind.__name__}
    bases = [spell_class(base, depth + 1) for base in kind.__bases__ if issubclass(base, BaseException)]
    return {"own": id(kind), "name": kind.__name__, "bases": bases if depth < MAX_DEPTH else []}


def spell(error: BaseException) -> dict[str, Any]:
    """A raised exception."""
    fields = {}
    for name, value in list(vars(error).items()):
        try:
            fields[name] = wire.encode(value)
        except Exception:
            continue
    try:
        arguments = [wire.encode(value) for value in error.args]
    except Exception:
        arguments = []
    try:
        text = str(error)[:2000]
    except Exception:
        text = ""
    return {"raised": spell_class(type(error)), "args": arguments, "message": text, "fields": fields}


class Classes:
    """The test's side: one local class for each of the program's."""

    def __init__(self) -> None:
        self._own: dict[int, type[BaseException]] = {}

    def find(self, tree: Any, depth: int = 0) -> type[BaseException]:
        """The class that `tree` spells; ProgramError where it spells none that may be had."""
        if not isinstance(tree, dict) or depth > MAX_DEPTH:
            return ProgramError
        if "builtin" in tree:
            kind = vars(builtins).get(tree["builtin"]) if isinstance(tree["builtin"], str) else None
            return kind if _is_allowed(kind) else ProgramError
        if tree.get("module") in _MODULES:
            kind = getattr(importlib.import_module(tree["module"]), str(tree.get("name")), None)
            return kind if _is_allowed(kind) else ProgramError
        number = tree.get("own")
        if type(number) is not int:
            return ProgramError
        if number not in self._own:
            self._own[number] = self._make(tree, depth)
        return self._own[number]

    def _make(self, tree: dict[str, Any], depth: int) -> type[BaseException]:
        bases = tuple(dict.fromkeys(self.find(base, depth + 1) for base in tree.get("bases") or ()))
        name = str(tree.get("name"))[:100]
        try:
            return type(name, bases or (ProgramError,), {"__str__": _text, "__module__": "solution"})
        except TypeError:
            return type(name, (ProgramError,), {"__str__": _text, "__module__": "solution"})

    def error(self, reply: dict[str, Any]) -> BaseException:
        """The exception to raise for the program's."""
        kind = self.find(reply.get("raised"))
        message = str(reply.get("message", ""))
        try:
            arguments = [wire.decode(value) for value in reply.get("args") or ()]
            made = kind.__new__(kind, *arguments)
            kind.__init__(made, *arguments)
        except Exception:  # it was made of something else than it keeps as its arguments
            made = kind.__new__(kind, message)
        for name, tree in dict(reply.get("fields") or {}).items():
            if name.isidentifier() and not name.startswith("__") and not hasattr(type(made), name):
                vars(made)[name] = wire.decode(tree)
        vars(made)[MARK] = message
        return made


def is_from_program(error: BaseException) -> bool:
    """Whether the program raised it, not the test."""
    return MARK in getattr(error, "__dict__", {})


def _text(error: BaseException) -> str:
    return str(vars(error).get(MARK, "")) if MARK in vars(error) else Exception.__str__(error)


def _is_allowed(kind: Any) -> TypeGuard[type[BaseException]]:
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        return False
    unittest = sys.modules.get("unittest")
    skips = (unittest.SkipTest,) if unittest else ()
    return kind is SystemExit or (issubclass(kind, Exception) and not issubclass(kind, skips))
