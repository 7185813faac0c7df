"""Objects of classes that the test defines (LeetCode's `ListNode`, a tree's `Node`), as a table of their fields.

A test that brings its own classes builds its arguments of them, and reads the answer with them. In the program's box
the same objects are of the program's class of that name; what changes there changes here. No depth, cycles allowed.

    {"$": "node", "v": 0} in a value, and beside it [{"class": "ListNode", "fields": {"val": 1, "next": null}}, ...]
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rayzero.rewards.sandbox.inside import wire

MAX_NODES = 500_000


class Plain:
    """Stands for a class that the program does not define."""


class ObjectGraph:
    """The objects of one message, numbered in the order in which they were met."""

    def __init__(self, known: list[Any] | None = None) -> None:
        """`known`: objects that have their number already, from the message that this one answers."""
        self.objects: list[Any] = list(known or ())
        self._numbers = {id(each): number for number, each in enumerate(self.objects)}

    def spell(self, value: Any) -> dict[str, Any]:
        """A reference to `value`, which joins the table."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self.objects)
            self.objects.append(value)
            if number >= MAX_NODES:
                raise wire.WireError("too many linked objects")
        return {"$": "node", "v": number}

    def table(self, other: Callable[[Any], Any]) -> list[dict[str, Any]]:
        """Every object's fields; `other` spells what has no builtin type, and may call `spell` for more."""
        rows = []
        for each in self.objects:  # grows meanwhile
            fields = {
                name: wire.encode(value, 0, other) for name, value in _fields(each).items() if _is_plain_name(name)
            }
            rows.append({"class": type(each).__name__, "fields": fields})
        return rows

    def read(
        self, rows: Any, classes: Callable[[str], type], other: Callable[[dict[str, Any]], Any], start: int = 0
    ) -> None:
        """Take a table in: objects from `start` on are new, of the class that `classes` finds; then all fields are
        set."""
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise wire.WireError("malformed table")
        for row in rows[start:]:
            kind = classes(str(row.get("class")))
            self.objects.append(object.__new__(kind))
        for each, row in zip(self.objects, rows, strict=False):
            for name, tree in dict(row.get("fields") or {}).items():
                # A field must not hide a method of the test's own class.
                if _is_plain_name(name) and not callable(getattr(type(each), name, None)):
                    setattr(each, name, wire.decode(tree, 0, other))
        self._numbers = {id(each): number for number, each in enumerate(self.objects)}

    def find(self, tree: dict[str, Any]) -> Any:
        """What a reference means."""
        number = tree.get("v")
        if type(number) is not int or not 0 <= number < len(self.objects):
            raise wire.WireError("unknown object")
        return self.objects[number]


def _fields(value: Any) -> dict[str, Any]:
    slots: Collection[str] = getattr(type(value), "__slots__", ())
    named = {name: getattr(value, name) for name in slots if isinstance(name, str) and hasattr(value, name)}
    return {**named, **getattr(value, "__dict__", {})}


def _is_plain_name(name: Any) -> bool:
    return type(name) is str and name.isidentifier() and not name.startswith("__")
