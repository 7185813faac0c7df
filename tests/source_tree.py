"""The project's own source files as syntax trees, for the tests that hold the house to its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("learner", "rewards", "rollout_workers", "services")


@dataclass(frozen=True)
class Source:
    """One file: where it lies, and what it imports."""

    path: str
    text: str = field(repr=False, compare=False)
    tree: ast.Module = field(repr=False, compare=False)

    @property
    def num_lines(self) -> int:
        return self.text.count("\n")

    @property
    def layer(self) -> str:
        return self.path.split("/")[0]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def module(self) -> str:
        """Dotted, without `rayzero.` in front."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def num_branches(self) -> int:
        """Places where it decides or repeats something."""
        kinds = (ast.If, ast.IfExp, ast.BoolOp, ast.For, ast.AsyncFor, ast.While, ast.comprehension, ast.Try)
        return sum(isinstance(node, kinds) for node in ast.walk(self.tree))

    def imports(self, *, at_import_time: bool = False) -> Iterator[tuple[str, int]]:
        """Every imported module with its line, ours without `rayzero.`; `at_import_time` leaves out functions and
        TYPE_CHECKING blocks."""
        for name, line in _imports(self.tree, deep=not at_import_time):
            yield name.removeprefix("rayzero."), line

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))


def _imports(node: ast.AST, deep: bool) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import on line {child.lineno}"
            yield str(child.module), child.lineno
            # `from rayzero.learner.model import attention` imports the module rayzero.learner.model.attention.
            yield from ((f"{child.module}.{alias.name}", child.lineno) for alias in child.names)
        elif not deep and _runs_later(child):
            continue
        else:
            yield from _imports(child, deep)


def _runs_later(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file of the four layers, or of the folders that are named."""
    found = []
    for folder in folders or LAYERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            path = file.relative_to(ROOT).as_posix()
            found.append(Source(path, text, ast.parse(text, filename=path)))
    return tuple(found)
