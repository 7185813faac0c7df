"""Every message of the code as it stands there: errors, warnings, log lines, what commands print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.source_tree import Source, sources

CALLS = {"critical", "debug", "echo", "error", "exception", "_fail", "info", "print", "say", "secho", "warn", "warning"}
"""What shows or logs its argument."""
HELD = re.compile(r"advice|cause|fix|hint|note|problem|reason|remed|say|text|warning|what|why|words")
"""Names of variables and functions that hold parts of a message."""
LISTS = re.compile(r"notes|problems|reasons|warnings")


@dataclass(frozen=True)
class Field:
    """A value within a message, and what stands around it."""

    expression: str
    form: str
    before: str
    after: str


@dataclass(frozen=True)
class Message:
    """One message: `{}` stands where a value is put in."""

    path: str
    line: int
    kind: str
    """`raise`, the name of the call that shows it, or `part`."""
    text: str
    fields: tuple[Field, ...]
    """The values that are put in."""

    def __str__(self) -> str:
        """As an editor opens it."""
        return f"{self.path}:{self.line}: {self.text}"


@cache
def messages() -> tuple[Message, ...]:
    """All, in the order of the files."""
    folders = ("learner", "rewards", "rollout_workers", "services", "benchmarks")
    return tuple(message for source in sources(*folders) for message in _of(source))


def _of(source: Source) -> Iterator[Message]:
    for node in ast.walk(source.tree):
        for kind, spoken in _spoken(node):
            for text, fields in _texts(spoken):
                if " " in text.strip():
                    yield Message(source.path, spoken.lineno, kind, text, fields)


def _spoken(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Expressions whose text a user reads."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from (("raise", each) for each in node.exc.args)
    elif isinstance(node, ast.Call) and _name(node.func) in CALLS:
        yield from ((_name(node.func), each) for each in node.args)
    elif isinstance(node, ast.Call) and _name(node.func) == "append" and LISTS.search(ast.unparse(node.func)):
        yield from (("part", each) for each in node.args)
    elif isinstance(node, ast.Assign) and any(HELD.search(_name(each)) for each in node.targets):
        yield "part", node.value
    elif isinstance(node, ast.FunctionDef) and HELD.search(node.name):
        found = (each for each in ast.walk(node) if isinstance(each, ast.Return | ast.Yield))
        yield from (("part", each.value) for each in found if each.value is not None)


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _texts(node: ast.expr) -> Iterator[tuple[str, tuple[Field, ...]]]:
    """The texts that an expression may be, each with what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, ()
    elif isinstance(node, ast.JoinedStr):
        words = [str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values]
        around = zip(node.values, ["", *words], [*words[1:], ""], strict=False)
        yield "".join(words), tuple(_field(*each) for each in around if isinstance(each[0], ast.FormattedValue))
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for each in node.values:
            yield from _texts(each)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        ends = list(_texts(node.right)) or [("{}", ())]
        yield from ((text + end, (*own, *others)) for text, own in _texts(node.left) for end, others in ends)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        yield from _texts(node.func.value)


def _field(value: ast.expr, before: str, after: str) -> Field:
    assert isinstance(value, ast.FormattedValue)
    form = ast.unparse(value.format_spec)[2:-1] if value.format_spec is not None else ""
    return Field(ast.unparse(value.value), form, before, after)
