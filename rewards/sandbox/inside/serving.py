"""The program's side of an assertion: answers what the test asks over the link, until it closes.

Everything here may be forged by the program: the test's side (link.py) takes what comes back for values of builtin
types, or for handles of objects that stay here.
"""

from __future__ import annotations

import asyncio
import builtins
import collections
import contextlib
import copy
import inspect
import io
import itertools
import operator
import socket
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from rayzero.rewards.sandbox.inside import errors, graph, nodes, wire

MAX_REPLY_BYTES = 32 << 20
MAX_EAGER = 256
"""Items of a generator that are sent at once; one with more is asked for each item, so that it may have no end."""
MAX_PRINTED = 1 << 20
OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "str": str, "repr": repr, "format": format, "len": len, "bool": bool, "hash": hash, "iter": iter, "next": next,
    "int": int, "float": float, "complex": complex, "index": operator.index, "round": round, "abs": abs,
    "neg": operator.neg, "pos": operator.pos, "invert": operator.invert, "reversed": reversed, "dir": dir,
    "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem,
    "contains": operator.contains, "eq": operator.eq, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
    "ge": operator.ge, "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "matmul": operator.matmul,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor, "isinstance": isinstance,
    "issubclass": issubclass, "copy": copy.copy, "deepcopy": copy.deepcopy, "setattr": setattr, "delattr": delattr,
    "type": lambda value: type(value),
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value: type(value).__exit__(value, None, None, None),
}  # fmt: skip
_LAZY = (types.GeneratorType, map, filter, zip, enumerate, itertools.chain)


class Server:
    """Answers calls on the link until it closes."""

    def __init__(self, link: socket.socket) -> None:
        """Serve on `link`."""
        self._link = link
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._module: types.ModuleType | None = None
        self._kinds: frozenset[str] = frozenset()
        self._graph = graph.ObjectGraph()
        self._out = sys.stdout = io.StringIO()
        vars(builtins).update(input=self._input)

    def start(self, module: types.ModuleType) -> None:
        """Tell the test's side which names the program defines."""
        self._module = module
        names = [name for name in vars(module) if type(name) is str and not name.startswith("__")]
        self._printed()
        wire.send_frame(self._link, {"names": names})

    def serve(self) -> None:
        """Answer until the other side hangs up."""
        while True:
            try:
                request = wire.receive_frame(self._link, MAX_REPLY_BYTES)
            except EOFError:
                return
            wire.send_frame(self._link, {**self._answer(request), "printed": self._printed()})

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._kinds = frozenset(request.get("kinds") or ())
            self._graph = graph.ObjectGraph()
            self._graph.read(request.get("nodes") or [], self._class, self._decode)
            args = [self._value(argument) for argument in request.get("args") or ()]
            keywords = {name: self._value(value) for name, value in (request.get("keywords") or {}).items()}
            answer = {"value": self._spell(self._do(request, args, keywords))}
            if "target" in request:
                answer["args"] = [self._spell_argument(argument) for argument in args]
            return {**answer, "nodes": self._graph.table(self._other)}
        except (Exception, SystemExit) as error:
            return errors.spell(error)

    def _do(self, request: dict[str, Any], args: list[Any], keywords: dict[str, Any]) -> Any:
        if "operation" in request:
            return OPERATIONS[request["operation"]](*args)
        target = self._find(request["target"])
        return getattr(target, request["get"]) if "get" in request else target(*args, **keywords)

    def _find(self, target: Any) -> Any:
        if target is None:
            return self._module
        if isinstance(target, int):
            return self._objects[target]
        if hasattr(self._module, target):
            return getattr(self._module, target)
        if target in nodes.NAMES:
            return vars(nodes)[target]
        owner, _, name = target.rpartition(".")
        owner = owner.replace("()", "") or "Solution"
        if not hasattr(self._module, owner):
            raise NameError(f"the program defines no function {target}")
        return getattr(getattr(self._module, owner)(), name)

    def _class(self, name: str) -> type:
        found = getattr(self._module, name, None) or vars(nodes).get(name if name in nodes.NAMES else "")
        return found if isinstance(found, type) else type(name, (graph.Plain,), {})

    def _spell(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return {"$": "awaitable", "v": self._spell(asyncio.run(value))}
        if isinstance(value, _LAZY):
            return self._lazy(value)
        return wire.encode(value, 0, self._other)

    def _lazy(self, value: Any) -> Any:
        items = list(itertools.islice(value, MAX_EAGER))
        if len(items) < MAX_EAGER:
            kind = "generator" if isinstance(value, types.GeneratorType) else "iterator"
            return {"$": kind, "v": [self._spell(item) for item in items]}
        return self._handle(itertools.chain(items, value))

    def _other(self, value: Any) -> Any:
        if type(value).__name__ in self._kinds:
            return self._graph.spell(value)
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"$": "exception", "v": errors.spell_class(value)}
        if name := wire.builtin_type(value):
            return {"$": "builtin", "v": name}
        return self._handle(value)

    def _handle(self, value: Any) -> dict[str, Any]:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # kept, so that its id stays its own
        return {"$": "object", "v": number}

    def _value(self, tree: Any) -> Any:
        return wire.decode(tree, 0, self._decode)

    def _decode(self, tree: dict[str, Any]) -> Any:
        kind, value = tree.get("$"), tree.get("v")
        if kind == "node":
            return self._graph.find(tree)
        if kind == "object":
            return self._find(value)
        if kind == "builtin":
            return vars(builtins)[str(value)]
        return self._callback(tree)

    def _callback(self, tree: dict[str, Any]) -> Any:
        def callback(*args: Any) -> Any:
            return self._ask(tree["v"], args)

        return callback

    def _input(self, prompt: object = "") -> str:
        return str(self._ask(-1, (str(prompt),)))

    def _ask(self, number: int, args: tuple[Any, ...]) -> Any:
        request = {"callback": number, "args": [self._spell(item) for item in args], "printed": self._printed()}
        wire.send_frame(self._link, request)
        reply = wire.receive_frame(self._link, MAX_REPLY_BYTES)
        if "raised" in reply:
            raise errors.Classes().error(reply)
        return self._value(reply["value"])

    def _spell_argument(self, argument: Any) -> Any:
        if not isinstance(argument, (list, dict, set, bytearray, collections.deque)):
            return None
        try:
            return self._spell(argument)
        except Exception:
            return None

    def _printed(self) -> str:
        text = ""
        with contextlib.suppress(Exception):
            text = self._out.getvalue()[:MAX_PRINTED]
            self._out.seek(0)
            self._out.truncate()
        return text
