"""Rows that a Python function returns or yields."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rayzero.services.data.sources.rows import Row, Rows
from rayzero.services.schema.config.data import FunctionSource
from rayzero.services.schema.errors import RecipeError

MAX_ROWS = 10_000_000
PATIENCE_S = 10.0
"""Between two words of a function that goes on and on."""


def read(settings: FunctionSource) -> Rows:
    """The function's rows in order.

    Raises:
        RecipeError: the function cannot be imported or called with these arguments, fails, or yields something else
            than rows.
    """
    with _prints_apart():
        function = import_function(settings.function)
    _check_arguments(function, settings)
    number, told_s = 0, time.monotonic() + PATIENCE_S
    try:
        for values in _in_turn(function, settings):
            number += 1
            if time.monotonic() > told_s:
                told_s = time.monotonic() + PATIENCE_S
                bound = "" if settings.max_prompts else "; data.….max_prompts ends one that never does"
                print(f"{settings.function} has given {number:,} rows and goes on{bound}", file=sys.stderr)
            origin = f"{settings.function}, row {number}"
            if not isinstance(values, Mapping):
                raise RecipeError(f"{origin}: a row must be a mapping of columns, not a {type(values).__name__}")
            if number > MAX_ROWS:
                raise RecipeError(f"{settings.function} yields more than {MAX_ROWS} rows: set max_prompts")
            yield Row(number=number, origin=origin, values=values)
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{settings.function} failed after {number} rows: {type(error).__name__}: {error}") from error


def _in_turn(function: Callable[..., Any], settings: FunctionSource) -> Iterator[Any]:
    """The function's rows. What it prints goes to standard error: standard output may be read by a program."""
    with _prints_apart():
        rows = iter(_call(function, settings))
    while True:
        with _prints_apart():
            try:
                values = next(rows)
            except StopIteration:
                return
        yield values


def _prints_apart() -> AbstractContextManager[Any]:
    return contextlib.redirect_stdout(sys.stderr)


def import_function(name: str) -> Callable[..., Any]:
    """`module:function`, looked for on the import path and in the current directory.

    Raises:
        RecipeError: no such module or function, or the module fails when imported.
    """
    module_name, _, function_name = name.partition(":")
    # The console script does not look in the current directory, where a user's own module lies.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise RecipeError(
            f"{name}: module {module_name} cannot be imported: {type(error).__name__}: {error}"
            f"{module_hint(error, module_name)}"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise RecipeError(
            f"{name}: {module_name} has no function {function_name}; it has: {', '.join(there) or 'none'}"
        )
    checked: Callable[..., Any] = function
    return checked


def module_hint(error: BaseException | str, module: str) -> str:
    """What helps where the module itself was not found (`error`, or its text); empty where something else is wrong."""
    if f"No module named '{module.partition('.')[0]}" not in str(error):
        return ""
    return (
        f": check its name; modules are looked for in {Path.cwd()}, on PYTHONPATH and among what is installed, so run "
        "the command in the directory that holds it"
    )


def _check_arguments(function: Callable[..., Any], settings: FunctionSource) -> None:
    try:
        inspect.signature(function).bind(**settings.arguments)
    except TypeError as error:
        signature = f"{settings.function.partition(':')[2]}{inspect.signature(function)}"
        raise RecipeError(f"{settings.function}: arguments do not fit: {error}; it is {signature}") from None


def _call(function: Callable[..., Any], settings: FunctionSource) -> Iterable[Any]:
    rows = function(**settings.arguments)
    if not isinstance(rows, Iterable) or isinstance(rows, str | Mapping):
        raise RecipeError(f"{settings.function} must return or yield rows, not a {type(rows).__name__}")
    return rows
