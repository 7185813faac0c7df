"""Names the loss, and looks for a custom one before anything starts.

Its module is not imported: it brings torch, seconds of a start.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from rayzero.learner.objective.losses.custom import CustomLoss, check_arguments
from rayzero.services.data.sources.function import module_hint
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import RecipeError


def loss_label(recipe: Recipe) -> str:
    """The loss as a screen names it: `grpo`, or of your own `my_losses:plain(scale=2)`."""
    loss = recipe.learner.loss
    if not isinstance(loss, CustomLoss):
        return loss.name
    return f"{loss.function}({', '.join(f'{name}={value!r}' for name, value in loss.arguments.items())})"


def check_loss(recipe: Recipe) -> None:
    """The module, the name in its source, and the arguments.

    Raises:
        RecipeError: there is no such module, its source cannot be read, has no such name, or the function that it
            defines does not take the arguments.
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
    bound = list(_names(tree))
    names = set(bound)
    if not names & {function, "*", "__getattr__"}:
        there = ", ".join(sorted(name for name in names if not name.startswith("_"))) or "none"
        raise RecipeError(f"{key} {module} has no {function}; names there: {there}")
    # A name that is bound twice, or perhaps by a star, may be another function's: the learner looks at that one.
    if bound.count(function) == 1 and "*" not in names:
        for signature in _signatures(tree, function):
            check_arguments(loss.function, signature, loss.arguments)


def _signatures(tree: ast.Module, name: str) -> Iterator[inspect.Signature]:
    """Of a plain function of the module; none where a decorator may have given it another."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name != name or node.decorator_list:
            continue
        kinds, given = inspect.Parameter, node.args
        by_place = (*given.posonlyargs, *given.args)
        required = len(by_place) - len(given.defaults)
        parameters = []
        for place, each in enumerate(by_place):
            kind = kinds.POSITIONAL_ONLY if place < len(given.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD
            value = kinds.empty if place < required else None
            parameters.append(inspect.Parameter(each.arg, kind, default=value))
        if given.vararg:
            parameters.append(inspect.Parameter(given.vararg.arg, kinds.VAR_POSITIONAL))
        for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
            value = kinds.empty if default is None else None
            parameters.append(inspect.Parameter(each.arg, kinds.KEYWORD_ONLY, default=value))
        if given.kwarg:
            parameters.append(inspect.Parameter(given.kwarg.arg, kinds.VAR_KEYWORD))
        yield inspect.Signature(parameters)


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
