"""Linked lists and binary trees as LeetCode writes them: `[1,2,3]`, and `[3,9,20,null,null,15,7]` level by level.

Which arguments are nodes is what the function's annotations say; the classes are the program's own where it defines
them. Runs inside the box, on what the program may have forged: the spelling is only a value.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

MAX_NODES = 1_000_000
NAMES = ("ListNode", "TreeNode")


class ListNode:
    """One element; `next` is None at the end."""

    def __init__(self, val: Any = 0, next: Any = None) -> None:
        self.val = val
        self.next = next


class TreeNode:
    """A node of a binary tree."""

    def __init__(self, val: Any = 0, left: Any = None, right: Any = None) -> None:
        self.val = val
        self.left = left
        self.right = right


def offer(module: types.ModuleType, source: str) -> None:
    """Give the program the classes that its source names: LeetCode's stubs have them in a comment."""
    if "ListNode" in source:
        module.__dict__["ListNode"] = ListNode
    if "TreeNode" in source:
        module.__dict__["TreeNode"] = TreeNode


def built(function: Callable[..., Any], args: list[Any], module: types.ModuleType) -> list[Any]:
    """The arguments, with nodes where the signature wants them. An integer for a TreeNode names a node of the tree
    before it."""
    wanted = _annotations(function)
    made: list[Any] = []
    for index, arg in enumerate(args):
        text = wanted[index] if index < len(wanted) else ""
        made.append(_build(text, arg, module, made))
    return made


def spelt(value: Any) -> Any:
    """A node (or a list of some) as plain lists; anything else as it is."""
    if type(value) is list and any(_is_node(item) for item in value):
        return [spelt(item) for item in value]
    if not _is_node(value):
        return value
    return _values(value) if hasattr(value, "next") else _levels(value)


def result(function: Callable[..., Any], given: list[Any], value: Any) -> Any:
    """What the function returned, as LeetCode shows it: no node is the empty list; where arguments named nodes by their
    values, so does the result."""
    text = str(_own(function).get("return", ""))
    if value is None and any(name in text for name in NAMES) and not _is_nested(text):
        return []
    named = any(
        "TreeNode" in text and isinstance(arg, int) for text, arg in zip(_annotations(function), given, strict=False)
    )
    return value.val if named and _is_node(value) else spelt(value)


def _annotations(function: Callable[..., Any]) -> list[str]:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None:
        return []
    names = code.co_varnames[: code.co_argcount]
    if hasattr(function, "__self__"):
        names = names[1:]
    own = _own(function)
    return [_text(own.get(name, "")) for name in names]


def _own(function: Callable[..., Any]) -> dict[str, Any]:
    found = getattr(getattr(function, "__func__", function), "__annotations__", None)
    return found if isinstance(found, dict) else {}


def _text(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _is_nested(text: str) -> bool:
    return "List[" in text or "list[" in text


def _build(text: str, arg: Any, module: types.ModuleType, before: list[Any]) -> Any:
    name = next((name for name in NAMES if name in text), None)
    if name is None:
        return arg
    kind = module.__dict__.get(name) or {"ListNode": ListNode, "TreeNode": TreeNode}[name]
    if _is_nested(text) and isinstance(arg, list):
        return [_chain(kind, item) if name == "ListNode" else _tree(kind, item) for item in arg]
    if isinstance(arg, int) and name == "TreeNode":
        return next((found for tree in before if (found := _find(tree, arg)) is not None), kind(arg))
    if arg is not None and not isinstance(arg, list):
        return arg
    return _chain(kind, arg) if name == "ListNode" else _tree(kind, arg)


def _chain(kind: Callable[[Any], Any], values: list[Any] | None) -> Any:
    head = None
    for value in reversed(values or []):
        node = kind(value)
        node.next = head
        head = node
    return head


def _tree(kind: Callable[[Any], Any], values: list[Any] | None) -> Any:
    if not values or values[0] is None:
        return None
    root = kind(values[0])
    parents, at = [root], 1
    for parent in parents:
        for side in ("left", "right"):
            if at < len(values):
                if values[at] is not None:
                    child = kind(values[at])
                    setattr(parent, side, child)
                    parents.append(child)
                at += 1
    return root


def _find(tree: Any, value: int) -> Any:
    rest = [tree]
    while rest:
        node = rest.pop()
        if node is not None and hasattr(node, "left"):
            if node.val == value:
                return node
            rest += [node.right, node.left]
    return None


def _is_node(value: Any) -> bool:
    return type(value).__name__ in NAMES and hasattr(value, "val")


def _values(head: Any) -> list[Any]:
    found: list[Any] = []
    while head is not None:
        found.append(head.val)
        head = head.next
        if len(found) > MAX_NODES:
            raise ValueError("a linked list without an end")
    return found


def _levels(root: Any) -> list[Any]:
    found: list[Any] = []
    level = [root]
    for node in level:
        found.append(None if node is None else node.val)
        if node is not None:
            level += [node.left, node.right]
        if len(found) > MAX_NODES:
            raise ValueError("a tree without an end")
    while found and found[-1] is None:
        found.pop()
    return found
