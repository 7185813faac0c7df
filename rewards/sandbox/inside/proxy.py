"""Test code in one box, the program in another: assertions that the program can see no part of.

The test (the recipe's data) runs in a box of its own and holds the expected values. The program's functions are
stand-ins there: calling one sends typed arguments over a socket and receives a typed value, the arguments as the call
left them, or the name of a builtin exception. What comes back is built from exact builtin types, so no object with an
`__eq__`, `__bool__` or `__class__` of its own reaches an assertion; an instance of the program's own class stays
there, and its handle refuses to be compared or used as a truth value.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import collections
import contextlib
import importlib
import inspect
import socket
import sys
import types
from typing import Any

from rewards.sandbox.inside import wire

MAX_REPLY_BYTES = 32 << 20


class ProgramGone(BaseException):
    """The program's box ended or broke the protocol. No `except Exception` in a test hides it."""


class ProgramError(Exception):
    """The program raised an exception that is no builtin."""


class Server:
    """The program's side: answers calls on the link until it closes."""

    def __init__(self, link: socket.socket) -> None:
        """Serve on `link`."""
        self._link = link
        self._objects: list[Any] = []
        self._module: types.ModuleType | None = None

    def start(self, module: types.ModuleType) -> None:
        """Tell the test's side which names the program defines."""
        self._module = module
        names = [name for name in vars(module) if type(name) is str and not name.startswith("__")]
        wire.send_frame(self._link, {"names": names})

    def serve(self) -> None:
        """Answer until the other side hangs up."""
        while True:
            try:
                request = wire.receive_frame(self._link, MAX_REPLY_BYTES)
            except EOFError:
                return
            wire.send_frame(self._link, self._answer(request))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            target = self._find(request["target"])
            if "get" in request:
                return {"value": self._spell(getattr(target, request["get"]))}
            args = [wire.decode(argument, 0, self._callback) for argument in request["args"]]
            keywords = {name: wire.decode(value, 0, self._callback) for name, value in request["keywords"].items()}
            value = self._spell(target(*args, **keywords))
            return {"value": value, "args": [_spell_argument(argument) for argument in args]}
        except Exception as error:
            return {"raised": type(error).__name__, "message": str(error)[:500]}

    def _find(self, target: Any) -> Any:
        if target is None:
            return self._module
        if isinstance(target, int):
            return self._objects[target]
        if hasattr(self._module, target):
            return getattr(self._module, target)
        if not hasattr(self._module, "Solution"):
            raise NameError(f"the program defines no function {target}")
        return getattr(self._module.Solution(), target)  # type: ignore[union-attr]

    def _spell(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return {"$": "awaitable", "v": self._spell(asyncio.run(value))}
        return wire.encode(value, 0, self._handle)

    def _handle(self, value: Any) -> dict[str, Any]:
        self._objects.append(value)
        return {"$": "object", "v": len(self._objects) - 1}

    def _callback(self, tree: dict[str, Any]) -> Any:
        def callback(*args: Any) -> Any:
            wire.send_frame(self._link, {"callback": tree["v"], "args": [self._spell(item) for item in args]})
            reply = wire.receive_frame(self._link, MAX_REPLY_BYTES)
            if "raised" in reply:
                raise exception(reply)
            return wire.decode(reply["value"], 0, self._callback)

        return callback


def _spell_argument(argument: Any) -> Any:
    if not isinstance(argument, (list, dict, set, bytearray, collections.deque)):
        return None
    try:
        return wire.encode(argument)
    except Exception:
        return None


def exception(reply: dict[str, Any]) -> Exception:
    """A builtin exception by its name, ProgramError for any other."""
    kind = vars(builtins).get(reply["raised"]) if isinstance(reply["raised"], str) else None
    message = str(reply.get("message", ""))
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:
            pass
    return ProgramError(str(reply["raised"]) + ": " + message)


class Link:
    """The test's side of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Talk over `sock`."""
        self._sock = sock
        self._callbacks: list[Any] = []
        self.gone = ""

    def hello(self) -> list[str]:
        """The names that the program defines."""
        reply = self._receive()
        if "error" in reply:
            self.gone = "the program failed to load: " + str(reply["error"])[:300]
            raise ProgramGone(self.gone)
        return [name for name in reply.get("names", ()) if isinstance(name, str)]

    def get(self, target: Any, name: str) -> Any:
        """An attribute of an object in the program."""
        return self._ask({"target": target, "get": name}, ())

    def call(self, target: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call into the program; arguments that it changed in place are changed here as well."""
        spelt = [wire.encode(argument, 0, self._callback) for argument in args]
        named = {name: wire.encode(value, 0, self._callback) for name, value in keywords.items()}
        return self._ask({"target": target, "args": spelt, "keywords": named}, args)

    def _ask(self, request: dict[str, Any], args: tuple[Any, ...]) -> Any:
        if self.gone:
            raise ProgramGone(self.gone)
        with contextlib.suppress(OSError):  # the reply says how it ended
            wire.send_frame(self._sock, request)
        reply = self._receive()
        while "callback" in reply:
            self._answer_callback(reply)
            reply = self._receive()
        if "raised" in reply:
            raise exception(reply)
        try:
            for argument, after in zip(args, reply.get("args") or (), strict=False):
                if after is not None:
                    _update(argument, wire.decode(after))
            return wire.decode(reply.get("value"), 0, self._object)
        except (wire.WireError, TypeError) as error:
            raise self._broken("the program's value is malformed: " + str(error)) from error

    def _answer_callback(self, request: dict[str, Any]) -> None:
        try:
            function = self._callbacks[request["callback"]]
            args = [wire.decode(item, 0, self._object) for item in request["args"]]
            reply = {"value": wire.encode(function(*args), 0, self._callback)}
        except Exception as error:
            reply = {"raised": type(error).__name__, "message": str(error)[:500]}
        wire.send_frame(self._sock, reply)

    def _receive(self) -> dict[str, Any]:
        try:
            reply = wire.receive_frame(self._sock, MAX_REPLY_BYTES)
        except (EOFError, OSError) as error:
            raise self._broken("the program ended before it answered") from error
        except wire.WireError as error:
            raise self._broken("the program's answer is malformed: " + str(error)) from error
        if not isinstance(reply, dict):
            raise self._broken("the program's answer is malformed")
        return reply

    def _broken(self, reason: str) -> ProgramGone:
        self.gone = reason
        return ProgramGone(reason)

    def _object(self, tree: dict[str, Any]) -> Any:
        if tree.get("$") == "awaitable":
            return _awaitable(wire.decode(tree.get("v"), 0, self._object))
        if tree.get("$") != "object" or type(tree.get("v")) is not int:
            raise wire.WireError("unknown tag")
        return Remote(self, tree["v"])

    def _callback(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            raise TypeError("an object of the program cannot be passed back to it")
        if not callable(value):
            raise wire.WireError("a value of type " + type(value).__name__ + " has no JSON spelling")
        self._callbacks.append(value)
        return {"$": "callback", "v": len(self._callbacks) - 1}


async def _awaitable(value: Any) -> Any:
    return value


class Remote:
    """Stands for a function, class or object of the program: can be called and asked for attributes, nothing else."""

    def __init__(self, link: Link, target: Any) -> None:
        """`target` is a name of the program's module, or the number of an object in it."""
        self.__dict__["_link"] = link
        self.__dict__["_target"] = target

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call it there."""
        return self._link.call(self._target, args, keywords)

    def __getattr__(self, name: str) -> Any:
        """Its attribute, as a typed value or another Remote."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.get(self._target, name)

    def __bool__(self) -> bool:
        """Refused: an object would otherwise pass `assert f(x)` by merely existing."""
        raise TypeError("the program returned an object, not a value")

    def __eq__(self, other: object) -> bool:
        """Refused: `f(x) != wrong` would hold for any object."""
        raise TypeError("the program returned an object, not a value")

    __hash__ = None  # type: ignore[assignment]


def _update(old: Any, new: Any) -> None:
    """Make the mutable `old` equal to `new` in place, keeping the identity of inner lists and dicts where shapes
    agree."""
    if type(old) is not type(new) and not (isinstance(old, dict) and isinstance(new, dict)):
        return
    if isinstance(old, list):
        merged = [_merge(before, after) for before, after in zip(old, new, strict=False)] + new[len(old) :]
        old[:] = merged
    elif isinstance(old, dict):
        merged_items = {key: _merge(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged_items)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, (bytearray, collections.deque)):
        old.clear()
        old.extend(new)


def _merge(before: Any, after: Any) -> Any:
    if isinstance(before, (list, dict, set)) and type(before) is type(after):
        _update(before, after)
        return before
    return after


def judge(sock: socket.socket, test: str, prelude: str, entry_point: str) -> tuple[bool, str]:
    """Run the test code against the program behind `sock`: (passed, reason). Only a run to the very end passes."""
    link = Link(sock)
    try:
        names = set(link.hello())
        namespace: dict[str, Any] = {"__name__": "test"}
        if prelude:
            exec(compile(prelude, "prelude", "exec", dont_inherit=True), namespace)
        tree = _as_statements(test, set(namespace))
        _bind(tree, namespace, names, link)
        if entry_point:
            namespace[entry_point] = Remote(link, entry_point)
        exec(compile(tree, "test", "exec", dont_inherit=True), namespace)
    except ProgramGone as error:
        return False, str(error)
    except AssertionError as error:
        return False, "assertion failed" + (": " + str(error)[:200] if str(error) else "")
    except BaseException as error:
        return False, type(error).__name__ + ": " + str(error)[:200]
    return (False, link.gone) if link.gone else (True, "")


def _bind(tree: ast.Module, namespace: dict[str, Any], names: set[str], link: Link) -> None:
    """Give the test's free names a meaning: never the program's own `abs` or `math`, which could make any assertion
    hold."""
    for name in _free_names(tree) - set(namespace):
        if hasattr(builtins, name):
            continue
        if name in sys.stdlib_module_names:
            namespace[name] = importlib.import_module(name)
        elif name in names:
            namespace[name] = link.get(None, name)  # a constant as its value, a function or class as a stand-in


def _as_statements(test: str, trusted: set[str]) -> ast.Module:
    """A bare expression is asserted, unless it calls the recipe's own `check`, which returns nothing."""
    tree = ast.parse(test)
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        value = tree.body[0].value
        own = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in trusted
        if not own:
            tree.body[0] = ast.copy_location(ast.Assert(test=value, msg=None), tree.body[0])
    return ast.fix_missing_locations(tree)


def _free_names(tree: ast.Module) -> set[str]:
    """Names that the test reads and nowhere binds."""
    read: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    return read - bound
