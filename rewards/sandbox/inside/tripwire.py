"""What a scorer's `eval` is given instead of Python's, and the wire that ends the process when text gets to run anyway.

A third-party scorer may evaluate what a model wrote. While the wire is armed, `eval` reads text by a grammar of ours
(literals, numbers, names of mathematics, operators) and evaluates nothing else; and every other way from text to code
(`exec`, compiled code, new functions, processes, sockets, foreign libraries) passes the interpreter's audit hook, which
cannot be taken out and which ends the process before the first instruction of that code.
"""

from __future__ import annotations

import ast
import builtins
import collections
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

TRIPPED = 86
"""Exit status of a process whose text got as far as code."""
MAX_CHARS = 20_000
MAX_BITS = 100_000
"""Of a number that an expression may come to: powers of powers would take for ever."""
CONSTANTS = frozenset({"pi", "E", "I", "oo", "zoo", "nan"})
_FUNCTIONS = """
    Integer Float Rational Symbol sqrt cbrt root exp log ln sin cos tan cot sec csc asin acos atan acot asec acsc
    atan2 sinh cosh tanh coth sech csch asinh acosh atanh acoth asech acsch Abs abs sign floor ceiling factorial
    binomial gamma erf erfc erfi Ei li Si Ci Shi Chi fresnels fresnelc expint polylog LambertW Heaviside Min Max
    min max gcd lcm Mod
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
_FACTORIALS = frozenset({"factorial", "gamma", "binomial"})
_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.BinOp,
    ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_EVENTS = """
    os.system os.exec os.fork os.posix_spawn os.spawn os.kill os.putenv subprocess. pty. socket. ctypes. mmap.__new__
    code.__new__ function.__new__ pickle.find_class gc.get_ sys.settrace sys.setprofile sqlite3. cpython.run_ shutil.
    urllib. webbrowser.
"""
_FORBIDDEN = tuple(_EVENTS.split())
"""Beginnings of the audit events that nothing which scores has a use for."""


WRITERS = ("_frozen_importlib", "_frozen_importlib_external", "sympy.polys.monomials")
"""Modules that load code, or write it from numbers alone: never from a text that they are given."""


class NotAnAnswerError(ValueError):
    """Text that is no literal, number, name or operator: it is not evaluated."""


class Tripwire:
    """Armed once, for the rest of the process's life."""

    def __init__(self) -> None:
        """Changes nothing yet."""
        self.refused = ""
        """Why a text was not evaluated; "" while none was refused."""
        self._passed: list[CodeType] = []
        self._eval, self._exec = builtins.eval, builtins.exec

    def arm(self) -> None:
        """Replace `eval` and `exec`, and hook whatever goes around them."""
        own = {"eval": self._eval, "exec": self._exec}
        # What makes classes and loads modules writes its own code: it keeps Python's functions.
        importers = [sys.modules[name] for name in WRITERS if name in sys.modules]
        for module in (collections, dataclasses, *importers):
            vars(module).update(own)
        trusted = frozenset(id(vars(module)) for module in (collections, dataclasses, *importers))
        vars(builtins).update(eval=self.evaluate, exec=self.execute)
        sys.addaudithook(_hook(self._passed, trusted))

    def evaluate(self, source: Any, names: dict[str, Any] | None = None, more: Mapping[str, Any] | None = None) -> Any:
        """`eval` of text that the grammar allows. The caller's own variables are never in reach."""
        if not isinstance(source, str):
            raise self._refusal(f"eval of a {type(source).__name__}")
        try:
            tree = read(source, _symbols(more))
        except NotAnAnswerError as error:
            raise self._refusal(str(error)) from None
        code = compile(tree, "<answer>", "eval")
        self._passed.append(code)
        return self._eval(code, {"__builtins__": {}} if names is None else names, more)

    def execute(self, source: Any, names: dict[str, Any] | None = None, more: Any = None) -> None:
        """`exec`, of the one line that sympy's parser executes for itself."""
        if source != "from sympy import *" or names is None:
            raise self._refusal("exec")
        sympy = sys.modules["sympy"]
        names.update((name, getattr(sympy, name)) for name in sympy.__all__)

    def _refusal(self, why: str) -> NotAnAnswerError:
        self.refused = self.refused or why[:200]
        return NotAnAnswerError(self.refused)


def _symbols(names: Mapping[str, Any] | None) -> frozenset[str]:
    """What a caller of sympy's parser names on purpose: `{"x": Symbol("x")}`."""
    own = {} if names is None else dict(names)
    return frozenset(name for name, value in own.items() if type(value).__module__ == "sympy.core.symbol")


def read(source: str, symbols: frozenset[str] = frozenset()) -> ast.Expression:
    """The expression, of bounded size. SyntaxError where it is none, NotAnAnswerError where it is made of anything but
    literals, numbers, names of mathematics and operators."""
    if len(source) > MAX_CHARS:
        raise NotAnAnswerError("an expression of more than " + str(MAX_CHARS) + " characters")
    try:
        tree = ast.parse(source.strip(), mode="eval")
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            _check(node, FUNCTIONS if id(node) in called else CONSTANTS | symbols)
        _bits(tree.body)
    except (RecursionError, MemoryError):
        raise NotAnAnswerError("an expression nested too deeply") from None
    return tree


def _check(node: ast.AST, names: frozenset[str]) -> None:
    if not isinstance(node, _NODES):
        raise NotAnAnswerError(type(node).__name__ + " is neither a literal nor an operator")
    if isinstance(node, ast.Name) and node.id not in names:
        raise NotAnAnswerError("the name " + node.id[:40] + " means nothing here")
    if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.keywords):
        raise NotAnAnswerError("a call of what is no function of mathematics")
    if isinstance(node, ast.Dict) and None in node.keys:
        raise NotAnAnswerError("a dict unpacked into a dict")


def _bits(node: ast.AST) -> int:
    """A bound on the size of the number that it comes to, in bits; 0 for what is no number."""
    bits = _bits_of(node, [_bits(child) for child in ast.iter_child_nodes(node)])
    if bits > MAX_BITS:
        raise NotAnAnswerError("a number of too many digits")
    return bits


def _bits_of(node: ast.AST, inner: list[int]) -> int:
    if isinstance(node, ast.Constant):
        return node.value.bit_length() if type(node.value) is int else 0
    if isinstance(node, ast.BinOp):
        left, _, right = inner
        if isinstance(node.op, (ast.Pow, ast.LShift)):
            return (left if isinstance(node.op, ast.Pow) else 1) * 2 ** min(right, 64) if left else 0
        return left + right + 1 if left or right else 0
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FACTORIALS:
        return 32 * 2 ** min(max(inner, default=0), 64) if max(inner, default=0) else 0
    return max(inner, default=0)


def _hook(passed: list[CodeType], trusted: frozenset[int]) -> Callable[[str, tuple[Any, ...]], None]:
    """What it needs is bound here: nothing that is patched later is looked up by name."""
    frame_of, leave, forbidden, writing = sys._getframe, os._exit, _FORBIDDEN, os.O_WRONLY | os.O_RDWR | os.O_CREAT
    identity, is_number = id, isinstance

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "exec":
            if passed and args[0] is passed[-1]:
                passed.pop()
            elif identity(frame_of(1).f_globals) not in trusted:
                leave(TRIPPED)
        elif event == "open":
            if is_number(args[2], int) and args[2] & writing:
                leave(TRIPPED)
        elif event.startswith(forbidden):
            leave(TRIPPED)

    return watch
