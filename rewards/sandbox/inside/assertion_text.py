"""What a test's text says before it is run: which names it leaves to the program, and whether it can fail at all."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Collection, Iterator

_PROGRAM_MODULES_TEXT = """
    solution solutions main program submission candidate answer code_solution your_module your_solution my_solution
    my_module your_code module implementation
"""
PROGRAM_MODULES = frozenset(_PROGRAM_MODULES_TEXT.split())
"""Names under which test files import the program. A module of any other name is the test's own business."""
_HELPERS_TEXT = """
    isinstance issubclass print type repr callable getattr hasattr setattr range enumerate zip list tuple dict set
    frozenset str int float bool bytes
"""
_HELPERS = frozenset(_HELPERS_TEXT.split())
"""Builtins that a test uses around what it calls; `sum` and `max` may be what it calls."""
_DISPLAYS = (ast.Tuple, ast.List, ast.Set, ast.Dict)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class TestFault(Exception):
    """The test itself cannot be used: says nothing about any program."""

    __test__ = False


class TestText:
    """A test, parsed and made ready to run."""

    __test__ = False

    def __init__(self, text: str, trusted: Collection[str]) -> None:
        """`trusted`: names that the recipe's prelude defines. TestFault for a text that is no test."""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TestFault(f"the test is no Python: {error}") from error
        self._trusted = frozenset(trusted)
        self.tree = ast.fix_missing_locations(_AssertionRewriter(self._trusted).rewritten(tree))
        read, bound = _names(self.tree)
        self.defined = frozenset(bound)
        self._refuse_what_always_holds()
        self.free = frozenset(read - bound - self._trusted)
        self.called = self._called(ast.walk(self.tree)) & self.free
        self.called_at_once = self._called(_outside_definitions(self.tree))
        self.attributes_of = frozenset(
            node.value.id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        )

    @staticmethod
    def _called(nodes: Iterator[ast.AST]) -> frozenset[str]:
        return frozenset(
            node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        )

    def program_names_like_builtins(self, entry_point: str) -> tuple[frozenset[str], frozenset[str]]:
        """Names of builtins that mean the program's function here, and those of which one must, but none can be told.

        The text alone decides, so that no program can take the place of the test's `abs`.
        """
        taken = {name for name in self.called if hasattr(builtins, name)}
        if entry_point in taken:
            return frozenset({entry_point}), frozenset()
        others = {name for name in self.free if not hasattr(builtins, name) and name not in sys.stdlib_module_names}
        asked = taken - _HELPERS
        if entry_point or others or self._imports_program() or not taken:
            return frozenset(), frozenset()
        if len(asked) == 1 or (not asked and len(taken) == 1):
            return frozenset(asked or taken), frozenset()
        return frozenset(), frozenset(asked or taken)

    def _imports_program(self) -> bool:
        return any(
            (isinstance(node, ast.ImportFrom) and _is_program(node.module))
            or (isinstance(node, ast.Import) and any(_is_program(alias.name) for alias in node.names))
            for node in ast.walk(self.tree)
        )  # fmt: skip

    def _refuse_what_always_holds(self) -> None:
        for node in ast.walk(self.tree):
            tested = node.test if isinstance(node, ast.Assert) else None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                tested = node.args[0] if node.func.attr in ("assertTrue", "assert_") else None
            if tested is not None and _always_holds(tested):
                raise TestFault(
                    f"line {tested.lineno}: the assertion of a {type(tested).__name__.lower()} always holds"
                )
        if not any(map(self._can_fail, ast.walk(self.tree))):
            raise TestFault("the test asserts nothing")

    def _can_fail(self, node: ast.AST) -> bool:
        """Assertions, raised errors, and calls of what is neither the program's nor a builtin that just computes."""
        if not isinstance(node, ast.Call):
            return isinstance(node, (ast.Assert, ast.Raise))
        if isinstance(node.func, ast.Name):
            name = node.func.id
            return name in self._trusted or name in self.defined or name in ("exit", "quit")
        return isinstance(node.func, ast.Attribute)


class _AssertionRewriter(ast.NodeTransformer):
    """A bare comparison is asserted: it can be meant for nothing else. Imports of the program come from `solution`."""

    def __init__(self, trusted: frozenset[str]) -> None:
        self._trusted = trusted

    def rewritten(self, tree: ast.Module) -> ast.Module:
        body = tree.body
        if len(body) == 1 and isinstance(body[0], ast.Expr) and not self._is_own_check(body[0].value):
            body[0] = ast.copy_location(ast.Assert(test=body[0].value, msg=None), body[0])
        self.visit(tree)
        return tree

    def _is_own_check(self, value: ast.expr) -> bool:
        """A call of the recipe's own `check`, which returns nothing, or `print('ok')`, which asks for nothing."""
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
            return False
        names = sum(isinstance(node, ast.Name) for node in ast.walk(value))
        return value.func.id in self._trusted or (value.func.id == "print" and names == 1)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        value = node.value
        compares = isinstance(value, ast.Compare) or (
            isinstance(value, ast.Tuple) and any(isinstance(item, ast.Compare) for item in value.elts)
        )
        return ast.copy_location(ast.Assert(test=value, msg=None), node) if compares else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        if not (node.level or _is_program(node.module)):
            return node
        if any(alias.name == "*" for alias in node.names):
            # Free names are the program's anyway; brought in by a star, its `abs` would stand before the test's.
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.ImportFrom(module="solution", names=node.names, level=0), node)

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        for alias in node.names:
            if _is_program(alias.name) and "." not in alias.name:
                alias.asname, alias.name = alias.asname or alias.name, "solution"
        return node


def _is_program(module: str | None) -> bool:
    return module is not None and module.rpartition(".")[2] in PROGRAM_MODULES


def _always_holds(tested: ast.expr) -> bool:
    if isinstance(tested, _DISPLAYS):
        return bool(tested.keys if isinstance(tested, ast.Dict) else tested.elts)
    if isinstance(tested, ast.Constant):
        return isinstance(tested.value, (str, bytes)) and bool(tested.value)
    return isinstance(tested, (ast.Lambda, ast.GeneratorExp, ast.JoinedStr))


def _outside_definitions(tree: ast.Module) -> Iterator[ast.AST]:
    rest: list[ast.AST] = list(tree.body)
    while rest:
        node = rest.pop()
        if not isinstance(node, _DEFINITIONS):
            yield node
            rest += ast.iter_child_nodes(node)


def _names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names that the test reads, and those that it binds somewhere."""
    read: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, _DEFINITIONS):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read, bound
