"""Tests as public data sets spell them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rayzero.rewards.code.spec import AssertTest, CallTest, OperationsTest, SpecError, StdinTest, parse

STDIN = StdinTest(stdin="1 2\n", expected="3\n")
CALL = CallTest(call="add", args=[1, 2], expected=3)


@pytest.mark.parametrize(
    ("tests", "wanted"),
    [
        ([{"input": "1 2\n", "output": "3\n"}], STDIN),
        ({"inputs": ["1 2\n"], "outputs": ["3\n"]}, STDIN),
        (json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}), STDIN),
        ({"test_cases": [{"input": "1 2\n", "output": "3\n", "type": "stdin_stdout"}]}, STDIN),
        ([{"input": ["1 2"], "output": ["3"]}], STDIN),
        ({"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}, CALL),
        ([{"input": "1\n2", "output": "3", "testtype": "functional", "fn_name": "add"}], CALL),
        (["assert add(1, 2) == 3"], AssertTest.model_validate({"assert": "assert add(1, 2) == 3"})),
        ("assert add(1, 2) == 3", AssertTest.model_validate({"assert": "assert add(1, 2) == 3"})),
    ],
)
def test_each_spelling(tests: Any, wanted: object) -> None:
    assert parse({"tests": tests}).tests == [wanted]


def test_a_function_named_beside_the_tests() -> None:
    spec = parse(
        {
            "fn_name": "add",
            "tests": [{"input": "1\n2", "output": "3"}, {"input": "1", "output": "1", "testtype": "stdin"}],
        }
    )
    assert [type(test) for test in spec.tests] == [CallTest, StdinTest]


@pytest.mark.parametrize(
    "tests", [{"inputs": ["1"], "outputs": []}, {"inputs": "1", "outputs": "2"}, "[1", "", {}, [4]]
)
def test_what_is_no_test_is_refused_or_asserted(tests: Any) -> None:
    if isinstance(tests, str):
        assert isinstance(parse({"tests": tests}).tests[0], AssertTest)
        return
    with pytest.raises(SpecError, match="tests"):
        parse({"tests": tests})


def test_operations_are_equally_long() -> None:
    test = {"operations": ["Box", "get"], "args": [[1], []], "expected": [None, 1]}
    assert isinstance(parse({"tests": [test]}).tests[0], OperationsTest)
    with pytest.raises(SpecError, match="equally long"):
        parse({"tests": [{**test, "args": [[1]]}]})


@pytest.mark.parametrize("name", ["../etc", "/usr", "a b", "", "-r"])
def test_a_package_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(SpecError, match="packages"):
        parse({"tests": [{"stdin": "", "expected": ""}], "packages": [name]})
