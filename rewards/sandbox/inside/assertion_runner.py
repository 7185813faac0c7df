"""Runs what a test's text defines and does not run by itself: pytest's functions and classes, unittest's TestCases,
`check(candidate)`. Stops at the first failure, by raising it."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rayzero.rewards.sandbox.inside import pytest_like
from rayzero.rewards.sandbox.inside.assertion_text import TestFault, TestText

Fixtures = Mapping[str, Callable[..., Any]]
_CANDIDATES = ("candidate", "func", "fn", "f", "function", "solution")


def prepare(text: TestText) -> None:
    """Let the test import `pytest`, and let `unittest.main()` at its end do nothing: its cases are run afterwards."""
    sys.modules["pytest"] = pytest_like.module()
    if any(getattr(node, "name", "").startswith("unittest") or getattr(node, "module", None) == "unittest"
           for node in _imports(text)):  # fmt: skip
        import unittest

        vars(unittest).update(main=lambda *args, **keywords: None)


def _imports(text: TestText) -> Iterator[Any]:
    import ast

    for node in ast.walk(text.tree):
        if isinstance(node, ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Import):
            yield from node.names


def run_defined(space: Mapping[str, Any], text: TestText, candidate: Any) -> None:
    """Every test that `text` defines; those that it calls at its top level have run."""
    defined = {name: value for name, value in list(space.items()) if name in text.defined}
    check = defined.get("check")
    if inspect.isfunction(check) and "check" not in text.called_at_once and _wants_candidate(check):
        if candidate is None:
            raise TestFault("`check(candidate)` is defined and never called, and no `entry_point` says with what")
        check(candidate)
    fixtures = _fixtures(defined, candidate)
    _call_if_there(defined, "setup_module")
    for name, value in defined.items():
        if getattr(value, "__module__", "") != "__main__":
            continue  # imported, whatever its name
        if _is_case(value):
            _run_case(value)
        elif inspect.isclass(value) and name.startswith("Test"):
            _run_class(value, fixtures)
        elif inspect.isfunction(value) and name.startswith("test") and name not in text.called_at_once:
            _call_if_there(defined, "setup_function", value)
            _run_function(value, fixtures)
            _call_if_there(defined, "teardown_function", value)


def _wants_candidate(function: Callable[..., Any]) -> bool:
    return sum(each.default is each.empty for each in inspect.signature(function).parameters.values()) == 1


def _fixtures(defined: Mapping[str, Any], candidate: Any) -> dict[str, Callable[..., Any]]:
    found = pytest_like.builtin_fixtures()
    if candidate is not None:
        found |= {name: lambda: candidate for name in _CANDIDATES}
    return found | {
        pytest_like.marks_of(value)["fixture"].get("name") or name: value
        for name, value in defined.items()
        if "fixture" in pytest_like.marks_of(value)
    }


def _is_case(value: Any) -> bool:
    unittest = sys.modules.get("unittest")
    return unittest is not None and inspect.isclass(value) and issubclass(value, unittest.TestCase)


def _run_case(case: Any) -> None:
    import unittest

    class Result(unittest.TestResult):
        """Keeps the first error itself."""

        first: BaseException | None = None

        def addError(self, test: Any, err: Any) -> None:
            super().addError(test, err)
            self.first = self.first or err[1]

        def addFailure(self, test: Any, err: Any) -> None:
            super().addFailure(test, err)
            self.first = self.first or err[1]

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
            super().addSubTest(test, subtest, err)
            self.first = self.first or (err[1] if err else None)

    result = Result()
    result.failfast = True
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    if result.first is not None:
        raise result.first
    if not result.wasSuccessful():
        raise AssertionError("a test that was expected to fail passed")


def _run_class(kind: type, fixtures: Fixtures) -> None:
    own = {**fixtures}
    for name in dir(kind):
        if "fixture" in pytest_like.marks_of(getattr(kind, name)):
            own[name] = getattr(kind, name)
    _call_if_there(kind, "setup_class")
    for name in [name for name in vars(kind) if name.startswith("test")]:
        if not callable(getattr(kind, name)):
            continue
        try:
            instance = kind()
        except TypeError as error:
            raise TestFault(f"the class {kind.__name__} cannot be made: {error}") from error
        bound = {each: _bound(instance, function) for each, function in own.items()}
        _call_if_there(instance, "setup_method", getattr(instance, name))
        _run_function(getattr(instance, name), bound, getattr(kind, name), kind)
        _call_if_there(instance, "teardown_method", getattr(instance, name))
    _call_if_there(kind, "teardown_class")


def _bound(instance: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    own = getattr(type(instance), getattr(function, "__name__", ""), None)
    return getattr(instance, function.__name__) if own is function else function


def _call_if_there(owner: Any, name: str, *given: Any) -> None:
    function = owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
    if callable(function):
        function(*given[: len(inspect.signature(function).parameters)])


def _run_function(function: Callable[..., Any], fixtures: Fixtures, *marked: Any) -> None:
    marks = [pytest_like.marks_of(each) for each in (function, *marked)]
    if any(mark.get("skip") for mark in marks):
        return
    sets = [each for mark in marks[:1] + marks[2:] for each in mark.get("parametrize", ())]
    sets += _sets_of_fixtures(function, fixtures)
    for chosen in itertools.product(*sets):
        given = {name: value for each in chosen for name, value in each.items()}
        with pytest_like.Scope(fixtures, given) as scope:
            wanted = inspect.signature(function).parameters
            scope.use_automatic()
            arguments = {
                name: scope.get(name)
                for name, each in wanted.items()
                if each.default is each.empty or name in given or name in fixtures
            }
            try:
                outcome = function(**arguments)
                if inspect.iscoroutine(outcome):
                    asyncio.run(outcome)
            except pytest_like.Skipped:
                continue


def _sets_of_fixtures(function: Callable[..., Any], fixtures: Fixtures) -> list[list[dict[Any, Any]]]:
    """The values of fixtures that have several, for those that the function asks for, itself or by another."""
    sets, rest, seen = [], list(inspect.signature(function).parameters), set()
    while rest:
        name = rest.pop()
        if name in seen or name not in fixtures:
            continue
        seen.add(name)
        rest += inspect.signature(fixtures[name]).parameters
        params = pytest_like.marks_of(fixtures[name]).get("fixture", {}).get("params")
        if params:
            sets.append([{fixtures[name]: value[0] if isinstance(value, pytest_like.Parameters) else value}
                         for value in params])  # fmt: skip
    return sets
