"""Test code in one box, the program in another: assertions that the program can see no part of.

The test (the recipe's data) runs in a box of its own and holds the expected values; the program's functions are
stand-ins there (link.py). A test passes only if it ran to its end and asked the program something: one that asks
nothing, cannot fail, or fails by itself is a fault of the spec.
"""

from __future__ import annotations

import builtins
import importlib
import socket
import sys
import types
import typing
from typing import Any

from rayzero.rewards.sandbox.inside import assertion_runner, errors, nodes
from rayzero.rewards.sandbox.inside.assertion_text import TestFault, TestText
from rayzero.rewards.sandbox.inside.link import Link, ProgramGone, UnspeltError
from rayzero.rewards.sandbox.inside.remote import Remote, kind_of

_TEST_SIDE = frozenset(
    (*typing.__all__, "Counter", "OrderedDict", "defaultdict", "deque", "namedtuple", "Decimal", "Fraction", "inf")
)
"""Names that LeetCode's harness imports: a test that reads one without an import never means the program's."""
_HOMES = {"Counter": "collections", "OrderedDict": "collections", "defaultdict": "collections", "deque": "collections",
          "namedtuple": "collections", "Decimal": "decimal", "Fraction": "fractions", "inf": "math"}  # fmt: skip

Verdict = dict[str, Any]


def judge(sock: socket.socket, test: str, prelude: str, entry_point: str) -> Verdict:
    """Run the test code against the program behind `sock`: `{"passed": ..., "reason": ..., "fault": ...}`.

    Only a run to the very end passes. `fault`: the test is to blame, not the program.
    """
    link = Link(sock)
    space = Namespace(link)
    try:
        space.names = frozenset(link.hello())
        _run(space, test, prelude, entry_point)
    except BaseException as error:
        return _verdict(error, link, space)
    if link.gone:
        return _wrong(link.gone)
    if not link.num_asked:
        return _unasked(space, "the test asks nothing of the program")
    return {"passed": True, "reason": "", "fault": False}


class Namespace(dict[str, Any]):
    """The test's globals. A name that it binds nowhere means the program's, never the program's own `abs` or `math`,
    which could make any assertion hold."""

    def __init__(self, link: Link) -> None:
        super().__init__(__name__="__main__", __file__="/tmp/test_solution.py", type=kind_of)
        self._link = link
        self.names: frozenset[str] = frozenset()
        """What the program defines."""
        self.attributes_of: frozenset[str] = frozenset()
        self.missing: list[str] = []
        """What the test looked for and neither side has."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        if name in _TEST_SIDE:
            value = getattr(importlib.import_module(_HOMES.get(name, "typing")), name)
        elif name in sys.stdlib_module_names and (name in self.attributes_of or name not in self.names):
            value = importlib.import_module(name)
        else:
            value = self.of_program(name)
        self[name] = value
        return value

    def of_program(self, name: str) -> Any:
        """A constant as its value, a function or class as a stand-in. KeyError where the program has none."""
        if name in nodes.NAMES and name not in self.names:
            return Remote(self._link, name)
        if name not in self.names:
            self.missing.append(name)
            raise KeyError(name)
        value = self._link.get(None, name)
        if isinstance(value, (Remote, type)):
            self._link.num_asked -= 1  # to name a function is not to ask for anything
        return Remote(self._link, name) if isinstance(value, Remote) else value


class _Program(types.ModuleType):
    """What `from solution import f` finds."""

    def __init__(self, space: Namespace) -> None:
        super().__init__("solution")
        self.__dict__["_space"] = space

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            value = self.__dict__["_space"].of_program(name)
        except KeyError:
            raise AttributeError(f"the program defines no {name}") from None
        self.__dict__[name] = value
        return value


def _run(space: Namespace, test: str, prelude: str, entry_point: str) -> None:
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.modules["solution"] = _Program(space)
    if prelude:
        own: dict[str, Any] = {"__name__": "prelude"}
        exec(compile(prelude, "prelude", "exec", dont_inherit=True), own)
        space.update({name: value for name, value in own.items() if not name.startswith("__")})
    text = TestText(test, [name for name in space if not name.startswith("__")])
    like_builtins, unclear = text.program_names_like_builtins(entry_point)
    if unclear:
        raise TestFault(f"which of {', '.join(sorted(unclear))} is the program's? Name it as `entry_point`")
    for name in like_builtins:
        space[name] = Remote(space._link, name)
    space.attributes_of = text.attributes_of
    if entry_point:
        space[entry_point] = Remote(space._link, entry_point)
    assertion_runner.prepare(text)
    space._link.classes = _Classes(space)
    _execute(compile(text.tree, "test", "exec", dont_inherit=True), space)
    vars(main).update(space)
    assertion_runner.run_defined(space, text, Remote(space._link, entry_point) if entry_point else None)


class _Classes(dict[str, type]):
    """Classes that the prelude or the test defines, whenever it does, and that a value may be of."""

    def __init__(self, space: Namespace) -> None:
        super().__init__()
        self._space = space
        self._listed: tuple[int, list[str]] = (0, [])

    def get(self, name: str, default: Any = None) -> Any:
        found = self._space[name] if dict.__contains__(self._space, name) else None
        if not isinstance(found, type) or issubclass(found, BaseException):
            return default
        return found if found.__module__ in ("__main__", "prelude") else default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __getitem__(self, name: str) -> type:
        return self.get(name)  # type: ignore[no-any-return]

    def __iter__(self) -> Any:
        if self._listed[0] != len(self._space):
            self._listed = len(self._space), [name for name in list(self._space) if name in self]
        return iter(self._listed[1])


def _execute(code: types.CodeType, space: Namespace) -> None:
    try:
        exec(code, space)
    except SystemExit as error:
        if error.code or errors.is_from_program(error):
            raise


def _verdict(error: BaseException, link: Link, space: Namespace) -> Verdict:
    if link.gone or isinstance(error, ProgramGone):
        return _wrong(link.gone or str(error))
    text = str(error)[:200]
    if isinstance(error, AssertionError):
        reason = "assertion failed" + (": " + text if text else "")
    else:
        reason = type(error).__name__ + ": " + text
    if errors.is_from_program(error):
        return _wrong(reason)
    if isinstance(error, (TestFault, SyntaxError, ModuleNotFoundError, UnspeltError)):
        return _fault(text if isinstance(error, TestFault) else reason)
    if link.num_asked:
        return _wrong(reason)
    return _unasked(space, "the test fails by itself: " + reason)


def _unasked(space: Namespace, reason: str) -> Verdict:
    if space.missing:
        return _wrong("the program defines no " + space.missing[0])
    return _fault(reason)


def _wrong(reason: str) -> Verdict:
    return {"passed": False, "reason": reason, "fault": False}


def _fault(reason: str) -> Verdict:
    return {"passed": False, "reason": reason, "fault": True}
