"""Looks for a custom loss before anything starts. Its module is not imported: it brings torch, seconds of a start."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from rayzero.learner.objective.losses.custom import CustomLoss
from rayzero.services.data.sources.function import module_hint
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError


def check_loss(recipe: Recipe) -> None:
    """The module and the name in its source.

    Raises:
        RecipeError: there is no such module, its source cannot be read, or has no such name.
    """
    loss = recipe.learner.loss
    if not isinstance(loss, CustomLoss):
        return
    module, _, function = loss.function.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    key = f"learner.loss.function: {loss.function} cannot be imported:"
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:  # of a package above it, which is imported on the way
        raise RecipeError(f"{key} {type(error).__name__}: {error}{module_hint(error, module)}") from None
    if spec is None:
        problem = f"No module named {module!r}"
        raise RecipeError(f"{key} {problem}{module_hint(problem, module)}")
    if spec.origin is None or not spec.origin.endswith(".py"):
        return
    try:
        tree = ast.parse(Path(spec.origin).read_bytes(), filename=spec.origin)
    except (SyntaxError, ValueError, OSError) as error:
        raise RecipeError(f"{key} {spec.origin}: {error}") from None
    names = set(_names(tree))
    if not names & {function, "*", "__getattr__"}:
        there = ", ".join(sorted(name for name in names if not name.startswith("_"))) or "none"
        raise RecipeError(f"{key} {module} has no {function}; names there: {there}")


def _names(tree: ast.Module) -> Iterator[str]:
    """What a module may define, in whatever branch; `*` where that cannot be told."""
    for statement in tree.body:
        # A definition's own body defines nothing of the module's.
        inside = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for node in [statement] if inside else ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.alias):
                yield node.asname or node.name.partition(".")[0]
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
