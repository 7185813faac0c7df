"""Code specs and prompts as the readers of programming data make them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rayzero.services.data.formats.columns import kind_of
from rayzero.services.data.formats.problem import RowFault

_LISTS = ("test_cases", "test_list", "tests")
_FENCED = re.compile(r"```[\w+#]*[ \t]*\r?\n(.*?)```", re.DOTALL)
_LANGUAGES = {
    "python": "python", "python3": "python", "py": "python", "cpp": "cpp", "c++": "cpp", "java": "java",
    "javascript": "javascript", "js": "javascript", "go": "go", "golang": "go", "rust": "rust",
}  # fmt: skip


def code_spec(tests: Any, *, what: str, language: Any = "python", **more: Any) -> dict[str, Any]:
    """The spec of a program that must pass `tests`, in any spelling that the code reward reads.

    Raises:
        RowFault: there is no test at all, it is no list or object of tests, or the language is not judged here.
    """
    known = _LANGUAGES.get(str(language or "python").lower())
    if known is None:
        raise RowFault("unsupported", f"{what}: programs in {language} are not judged; {', '.join(_LANGUAGES)} are")
    if not isinstance(tests, list | tuple | Mapping):
        raise RowFault("wrong type", f"{what} must be a list or an object of tests, not {kind_of(tests)}")
    if num_tests(tests) == 0:
        raise RowFault("no tests", f"{what} holds no test: every program would pass")
    given = dict(tests) if isinstance(tests, Mapping) else list(tests)
    return {"language": known, "tests": given} | {name: value for name, value in more.items() if value}


def num_tests(tests: Any) -> int:
    """How many tests a list, or an object of inputs and outputs, holds."""
    if isinstance(tests, Mapping):
        if "inputs" in tests or "outputs" in tests:
            inputs, outputs = tests.get("inputs") or (), tests.get("outputs") or ()
            if len(inputs) != len(outputs):
                raise RowFault("broken tests", f"{len(inputs)} inputs and {len(outputs)} outputs")
            return len(inputs)
        inner = next((tests[name] for name in _LISTS if name in tests), None)
        return num_tests(inner) if inner is not None else int(bool(tests))
    return len(tests) if isinstance(tests, list | tuple) else 0


def fenced(solution: str) -> str:
    """The program in a fenced block; a solution without one as it is."""
    blocks: list[str] = _FENCED.findall(solution)
    return blocks[-1] if blocks else solution


def with_starter(question: str, starter: str) -> str:
    """The question, with the code that the program has to begin with."""
    if not starter.strip():
        return question
    return f"{question.rstrip()}\n\nStart from this code:\n\n```python\n{starter.rstrip()}\n```"
