"""APPS, TACO and CodeContests: contest problems with inputs and outputs.

APPS, TACO: {"question": …, "starter_code": …, "solutions": "[…]",
             "input_output": "{\\"inputs\\": […], \\"outputs\\": […], \\"fn_name\\": …}"}
CodeContests: {"description": …, "public_tests": {"input": […], "output": […]}, "private_tests": …,
               "generated_tests": …, "solutions": {"language": [3, …], "solution": […]},
               "time_limit": {"seconds": 2, "nanos": 0}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rayzero.services.data.formats.columns import kind_of, optional_text, parsed, parsed_text, text
from rayzero.services.data.formats.problem import Problem, PublishedFormat, RowFault, Values
from rayzero.services.data.formats.programs import code_spec, with_starter
from rayzero.services.schema.nested import MISSING, find

_SECONDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*s(?:ec(?:ond)?s?)?\b", re.IGNORECASE)
_PYTHON3 = 3
"""CodeContests' number for Python 3."""
_TEST_COLUMNS = ("public_tests", "private_tests", "generated_tests")


def read_apps(values: Values) -> Problem:
    """A problem of APPS or TACO. Raises RowFault."""
    question, tests = text(values, "question"), _input_output(values)
    function = tests.get("fn_name")
    starter = optional_text(values, "starter_code")
    if not starter.strip():
        starter = f"def {function}():\n    ..." if function else ""
    spec = code_spec(tests, what="input_output", time_limit_s=_seconds(values))
    return Problem(
        prompt=with_starter(question, starter), answer=spec, task="code", solution=next(_solutions(values), None)
    )


def read_code_contests(values: Values) -> Problem:
    """A problem of CodeContests. Raises RowFault."""
    description = text(values, "description")
    if optional_text(values, "input_file") or optional_text(values, "output_file"):
        raise RowFault("unsupported", "the problem reads or writes a file: programs are given standard input alone")
    tests = [test for name in _TEST_COLUMNS for test in _paired(values, name)]
    spec = code_spec(tests, what=", ".join(_TEST_COLUMNS), time_limit_s=_seconds(values))
    languages, programs = find(values, "solutions.language"), find(values, "solutions.solution")
    pairs = zip(languages, programs, strict=False) if isinstance(languages, list) and isinstance(programs, list) else ()
    solution = next((program for language, program in pairs if language in (_PYTHON3, "PYTHON3")), None)
    return Problem(prompt=description, answer=spec, task="code", solution=solution)


def _input_output(values: Values) -> dict[str, Any]:
    if optional_text(values, "input_output") == "" and isinstance(find(values, "input_output"), str):
        raise RowFault("no tests", "column 'input_output' is empty: every program would pass")
    tests = parsed(values, "input_output")
    if not isinstance(tests, Mapping) or not all(isinstance(tests.get(n), list) for n in ("inputs", "outputs")):
        raise RowFault("wrong type", "column 'input_output' must be an object with lists `inputs` and `outputs`")
    named = {"fn_name": tests["fn_name"]} if tests.get("fn_name") else {}
    return {"inputs": tests["inputs"], "outputs": tests["outputs"]} | named


def _solutions(values: Values) -> Iterator[str]:
    found = find(values, "solutions")
    if isinstance(found, str) and found.strip():
        found = parsed_text(found, "column 'solutions'")
    yield from (each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def _paired(values: Values, name: str) -> list[dict[str, Any]]:
    tests = find(values, name)
    if tests is MISSING and name == "public_tests":
        raise RowFault("missing column", f"column {name!r} is missing")
    if tests is MISSING or tests is None:
        return []
    if not isinstance(tests, Mapping):
        raise RowFault(
            "wrong type", f"column {name!r} must be an object with `input` and `output`, not {kind_of(tests)}"
        )
    inputs, outputs = tests.get("input") or [], tests.get("output") or []
    if len(inputs) != len(outputs):
        raise RowFault("broken tests", f"column {name!r} has {len(inputs)} inputs and {len(outputs)} outputs")
    return [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs, strict=True)]


def _seconds(values: Values) -> float | None:
    """The published limit of a test; none where there is none that can be read."""
    limit = find(values, "time_limit")
    if isinstance(limit, Mapping):
        return (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9 or None
    match = _SECONDS.match(limit) if isinstance(limit, str) else None
    return float(match[1]) or None if match else None


_APPS_COLUMNS = frozenset(("question", "starter_code", "input_output", "solutions"))
APPS = PublishedFormat(
    name="apps",
    about="APPS: inputs and outputs as JSON text",
    marks=("question", "input_output", "solutions"),
    reads=_APPS_COLUMNS,
    read=read_apps,
)
TACO = PublishedFormat(
    name="taco",
    about="TACO: APPS' columns, and limits",
    marks=("question", "input_output", "solutions", "time_limit"),
    reads=_APPS_COLUMNS,
    read=read_apps,
)
CODE_CONTESTS = PublishedFormat(
    name="code_contests",
    about="CodeContests: public, private and generated tests",
    marks=("description", "public_tests", "private_tests"),
    reads=frozenset(("description", "solutions", "incorrect_solutions", *_TEST_COLUMNS)),
    read=read_code_contests,
)
