"""The test's side of an assertion: stand-ins for what the program defines, over a socket to the program's box.

Calling a stand-in sends typed arguments and receives a typed value, the arguments as the call left them, or an
exception. What comes back is built of exact builtin types, so no object with an `__eq__`, `__bool__` or `__class__` of
its own reaches an assertion; an instance of a class of the program stays there, and a handle stands for it (remote.py).
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import re
import socket
import sys
from collections.abc import Mapping
from typing import Any

from rayzero.rewards.sandbox.inside import errors, graph, wire
from rayzero.rewards.sandbox.inside.remote import Remote

MAX_REPLY_BYTES = 32 << 20
_DTYPE = re.compile(r"(bool|u?int\d{1,2}|float\d{2}|complex\d{2,3}|[<|=]?U\d{1,6})")


class ProgramGone(BaseException):
    """The program's box ended or broke the protocol. No `except Exception` in a test hides it."""


class UnspeltError(wire.WireError):
    """A value of the test's own that cannot cross: the test's fault."""


class Link:
    """Asks the program; `gone` says why it no longer answers."""

    def __init__(self, sock: socket.socket) -> None:
        """Talk over `sock`."""
        self._sock = sock
        self._callbacks: list[Any] = []
        self._handles: dict[int, Remote] = {}
        self._errors = errors.Classes()
        self._graph = graph.ObjectGraph()
        self.classes: Mapping[str, type] = {}
        """Classes of the test's own: their instances cross as tables of fields."""
        self.gone = ""
        self.num_asked = 0

    def hello(self) -> list[str]:
        """The names that the program defines."""
        reply = self._receive()
        if "error" in reply:
            self.gone = "the program failed to load: " + str(reply["error"])[:300]
            raise ProgramGone(self.gone)
        return [name for name in reply.get("names", ()) if isinstance(name, str)]

    def get(self, target: Any, name: str) -> Any:
        """An attribute of an object in the program; of its module with `target` None."""
        return self._ask({"target": target, "get": name}, (), {})

    def call(self, target: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call into the program; arguments that it changed in place are changed here as well."""
        return self._ask({"target": target}, args, keywords)

    def operate(self, name: str, *args: Any) -> Any:
        """An operator or builtin function on objects that are there."""
        return self._ask({"operation": name}, args, {})

    def _ask(self, request: dict[str, Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.gone:
            raise ProgramGone(self.gone)
        own = self._graph = graph.ObjectGraph()
        request["args"] = [wire.encode(argument, 0, self._other) for argument in args]
        request["keywords"] = {name: wire.encode(value, 0, self._other) for name, value in keywords.items()}
        request["nodes"], request["kinds"] = own.table(self._other), list(self.classes)
        self.num_asked += 1
        with contextlib.suppress(OSError):  # the reply says how it ended
            wire.send_frame(self._sock, request)
        reply = self._receive()
        while "callback" in reply:
            self._answer_callback(reply)
            reply = self._receive()
        if "raised" in reply:
            raise self._raised(reply, request.get("operation", ""))
        return self._taken(reply, args, own)

    def _raised(self, reply: dict[str, Any], operation: str) -> BaseException:
        try:
            error = self._errors.error(reply)
        except Exception as fault:
            return self._broken("the program's exception is malformed: " + str(fault))
        # Out of a call, it would end the loop of `all(map(f, cases))` as if every case had held (PEP 479).
        is_end = isinstance(error, (StopIteration, StopAsyncIteration)) and operation != "next"
        return errors.stopped(error) if is_end else error

    def _taken(self, reply: dict[str, Any], args: tuple[Any, ...], own: graph.ObjectGraph) -> Any:
        try:
            self._graph = answered = graph.ObjectGraph(own.objects)
            answered.read(reply.get("nodes") or [], self._class, self._decode, len(own.objects))
            for argument, after in zip(args, reply.get("args") or (), strict=False):
                if after is not None:
                    update(argument, wire.decode(after, 0, self._decode))
            return wire.decode(reply.get("value"), 0, self._decode)
        except (wire.WireError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise self._broken("the program's value is malformed: " + str(error)) from error

    def _class(self, name: str) -> type:
        if name not in self.classes:
            raise wire.WireError("unknown class")
        return self.classes[name]

    def _answer_callback(self, request: dict[str, Any]) -> None:
        self._print(request)
        try:
            args = [wire.decode(item, 0, self._decode) for item in request["args"]]
            number = request["callback"]
            function = builtins.input if number == -1 else self._callbacks[number]
            reply = {"value": wire.encode(function(*args), 0, self._other)}
        except Exception as error:
            reply = errors.spell(error)
        with contextlib.suppress(OSError):
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
        self._print(reply)
        return reply

    @staticmethod
    def _print(message: dict[str, Any]) -> None:
        """What the program printed meanwhile, for tests that catch it."""
        text = message.pop("printed", "")
        if text and type(text) is str:
            with contextlib.suppress(Exception):
                sys.stdout.write(text)

    def _broken(self, reason: str) -> ProgramGone:
        self.gone = reason
        return ProgramGone(reason)

    def _decode(self, tree: dict[str, Any]) -> Any:
        kind, value = tree.get("$"), tree.get("v")
        if kind == "node":
            return self._graph.find(tree)
        if kind == "awaitable":
            return _awaitable(wire.decode(value, 0, self._decode))
        if kind == "exception":
            return self._errors.find(value)
        if kind == "builtin":
            found = vars(builtins).get(value) if isinstance(value, str) else None
            if not isinstance(found, type) or issubclass(found, BaseException):
                raise wire.WireError("unknown builtin")
            return found
        if kind == "ndarray":
            return _array(value, self._decode)
        if kind != "object" or type(value) is not int:
            raise wire.WireError("unknown tag")
        return self._handles.setdefault(value, Remote(self, value))

    def _other(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            return {"$": "object", "v": value._target}
        if self.classes.get(type(value).__name__) is type(value):
            return self._graph.spell(value)
        if name := wire.builtin_type(value):
            return {"$": "builtin", "v": name}
        if not callable(value):
            fault = wire.WireError if isinstance(value, BaseException) else UnspeltError
            raise fault("a value of type " + type(value).__name__ + " cannot be handed to the program")
        self._callbacks.append(value)
        return {"$": "callback", "v": len(self._callbacks) - 1}


async def _awaitable(value: Any) -> Any:
    return value


def _array(spelt: Any, other: Any) -> Any:
    """An array of numpy where the test side has numpy, else nested lists."""
    dtype, items = spelt
    values = wire.decode(items, 0, other)
    if "numpy" not in sys.modules or not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        return values
    return sys.modules["numpy"].array(values, dtype=dtype)


def update(old: Any, new: Any) -> None:
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
        update(before, after)
        return before
    return after
