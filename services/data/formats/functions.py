"""Data sets of functions with Python tests: LeetCodeDataset, KodCode, AceCoder, MBPP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayzero.services.data.formats.columns import kind_of, optional_text, parsed_text, required, text
from rayzero.services.data.formats.problem import Problem, PublishedFormat, RowFault, Values
from rayzero.services.data.formats.programs import code_spec, fenced, with_starter
from rayzero.services.schema.nested import MISSING, find

LEETCODE_LIMIT_S = 10.0
"""Of a problem: its hundred assertions are one test."""


def read_leetcode(values: Values) -> Problem:
    """LeetCodeDataset: `check(candidate)` in `test`, called with `entry_point`; `prompt` is the tests' header."""
    test = {"assert": text(values, "test"), "entry_point": text(values, "entry_point")}
    header = optional_text(values, "prompt")
    described, starter = optional_text(values, "problem_description"), optional_text(values, "starter_code")
    question = with_starter(described, starter) if described else text(values, "query")
    solution = optional_text(values, "completion") or None
    spec = code_spec([test], what="test", prelude=header, time_limit_s=LEETCODE_LIMIT_S)
    return Problem(prompt=question, answer=spec, task="code", solution=solution)


def read_kodcode(values: Values) -> Problem:
    """KodCode: a pytest file that imports from `solution`; the declarations that it calls are part of the question."""
    question, test = text(values, "question"), text(values, "test")
    declared = _declarations(values)
    if declared:
        question = f"{question.rstrip()}\n\nDeclare it like this:\n\n```python\n{declared}\n```"
    spec = code_spec([{"assert": test}], what="test")
    return Problem(
        prompt=question, answer=spec, task="code", solution=fenced(optional_text(values, "solution")) or None
    )


def read_acecoder(values: Values) -> Problem:
    """AceCoder: assertions; of the models' programs, if there are any, one that passed them all is the reference."""
    name = "tests" if "tests" in values and "test_cases" not in values else "test_cases"
    spec = code_spec(_assertions(values, name), what=name)
    return Problem(prompt=text(values, "question"), answer=spec, task="code", solution=_best_program(values))


def read_mbpp(values: Values) -> Problem:
    """MBPP, whole or sanitized: the first assertion is shown, because only the tests name the function."""
    question = text(values, "text" if values.get("text") else "prompt")
    tests = _assertions(values, "test_list")
    challenge = _assertions(values, "challenge_test_list") if values.get("challenge_test_list") else []
    imports = values.get("test_imports") or []
    lines = imports if isinstance(imports, list) else [imports]
    prelude, setup = "\n".join(map(str, lines)).strip(), optional_text(values, "test_setup_code").strip()
    asked = [f"{setup}\n{test}" if setup else test for test in (*tests, *challenge)]  # `root = Node(1)`, the program's
    spec = code_spec(asked, what="test_list", prelude=prelude)
    shown = f"{question.rstrip()}\n\nYour code should pass this test:\n\n```python\n{tests[0]}\n```"
    return Problem(prompt=shown, answer=spec, task="code", solution=optional_text(values, "code") or None)


def _declarations(values: Values) -> str:
    """KodCode's declarations of the functions that its test calls, one a line."""
    infos = find(values, "test_info")
    if not isinstance(infos, list):
        return ""
    return "\n".join(
        str(info["function_declaration"]).strip()
        for info in infos
        if isinstance(info, Mapping) and info.get("function_declaration")
    )


def _assertions(values: Values, name: str) -> list[str]:
    tests = required(values, name)
    if isinstance(tests, str):
        tests = parsed_text(tests, f"column {name!r}")
    if not isinstance(tests, list):
        raise RowFault("wrong type", f"column {name!r} must be a list of assertions, not {kind_of(tests)}")
    if not tests:
        raise RowFault("no tests", f"column {name!r} is empty: every program would pass")
    for number, test in enumerate(tests):
        if not isinstance(test, str) or not test.strip():
            raise RowFault("broken tests", f"column {name!r}: test {number} must be text, not {kind_of(test)}")
    return tests


def _best_program(values: Values) -> str | None:
    found: Any = find(values, "inferences")
    if found is MISSING or not isinstance(found, list):
        return None
    passed = [each for each in found if isinstance(each, Mapping) and each.get("pass_rate") == 1]
    return next((fenced(each["completion"]) for each in passed if isinstance(each.get("completion"), str)), None)


LEETCODE_DATASET = PublishedFormat(
    name="leetcode_dataset",
    about="LeetCodeDataset: `check(candidate)` and an entry point",
    marks=("entry_point", "test", "completion", "query"),
    reads=frozenset(("prompt", "problem_description", "starter_code", "query", "response", "completion", "test")),
    read=read_leetcode,
)
KODCODE = PublishedFormat(
    name="kodcode",
    about="KodCode: pytest files",
    marks=("question", "solution", "test", "test_info"),
    reads=frozenset(("question", "solution", "test", "r1_solution", "conversations")),
    read=read_kodcode,
)
ACECODER = PublishedFormat(
    name="acecoder",
    about="AceCode-87K and AceCode-V2-122K: lists of assertions",
    marks=("question", "test_cases", "inferences"),
    later_marks=("id", "source", "question", "tests"),
    reads=frozenset(("question", "test_cases", "tests", "inferences", "context_messages")),
    read=read_acecoder,
)
MBPP = PublishedFormat(
    name="mbpp",
    about="MBPP, whole or sanitized",
    marks=("test_list", "code"),
    reads=frozenset(("text", "prompt", "code", "test_list", "challenge_test_list", "test_setup_code", "test_imports")),
    read=read_mbpp,
)
