"""open-r1's `verification_info`, as object or JSON text: verifiable-coding-problems, SYNTHETIC-1, INTELLECT-2.

{"prompt": …, "gold_standard_solution": …, "verification_info": {"language": "python", "test_cases": [{"fn_name": null,
 "input": …, "output": …, "type": "stdin_stdout"}]}}, or {"ground_truth": …} for math
"""

from __future__ import annotations

from collections.abc import Mapping

from rayzero.services.data.formats.columns import gold, kind_of, optional_text, parsed, required
from rayzero.services.data.formats.problem import Problem, PublishedFormat, RowFault, Values
from rayzero.services.data.formats.programs import code_spec, fenced

_INFO = "verification_info"


def read(values: Values) -> Problem:
    """A row's problem. Raises RowFault."""
    prompt, info = required(values, "prompt"), parsed(values, _INFO)
    if not isinstance(info, Mapping):
        raise RowFault("wrong type", f"column {_INFO!r} must be an object, not {kind_of(info)}")
    solution = optional_text(values, "gold_standard_solution") or optional_text(values, "golden_standard_solution")
    if info.get("test_cases") is not None:
        spec = code_spec(info["test_cases"], what=f"{_INFO}.test_cases", language=info.get("language"),
                         fn_name=info.get("fn_name"))  # fmt: skip
        return Problem(prompt=prompt, answer=spec, task="code", solution=fenced(solution) or None)
    if info.get("ground_truth") is None:
        keys = ", ".join(info) or "no keys"
        raise RowFault("unsupported", f"column {_INFO!r} has {keys}: `test_cases` or `ground_truth` is read")
    answer = gold(info["ground_truth"], f"{_INFO}.ground_truth")
    return Problem(prompt=prompt, answer=answer, task="math", solution=solution or None)


OPEN_R1 = PublishedFormat(
    name="open_r1",
    about="open-r1's `verification_info`, also SYNTHETIC-1 and INTELLECT-2",
    marks=("prompt", _INFO),
    reads=frozenset(("prompt", _INFO, "gold_standard_solution", "golden_standard_solution")),
    read=read,
)
