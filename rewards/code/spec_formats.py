"""Tests as public data sets spell them, read into the forms of spec.py.

[{"input": "1 2\n", "output": "3\n"}, ...]                 APPS, CodeContests, TACO, LiveCodeBench
{"inputs": [...], "outputs": [...], "fn_name": "add"}      PRIME, verl, TACO, rllm, NeMo Gym
{"input": "1\n2", "output": "3", "testtype": "functional"} LiveCodeBench: arguments one a line
{"test_cases": [...]}, ["assert add(1, 2) == 3", ...]      open-r1, MBPP
any of these as JSON text
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LISTS = ("test_cases", "test_list", "tests")
_FUNCTIONS = ("fn_name", "func_name", "function_name")


def normal(spec: Any) -> Any:
    """`spec` with its tests in the forms of spec.py; what is none of the known spellings stays as it is."""
    if not isinstance(spec, Mapping) or "tests" not in spec:
        return spec
    function = next((spec[name] for name in _FUNCTIONS if isinstance(spec.get(name), str)), None)
    tests = _tests(spec["tests"], function)
    return {**spec, "tests": tests}


def _tests(tests: Any, function: str | None) -> Any:
    if isinstance(tests, str):
        parsed = _parsed(tests)
        return [{"assert": tests}] if parsed is None else _tests(parsed, function)
    if isinstance(tests, Mapping):
        function = next((tests[name] for name in _FUNCTIONS if isinstance(tests.get(name), str)), function)
        if "inputs" in tests and "outputs" in tests:
            return _columns(tests["inputs"], tests["outputs"], function)
        inner = next((tests[name] for name in _LISTS if name in tests), None)
        return _tests(inner, function) if inner is not None else [_test(tests, function)]
    return [_test(test, function) for test in tests] if isinstance(tests, list) else tests


def _parsed(text: str) -> Any:
    """The list or object that JSON text spells; None for other text."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _columns(inputs: Any, outputs: Any, function: str | None) -> Any:
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        return [{"inputs": inputs, "outputs": outputs}]  # refused by its keys
    if function and all(isinstance(output, list) and len(output) == 1 for output in outputs):
        outputs = [output[0] for output in outputs]  # APPS, and who took its tests: each value in a list of its own
    return [_test({"input": given, "output": wanted}, function) for given, wanted in zip(inputs, outputs, strict=True)]


def _test(test: Any, function: str | None) -> Any:
    if isinstance(test, str):
        return {"assert": test}
    if not isinstance(test, Mapping) or "input" not in test or not ("output" in test or "expected" in test):
        return test
    rest = {name: value for name, value in test.items() if name not in ("input", "output")}
    wanted = test["output"] if "output" in test else test["expected"]
    function = next((test[name] for name in _FUNCTIONS if isinstance(test.get(name), str) and test[name]), function)
    if test.get("testtype", test.get("type")) in ("functional", "function_call") or (
        function and test.get("testtype", test.get("type")) not in ("stdin", "stdin_stdout")
    ):
        return {**rest, "call": function, "args": _arguments(test["input"]), "expected": _value(wanted)}
    return {**rest, "stdin": _text(test["input"]), "expected": _text(wanted)}


def _text(value: Any) -> Any:
    """Input or output as one text: some sets have it as a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value) + "\n"
    return value


def _arguments(given: Any) -> Any:
    """A list is the arguments; text has one a line, in JSON."""
    if not isinstance(given, str):
        return given if isinstance(given, list) else [given]
    return [_value(line) for line in given.splitlines() if line.strip()]


def _value(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
